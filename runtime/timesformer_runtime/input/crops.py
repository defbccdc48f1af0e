"""Crops: the part of a resized frame that a model sees."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from timesformer_runtime.resample import Rectangle

START, CENTER, END = CROPS = ("start", "center", "end")  # left or top, middle, right or bottom


@dataclasses.dataclass(frozen=True)
class _Overlap:
    """Along one axis: the pixels that a crop takes from an image, and where the crop puts them."""

    first: int  # the first of these pixels in the image
    length: int  # the number of these pixels
    offset: int  # in the crop


@dataclasses.dataclass(frozen=True)
class Part:
    """The part of a resized frame that a crop takes, and where in the crop it goes."""

    rows: _Overlap
    columns: _Overlap
    size: tuple[int, int]  # height and width of the result

    @classmethod
    def of(cls, resized: tuple[int, int], size: tuple[int, int], crop: str) -> Self:
        """Computes the part that a crop takes: the start, middle or end of the longer side.

        Args:
            resized: Height and width of the resized frame.
            size: Height and width of the crop; where the frame is smaller, the rest is black.
            crop: One of ``CROPS``.
        """
        tall = resized[0] > resized[1]
        rows = _overlap(resized[0], size[0], crop if tall else CENTER)
        columns = _overlap(resized[1], size[1], CENTER if tall else crop)
        return cls(rows, columns, size)

    @property
    def rectangle(self) -> Rectangle:
        """The part as a rectangle of the resized frame."""
        rows, columns = self.rows, self.columns
        return Rectangle(rows.first, columns.first, rows.length, columns.length)

    def padded(self, planes: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Fills the crop [C, h, w] with ``planes`` [C, H, W], the pixels of the part, and black."""
        if planes.shape[1:] == self.size:
            return planes
        result = np.zeros((len(planes), *self.size), dtype=planes.dtype)
        inner = result[:, self.rows.offset : self.rows.offset + self.rows.length]
        inner[:, :, self.columns.offset : self.columns.offset + self.columns.length] = planes
        return result


def _overlap(image: int, length: int, crop: str) -> _Overlap:
    offset = (image - length) // 2  # negative where the crop is larger: then it is in the middle
    if image > length:
        offset = {START: 0, CENTER: offset, END: image - length}[crop]
    return _Overlap(max(offset, 0), min(image, length), max(-offset, 0))
