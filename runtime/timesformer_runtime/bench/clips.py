"""Generates clips that differ enough for a comparison of two variants of a model.

The frames of the golden check alone would not do: a model's answers for two kinds of fine noise
hardly differ, and next to so small a difference the error of a good variant looks large.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from timesformer_runtime.model.golden import golden_frame

_ENLARGED = (1, 2, 4, 8, 16)  # times; from fine noise to large squares


def generated_frame(clip: int, number: int, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Generates a frame, uint8 RGB [H, W, 3]: coloured squares under noise.

    Args:
        clip: Number of the clip, which decides how large squares and noise are, and the colours.
        number: Number of the frame in the clip.
        size: Height and width in pixels.
    """
    factor = _ENLARGED[clip % len(_ENLARGED)]
    height, width = size
    small = golden_frame(clip, number, (-(-height // factor), -(-width // factor), 3))
    frame = small.repeat(factor, axis=0).repeat(factor, axis=1)[:height, :width]
    random = np.random.default_rng(clip)
    darkest = random.uniform(0, 160, 3)
    brightest = darkest + random.uniform(0.1, 1.0, 3) * (255 - darkest)
    toned: npt.NDArray[np.uint8] = (darkest + frame / 255 * (brightest - darkest)).astype(np.uint8)
    return toned
