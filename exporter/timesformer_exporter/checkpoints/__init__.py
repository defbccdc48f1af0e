"""Loads PyTorch checkpoints of Hugging Face, of the authors' code and of mmaction2.

The authors' code is https://github.com/facebookresearch/TimeSformer.
"""

from timesformer_exporter.checkpoints.loader import (
    Checkpoint,
    Source,
    build_model,
    load_checkpoint,
)

__all__ = ["Checkpoint", "Source", "build_model", "load_checkpoint"]
