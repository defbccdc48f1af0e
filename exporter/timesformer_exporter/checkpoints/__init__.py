"""Loads PyTorch checkpoints of Hugging Face, of the authors' code and of mmaction2.

The authors' code is https://github.com/facebookresearch/TimeSformer.
"""

from timesformer_exporter.checkpoints.loader import (
    TASKS,
    Checkpoint,
    Source,
    build_model,
    load_checkpoint,
)
from timesformer_exporter.checkpoints.weight_sets import WEIGHTS

__all__ = ["TASKS", "WEIGHTS", "Checkpoint", "Source", "build_model", "load_checkpoint"]
