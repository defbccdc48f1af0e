"""Makes an RGB array of a decoded frame: converts colours, scales, and turns it upright."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from timesformer_runtime import resample
from timesformer_runtime.errors import InvalidVideoError

if TYPE_CHECKING:
    from timesformer_runtime.video.pyav import av

RgbFrame = npt.NDArray[np.uint8]  # [H, W, 3]
ConvertedFrame = npt.NDArray[Any]  # the result of a rendering's ``convert``
Size = tuple[int, int]  # height, width

_RESERVED_COLOUR_SPACE, _UNSPECIFIED_COLOUR_SPACE = 3, 2
_QUARTER_TURNS = frozenset({-90, 90})  # degrees
_MAX_WIDENED_PIXELS = 1 << 27  # of a frame that ``square_pixels`` makes wider
_MAX_STRETCH = 16  # a sample aspect ratio above this, or below 1/16, counts as damage


@dataclasses.dataclass(frozen=True)
class Rendering:
    """Makes of a decoded frame the array that the caller wants.

    Attributes:
        convert: Applied to each uint8 RGB frame [H, W, 3] as soon as it is decoded; None to return
            the RGB frame itself.
        scale_to: Maps the height and width of an upright frame to those that FFmpeg scales it
            to, antialiased; None to leave the size.
        square_pixels: True to change a frame's width so that its pixels become square.
    """

    convert: Callable[[RgbFrame], ConvertedFrame] | None = None
    scale_to: Callable[[int, int], Size] | None = None
    square_pixels: bool = False

    def __call__(
        self, frame: av.VideoFrame, sample_aspect_ratio: Fraction | None
    ) -> ConvertedFrame:
        """Renders one frame.

        Args:
            frame: The frame.
            sample_aspect_ratio: Width of a pixel divided by its height; None where the file
                states none.

        Raises:
            InvalidVideoError: FFmpeg does not convert the frame's colours to RGB, or the frame
                would be too wide with square pixels.
        """
        rgb = self._to_rgb(frame, sample_aspect_ratio)
        return rgb if self.convert is None else self.convert(rgb)

    def _to_rgb(self, frame: av.VideoFrame, sample_aspect_ratio: Fraction | None) -> RgbFrame:
        stored = frame.height, frame.width
        size = _square_size(stored, sample_aspect_ratio) if self.square_pixels else stored
        if self.scale_to is None:
            return _upright(_resized(_rgb(frame, stored), size), frame)
        is_turned = frame.rotation in _QUARTER_TURNS
        height, width = self.scale_to(*(size[::-1] if is_turned else size))
        return _upright(_rgb(frame, (width, height) if is_turned else (height, width)), frame)


def _rgb(frame: av.VideoFrame, size: Size) -> RgbFrame:
    """Converts a frame to RGB, and scales it if it does not have this size."""
    # This import is here because users without PyAV, whose arrays are RGB already, need the rest.
    from timesformer_runtime.video.pyav import av  # noqa: PLC0415

    if frame.colorspace == _RESERVED_COLOUR_SPACE:
        frame.colorspace = _UNSPECIFIED_COLOUR_SPACE  # FFmpeg refuses to convert the reserved one
    try:
        rgb = frame.reformat(format="rgb24", threads=1)
        if size != (frame.height, frame.width):
            if frame.interlaced_frame:  # FFmpeg would scale the two fields apart from each other
                rgb = av.VideoFrame.from_numpy_buffer(rgb.to_ndarray(), format="rgb24")
            # FFmpeg converts and scales three times as fast in one call, but then it blurs the
            # colours at edges.
            flags = av.video.reformatter.Interpolation
            bilinear = int(flags.BILINEAR | flags.ACCURATE_RND)
            rgb = rgb.reformat(height=size[0], width=size[1], interpolation=bilinear, threads=1)
    except av.FFmpegError as error:
        raise InvalidVideoError(
            f"the video's colours ({frame.format.name}, matrix {frame.colorspace}) cannot be "
            "converted to RGB; convert it to yuv420p first"
        ) from error
    return np.asarray(rgb.to_ndarray(), dtype=np.uint8)


def _upright(rgb: RgbFrame, frame: av.VideoFrame) -> RgbFrame:
    if frame.rotation not in {-180, -90, 90, 180}:
        return rgb
    turned = np.rot90(rgb, frame.rotation // 90)
    upright = np.empty(turned.shape, np.uint8)
    for channel in range(3):  # copying channel by channel takes a third of the time
        upright[..., channel] = turned[..., channel]
    return upright


def _square_size(size: Size, sample_aspect_ratio: Fraction | None) -> Size:
    """Computes the size with square pixels; an absurd aspect ratio leaves the size as it is."""
    ratio = sample_aspect_ratio
    if ratio is None or not Fraction(1, _MAX_STRETCH) <= ratio <= _MAX_STRETCH:
        return size
    height, width = size[0], max(1, round(size[1] * ratio))
    if width > size[1] and height * width > _MAX_WIDENED_PIXELS:
        raise InvalidVideoError(
            f"the video's frames of {size[1]}x{height} pixels would have {width}x{height} square "
            "ones, which is too many; leave out `square_pixels`"
        )
    return height, width


def _resized(rgb: RgbFrame, size: Size) -> RgbFrame:
    if rgb.shape[:2] == size:
        return rgb
    planes = resample.resize(rgb, size, resample.BILINEAR, resample.Rectangle(0, 0, *size))
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


def stack_frames(frames: Sequence[ConvertedFrame]) -> npt.NDArray[np.uint8]:
    """Stacks frames [H, W, 3] into one array [T, H, W, 3].

    Raises:
        InvalidVideoError: There are no frames, or they have several sizes.
    """
    if not frames:
        raise InvalidVideoError("there are no frames; choose at least one")
    sizes = sorted({frame.shape[:2] for frame in frames})
    if len(sizes) > 1:
        raise InvalidVideoError(
            f"the video changes its size ({sizes[0]} and {sizes[1]} pixels); "
            "convert it to one size first"
        )
    return np.stack(frames)
