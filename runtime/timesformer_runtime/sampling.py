"""Which frames of a video a model gets to see: pure functions of the number of frames."""

import numpy as np
import numpy.typing as npt

from timesformer_runtime.errors import InvalidOptionError

FrameIndices = npt.NDArray[np.int64]


def uniform(count: int, num_frames: int) -> FrameIndices:
    """Spreads the frames evenly over the whole video, its first and last frame included.

    The rule of Hugging Face's documented examples: ``numpy.linspace(0, count - 1, num_frames)``,
    truncated. A video with fewer frames than wanted repeats some.

    Args:
        count: Number of frames of the video, at least 1.
        num_frames: Number of frames wanted, at least 1.

    Returns:
        int64 [num_frames], ascending, each from 0 to ``count - 1``.

    Raises:
        InvalidOptionError: A number is smaller than 1.
    """
    for name, value in (("count", count), ("num_frames", num_frames)):
        if value < 1:
            raise InvalidOptionError(f"{name} is {value}; it must be at least 1")
    return np.linspace(0, count - 1, num_frames).astype(np.int64)
