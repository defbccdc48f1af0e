"""The golden frames, against the same arithmetic in plain integers."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from timesformer_runtime.model.golden import golden_frames

_64_BITS = (1 << 64) - 1


def _mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _64_BITS
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _64_BITS
    return z ^ (z >> 31)


def _byte(*numbers: int) -> int:
    state = 0
    for number in numbers:
        state = _mix((state + number) & _64_BITS)
    return state >> 56


@pytest.mark.parametrize(("seed", "shape"), [(0, (3, 20, 35, 3)), (7, (1, 17, 16, 1))])
def test_frames_are_those_of_the_documented_arithmetic(
    seed: int, shape: tuple[int, int, int, int]
) -> None:
    frames = golden_frames(seed, shape)
    assert frames.dtype == np.uint8
    assert frames.shape == shape
    for t, y, x, c in np.ndindex(shape):
        squares = _byte(seed, 0, t // 2, y // 16, x // 16, c)
        noise = _byte(seed, 1, t, y, x, c)
        assert frames[t, y, x, c] == (3 * squares + noise) // 4


def test_frames_never_change() -> None:
    """Files in the world carry answers for exactly these frames."""
    digest = hashlib.sha256(golden_frames(0, (8, 64, 64, 3)).tobytes()).hexdigest()
    assert digest == "92e6210944e7c018373aac484df6921fd41604207b0c58ee8af108b11be0a33b"
