"""From a decoded picture to the array that is kept of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
import av.video.reformatter
import numpy as np
import numpy.typing as npt

from timesformer_runtime.errors import InvalidVideoError
from timesformer_runtime.input import resample

Frame = npt.NDArray[np.uint8]  # [H, W, 3], RGB
ConvertedFrame = npt.NDArray[Any]
Size = tuple[int, int]  # height, width

_RESERVED_COLOUR_SPACE, _UNSPECIFIED_COLOUR_SPACE = 3, 2
_QUARTER_TURNS = frozenset({-90, 90})
_MOST_PIXELS = 1 << 27  # of a picture that is made wider
_MOST_STRETCH = 16  # a stated pixel shape beyond this is damage, not a format
_BILINEAR = int(
    av.video.reformatter.Interpolation.BILINEAR | av.video.reformatter.Interpolation.ACCURATE_RND
)


@dataclasses.dataclass(frozen=True)
class Rendering:
    """How a decoded picture becomes the array that is kept.

    Attributes:
        convert: What is made of each uint8 RGB frame [H, W, 3] as soon as it is decoded.
        scale_to: Maps the height and width of an upright frame to those that FFmpeg scales it
            to, antialiased.
        square_pixels: Whether the width is corrected where the pixels are not square.
    """

    convert: Callable[[Frame], ConvertedFrame] | None = None
    scale_to: Callable[[int, int], Size] | None = None
    square_pixels: bool = False

    def __call__(self, picture: av.VideoFrame, shape: Fraction | None) -> ConvertedFrame:
        """Renders one picture; ``shape`` is the width of its pixels divided by their height.

        Raises:
            InvalidVideoError: Its colours are of a kind that FFmpeg does not convert to RGB, or
                it would be too wide with square pixels.
        """
        frame = self._frame(picture, shape)
        return frame if self.convert is None else self.convert(frame)

    def _frame(self, picture: av.VideoFrame, shape: Fraction | None) -> Frame:
        stored = picture.height, picture.width
        size = _square(stored, shape) if self.square_pixels else stored
        if self.scale_to is None:
            return _upright(_resized(_rgb(picture, stored), size), picture)
        turned = picture.rotation in _QUARTER_TURNS
        height, width = self.scale_to(*(size[::-1] if turned else size))
        return _upright(_rgb(picture, (width, height) if turned else (height, width)), picture)


def _rgb(picture: av.VideoFrame, size: Size) -> Frame:
    """Converts a picture to RGB, and scales it where its size is another one."""
    if picture.colorspace == _RESERVED_COLOUR_SPACE:
        picture.colorspace = _UNSPECIFIED_COLOUR_SPACE  # FFmpeg refuses to convert from it
    try:
        rgb = picture.reformat(format="rgb24", threads=1)
        if size != (picture.height, picture.width):
            if picture.interlaced_frame:  # FFmpeg would scale the fields apart from each other
                rgb = av.VideoFrame.from_numpy_buffer(rgb.to_ndarray(), format="rgb24")
            # Not both at once: that is three times as fast again, but blurs colours at edges.
            rgb = rgb.reformat(height=size[0], width=size[1], interpolation=_BILINEAR, threads=1)
    except av.FFmpegError as error:
        raise InvalidVideoError(
            f"the video's colours ({picture.format.name}, matrix {picture.colorspace}) cannot be "
            "converted to RGB; convert it to yuv420p first"
        ) from error
    return np.asarray(rgb.to_ndarray(), dtype=np.uint8)


def _upright(frame: Frame, picture: av.VideoFrame) -> Frame:
    if picture.rotation not in {-180, -90, 90, 180}:
        return frame
    turned = np.rot90(frame, picture.rotation // 90)
    upright = np.empty(turned.shape, np.uint8)
    for channel in range(3):  # one after the other takes a third of the time
        upright[..., channel] = turned[..., channel]
    return upright


def _square(size: Size, shape: Fraction | None) -> Size:
    """The size that shows a picture of these pixels as it is meant to be seen."""
    if shape is None or not Fraction(1, _MOST_STRETCH) <= shape <= _MOST_STRETCH:
        return size
    height, width = size[0], max(1, round(size[1] * shape))
    if width > size[1] and height * width > _MOST_PIXELS:
        raise InvalidVideoError(
            f"the video's pictures of {size[1]}x{height} pixels would have {width}x{height} square "
            "ones, which is too many; leave out square_pixels"
        )
    return height, width


def _resized(frame: Frame, size: Size) -> Frame:
    if frame.shape[:2] == size:
        return frame
    planes = resample.resize(frame, size, resample.BILINEAR, resample.Rectangle(0, 0, *size))
    return np.ascontiguousarray(planes.transpose(1, 2, 0))
