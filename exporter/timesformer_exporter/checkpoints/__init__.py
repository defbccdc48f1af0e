"""PyTorch checkpoints: Hugging Face's, the authors' and mmaction2's, read into one form."""

from timesformer_exporter.checkpoints.loader import (
    TASKS,
    Checkpoint,
    Source,
    build_model,
    load_checkpoint,
)

__all__ = ["TASKS", "Checkpoint", "Source", "build_model", "load_checkpoint"]
