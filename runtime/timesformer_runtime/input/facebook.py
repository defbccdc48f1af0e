"""From frames to a model's input as in the authors' own test (facebookresearch/TimeSformer).

This test differs from Hugging Face's preprocessing: it normalises pixels first, resizes in floats,
bilinear and without antialiasing, and rounds the offset of the middle crop up.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from timesformer_runtime.errors import InvalidOptionError
from timesformer_runtime.input.crops import CENTER, END, START
from timesformer_runtime.input.preprocess import Frame, Preprocessing, check_frame

# Short side of the resized frames for a test of a single crop, by the side of the crop: the
# smallest short side in the training of these models. For a crop that is not listed here, the short
# side is 8/7 of the crop, as for 224.
_ONE_CROP_SIDES = {448: 448}


@dataclasses.dataclass(frozen=True)
class FacebookPreprocessing:
    """The test transform of the released models.

    Attributes:
        crop_size: Height and width of the result in pixels.
        short_side: Length of a frame's short side after the resize, in pixels.
        mean: One number per channel, subtracted from pixels of 0 to 1.
        std: One number per channel, by which the rest is divided.
    """

    crop_size: int
    short_side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, preprocessing: Preprocessing, crops: int) -> Self:
        """Derives the transform from a model's preprocessing in transformers.

        Args:
            preprocessing: Gives the size of the input, and the mean and standard deviation.
            crops: Number of crops of a frame; a single one is cut from a larger frame.

        Raises:
            InvalidOptionError: The model does not take what this transform makes.
        """
        size = preprocessing.output_size
        if size is None or size[0] != size[1] or preprocessing.num_channels != 3:
            raise InvalidOptionError(
                "`protocol=facebook` is for models of square RGB frames; this one takes "
                f"{'frames of any size' if size is None else f'{size[0]}x{size[1]}'} with "
                f"{preprocessing.num_channels} channels: use `protocol=huggingface`"
            )
        rescales = preprocessing.do_rescale and math.isclose(
            preprocessing.rescale_factor, 1 / 255, rel_tol=1e-6
        )
        if not (rescales and preprocessing.do_normalize) or preprocessing.offset:
            raise InvalidOptionError(
                "`protocol=facebook` divides pixels by 255 and normalises them; this model's "
                "preprocessing does not: use `protocol=huggingface`"
            )
        side = size[0] if crops > 1 else _ONE_CROP_SIDES.get(size[0], round(size[0] * 8 / 7))
        return cls(size[0], side, preprocessing.image_mean, preprocessing.image_std)

    def pixels(self, frame: Frame, crop: str = CENTER) -> npt.NDArray[np.float32]:
        """Computes the pixels of a frame that the model sees.

        Args:
            frame: uint8 RGB [H, W, 3].
            crop: The part of the longer side: ``start``, ``center`` or ``end``.

        Returns:
            float32 [3, crop_size, crop_size], normalised.

        Raises:
            InvalidVideoError: The frame is not uint8 [H, W, 3].
        """
        check_frame(frame)
        resized = self.resized_size(*frame.shape[:2])
        top, left = self.corner(resized, crop)
        rows = _taps(frame.shape[0], resized[0], top, self.crop_size)
        columns = _taps(frame.shape[1], resized[1], left, self.crop_size)
        upper = self._interpolated(frame[rows.first], columns)
        lower = self._interpolated(frame[rows.second], columns)
        return upper * (1 - rows.weight[:, None]) + lower * rows.weight[:, None]

    def corner(self, resized: tuple[int, int], crop: str) -> tuple[int, int]:
        """The first row and column that a crop takes of a resized frame."""
        height, width = resized
        tall = height > width
        return (
            self._offset(height, crop if tall else CENTER),
            self._offset(width, CENTER if tall else crop),
        )

    def resized_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a frame after the resize, before the crop."""
        # In the authors' order of operations, whose rounding decides the last pixel.
        if width < height:
            return math.floor(height / width * self.short_side), self.short_side
        return self.short_side, math.floor(width / height * self.short_side)

    def _offset(self, length: int, crop: str) -> int:
        room = length - self.crop_size
        return {START: 0, CENTER: math.ceil(room / 2), END: room}[crop]

    def _interpolated(self, rows: npt.NDArray[np.uint8], columns: _Taps) -> npt.NDArray[np.float32]:
        """Normalises pixels [R, W, 3], and interpolates them along the rows: [3, R, w]."""
        left, right = (
            self._normalized(rows[:, columns.first]),
            self._normalized(rows[:, columns.second]),
        )
        return left * (1 - columns.weight) + right * columns.weight

    def _normalized(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        levels = np.arange(256, dtype=np.float32) / np.float32(255)
        return np.stack(
            [
                ((levels - np.float32(mean)) / np.float32(std))[pixels[..., channel]]
                for channel, (mean, std) in enumerate(zip(self.mean, self.std, strict=True))
            ]
        )


class _Taps(NamedTuple):
    """Along one axis: the two pixels of the frame that each pixel of the crop lies between."""

    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float32]  # of the second


def _taps(source: int, target: int, offset: int, length: int) -> _Taps:
    """Computes the taps of ``length`` pixels from ``offset`` on, for a resize of one axis.

    Args:
        source: Number of pixels before the resize.
        target: Number of pixels after the resize.
        offset: The first wanted pixel after the resize.
        length: Number of wanted pixels.
    """
    positions = np.arange(offset, offset + length) + 0.5
    # Single precision where PyTorch has it; float64 between, as a fused multiply-add rounds once.
    scale = np.float64(np.float32(source) / np.float32(target))
    centers = np.maximum(scale * positions - 0.5, 0).astype(np.float32)
    first = np.minimum(centers.astype(np.int64), source - 1)
    weight = np.clip(centers - first.astype(np.float32), 0, 1).astype(np.float32)
    return _Taps(first, np.minimum(first + 1, source - 1), weight)
