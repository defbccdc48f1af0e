"""Runs variants of a model on the emulated machine, for ``tests.arm64.instructions``.

python -m tests.arm64.model_runs MODEL DTYPE...
"""

from __future__ import annotations

import contextlib
import os
import sys

import numpy as np
from timesformer_runtime import VideoClassifier

_MARK = 0x7F0054F5  # at which count_plugin.c writes its counts


def main(model: str, dtypes: list[str]) -> None:
    """Runs each graph on one thread, on noise; marks the beginning and the end of the second run.

    ONNX Runtime plans its memory in the first run.
    """
    for dtype in dtypes:
        session = VideoClassifier.from_pretrained(model, dtype=dtype, threads=1).model.session
        (tensor,) = session.inputs
        shape = [size if isinstance(size, int) else 1 for size in tensor.shape]
        values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        session.run(["logits"], {tensor.name: values})
        _mark()
        session.run(["logits"], {tensor.name: values})
        _mark()


def _mark() -> None:
    with contextlib.suppress(ProcessLookupError):
        os.getpgid(_MARK)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
