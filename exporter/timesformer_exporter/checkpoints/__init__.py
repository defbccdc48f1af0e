"""PyTorch checkpoints: Hugging Face's, the authors' and mmaction2's, read into one form."""

from timesformer_exporter.checkpoints.loader import (
    TASKS,
    Checkpoint,
    Source,
    build_model,
    load_checkpoint,
)
from timesformer_exporter.checkpoints.weight_sets import WEIGHTS

__all__ = ["TASKS", "WEIGHTS", "Checkpoint", "Source", "build_model", "load_checkpoint"]
