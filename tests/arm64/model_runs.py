"""Runs a variant of a model some times on the emulated machine, for ``tests.arm64.instructions``.

python -m tests.arm64.model_runs MODEL DTYPE RUNS
"""

from __future__ import annotations

import sys

import numpy as np
from timesformer_runtime import VideoClassifier


def main(model: str, dtype: str, runs: int) -> None:
    """Runs the graph alone, on one thread, on noise of the size that the model takes."""
    session = VideoClassifier.from_pretrained(model, dtype=dtype, threads=1).model.session
    (tensor,) = session.inputs
    shape = [size if isinstance(size, int) else 1 for size in tensor.shape]
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for _ in range(runs):
        session.run(["logits"], {tensor.name: values})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
