"""PyTorch with this project's model: the reference where transformers differs from the paper."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timesformer_exporter.checkpoints import build_model, load_checkpoint

from tests.benchmarks.worker import Array, Run


def load(model: Path, threads: int, options: Mapping[str, Any]) -> Run:
    """Loads a checkpoint folder; there are no ``options``."""
    assert not options
    module = build_model(load_checkpoint(str(model)), "video-classification").eval()
    torch.set_num_threads(threads)

    @torch.inference_mode()
    def run(clips: Array) -> Array:
        return np.asarray(module(torch.from_numpy(clips)).numpy())

    return run
