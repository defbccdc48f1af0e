"""PyTorch with transformers' model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TimesformerForVideoClassification

from tests.benchmarks.worker import Array, Run


def load(model: Path, threads: int, options: Mapping[str, Any]) -> Run:
    """Loads a checkpoint folder; ``options`` are ``dtype`` and ``compiled``."""
    dtype = getattr(torch, options.get("dtype", "float32"))
    module: Any = TimesformerForVideoClassification.from_pretrained(model, dtype=dtype).eval()
    torch.set_num_threads(threads)
    if options.get("compiled"):
        module = torch.compile(module)

    @torch.inference_mode()
    def run(clips: Array) -> Array:
        return np.asarray(module(torch.from_numpy(clips).to(dtype)).logits.float().numpy())

    return run
