"""Motion: how much the brightness of a window's frames changes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from timesformer_runtime.video.pixels import ConvertedFrame

USUAL_LEVEL = 4.0  # the noise of a camera stays below it, for it averages out over a cell
_CELLS = 16  # of a thumbnail's side
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue, as ITU-R BT.601


def motion(frames: Sequence[ConvertedFrame]) -> float:
    """Measures the motion of a window.

    Each frame becomes a thumbnail of 16x16 cells, each with the mean luma of its pixels. The motion
    is the largest difference between the brightest and the darkest moment of one cell, so a small
    object that moves counts as much as a large one, and slow changes count as fast ones.

    Args:
        frames: The window's frames as the model sees them, uint8: [crops, channels, height, width],
            or [height, width, channels] for graphs that preprocess themselves.

    Returns:
        The motion, from 0 to 255; 255 where the frames do not have one size.
    """
    if len({frame.shape for frame in frames}) > 1:
        return 255.0
    thumbnails = np.stack([_thumbnail(frame) for frame in frames])
    return float((thumbnails.max(axis=0) - thumbnails.min(axis=0)).max())


def _thumbnail(frame: ConvertedFrame) -> npt.NDArray[np.float32]:
    """Makes a thumbnail of luma, float32 [..., rows, columns], of a converted frame."""
    channels_last = frame if frame.ndim == 3 else np.moveaxis(frame, -3, -1)
    height, width, channels = channels_last.shape[-3:]
    rows, columns = _edges(height), _edges(width)
    sums = np.add.reduceat(channels_last, rows, axis=-3, dtype=np.float32)
    sums = np.add.reduceat(sums, columns, axis=-2)
    areas = np.outer(np.diff([*rows, height]), np.diff([*columns, width])).astype(np.float32)
    means = sums / areas[..., None]
    if channels != len(_LUMA):
        return np.asarray(means.mean(axis=-1), np.float32)
    return np.asarray(means @ _LUMA, np.float32)


def _edges(length: int) -> npt.NDArray[np.int64]:
    """The first pixels of the cells of a side."""
    cells = min(_CELLS, length)
    return np.arange(cells, dtype=np.int64) * length // cells
