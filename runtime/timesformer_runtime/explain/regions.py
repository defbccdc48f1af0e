"""Where the patches of a view lie in the frames of the video, and the pictures that it saw."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from timesformer_runtime.errors import InvalidModelError
from timesformer_runtime.input.crops import Part
from timesformer_runtime.input.facebook import FacebookPreprocessing
from timesformer_runtime.input.preprocess import Preprocessing
from timesformer_runtime.json_object import parse_json_object
from timesformer_runtime.pipeline import Pipeline
from timesformer_runtime.video.pixels import ConvertedFrame

Rgb = npt.NDArray[np.uint8]  # [height, width, 3]


class Region(NamedTuple):
    """A rectangle in shares of a frame's height and width; it may reach beyond the frame."""

    top: float
    left: float
    height: float
    width: float

    def pixels(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Top, left, bottom and right in a frame of so many pixels; at least one pixel large."""
        top, left = round(self.top * height), round(self.left * width)
        bottom = max(round((self.top + self.height) * height), top + 1)
        right = max(round((self.left + self.width) * width), left + 1)
        return top, left, bottom, right


WHOLE = Region(0.0, 0.0, 1.0, 1.0)


class Geometry:
    """Knows for a model and its views which part of a frame the patches cover.

    Args:
        pipeline: The model and the views.

    Raises:
        InvalidModelError: The model preprocesses frames itself, and does not say how.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._crops = pipeline.input.crops
        self._reversed = pipeline.views.channel_order == "bgr"
        self._in_graph = pipeline.model.preprocessing is None
        self._preprocessing = pipeline.model.preprocessing or _stated(pipeline)
        self._facebook: FacebookPreprocessing | None = None
        if pipeline.views.protocol == "facebook":
            self._facebook = FacebookPreprocessing.of(self._preprocessing, pipeline.views.crops)
        self._patch = _patch_size(pipeline)

    def region(self, height: int, width: int, crop: str, grid: tuple[int, int]) -> Region:
        """The part of a frame that the grid of patches covers.

        Args:
            height: Of the frame, as the model's preprocessing gets it.
            width: Of the frame.
            crop: The crop of the view.
            grid: Rows and columns of patches.
        """
        if self._facebook is not None:
            resized = self._facebook.resized_size(height, width)
            top, left = self._facebook.corner(resized, crop)
            size = (self._facebook.crop_size, self._facebook.crop_size)
        else:
            resized = self._preprocessing.resized_size(height, width)
            size = self._preprocessing.output_size or resized
            part = Part.of(resized, size, crop)
            top = part.rows.first - part.rows.offset
            left = part.columns.first - part.columns.offset
        covered = self._covered(size, grid)
        return Region(
            top / resized[0],
            left / resized[1],
            covered[0] / resized[0],
            covered[1] / resized[1],
        )

    def pictures(self, frame: ConvertedFrame, grid: tuple[int, int]) -> list[Rgb]:
        """The pixels below the patches, as the model saw them, for each crop.

        Args:
            frame: A frame as ``ModelInput`` converted it.
            grid: Rows and columns of patches.
        """
        if self._in_graph:
            whole = frame[..., ::-1] if self._reversed else frame
            height, width = frame.shape[:2]
            region = self.region(height, width, self._crops[0], grid)
            return [_cut_out(whole, *region.pixels(height, width))]
        return [self._picture(crop, grid) for crop in frame]

    def _picture(self, planes: ConvertedFrame, grid: tuple[int, int]) -> Rgb:
        """Makes RGB of the planes [C, h, w] of a crop."""
        rgb = np.moveaxis(planes, 0, 2)
        if self._facebook is not None:
            levels = rgb * np.array(self._facebook.std) + np.array(self._facebook.mean)
            rgb = np.clip(levels * 255 + 0.5, 0, 255).astype(np.uint8)
        if rgb.shape[2] == 1:
            rgb = np.repeat(rgb, 3, axis=2)
        rows, columns = self._covered((rgb.shape[0], rgb.shape[1]), grid)
        rgb = rgb[:rows, :columns, ::-1] if self._reversed else rgb[:rows, :columns]
        return np.ascontiguousarray(rgb)

    def _covered(self, size: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
        """Height and width below whole patches; the model drops the rest of its input."""
        if self._patch is None:
            return size
        rows, columns = grid[0] * self._patch[0], grid[1] * self._patch[1]
        return (rows, columns) if rows <= size[0] and columns <= size[1] else size


def _cut_out(frame: Rgb, top: int, left: int, bottom: int, right: int) -> Rgb:
    """Cuts a rectangle out of a frame; black where it reaches beyond the frame."""
    result = np.zeros((bottom - top, right - left, 3), dtype=np.uint8)
    inner = frame[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    y, x = max(-top, 0), max(-left, 0)
    result[y : y + inner.shape[0], x : x + inner.shape[1]] = inner
    return result


def _stated(pipeline: Pipeline) -> Preprocessing:
    """The preprocessing of a graph that does it itself, as its metadata states."""
    entry = pipeline.model.metadata.get("preprocessor_config")
    if entry is None:
        raise InvalidModelError(
            f"{pipeline.model.name}: it preprocesses frames itself and does not say how; export it "
            "with timesformer-export"
        )
    return Preprocessing.from_dict(parse_json_object(entry, "its preprocessing"))


def _patch_size(pipeline: Pipeline) -> tuple[int, int] | None:
    entry = pipeline.model.metadata.get("config")
    if entry is None:
        return None
    size = parse_json_object(entry, "its configuration").get("patch_size")
    if isinstance(size, int):
        return size, size
    if isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) for side in size):
        return size[0], size[1]
    return None
