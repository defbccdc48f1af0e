"""From decoded frames to what a graph is fed, one view of a video at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from timesformer_runtime.bundle import Bundle
from timesformer_runtime.crops import CENTER, CROPS
from timesformer_runtime.errors import InvalidOptionError
from timesformer_runtime.facebook import FacebookPreprocessing
from timesformer_runtime.preprocess import Frame, Preprocessing
from timesformer_runtime.sampling import FrameIndices
from timesformer_runtime.video.decoder import stack_frames
from timesformer_runtime.video.pixels import Rendering
from timesformer_runtime.views import Views

Converted = npt.NDArray[Any]  # a frame as it is kept until its clip is complete

_MOST_SCALED = 8192  # pixels of the longer side; what is longer is resized only where it is seen


class ModelInput:
    """Knows which frames a model needs, and makes its input of them.

    Frames are converted one by one, each to no more than the model sees of it, in any thread.

    Args:
        bundle: The model.
        views: What it shall see of a video.

    Raises:
        InvalidOptionError: The model cannot be given such views.
    """

    def __init__(self, bundle: Bundle, views: Views) -> None:
        self.num_frames = bundle.input.num_frames
        self.sampling = views.sampling.resolved(self.num_frames)
        self.crops = (CENTER,) if views.crops == 1 else CROPS
        self._dtype = bundle.input.dtype
        self._views = views
        self._flips = views.channel_order == "bgr"
        self._preprocessing = bundle.preprocessing
        self._facebook: FacebookPreprocessing | None = None
        if bundle.preprocessing is None:
            _check_frames_input(views)
            return
        if self._flips and bundle.preprocessing.num_channels == 1:
            raise InvalidOptionError("channel_order bgr is for colour models; this one is grey")
        if views.protocol == "facebook":
            self._facebook = FacebookPreprocessing.of(bundle.preprocessing, views.crops)
        elif views.crops > 1:
            _check_crops(bundle.preprocessing)

    def choose(self, count: int, rate: float) -> FrameIndices:
        """Chooses the frames that are needed of a video: those of all clips, one after another.

        Args:
            count: Number of frames that the video has.
            rate: Frames per second.

        Returns:
            int64 [clips * num_frames].

        Raises:
            InvalidVideoError: The video is too short, and the sampling says to refuse it.
        """
        return self.sampling.indices(count, self.num_frames, rate).ravel()

    def rendering(self, convert: Callable[[Frame], Converted] | None = None) -> Rendering:
        """How decoded pictures become what is kept of them.

        Args:
            convert: Stands in for ``self.convert``, as to measure it.
        """
        return Rendering(
            convert=convert or self.convert,
            scale_to=self._scaled_size if self._views.resize == "fast" else None,
            square_pixels=self._views.square_pixels,
        )

    def convert(self, frame: Frame) -> Converted:
        """What to keep of a frame.

        Args:
            frame: uint8 RGB [H, W, 3].

        Returns:
            [crops, C, h, w], uint8, or float32 for protocol facebook; for graphs that preprocess
            themselves uint8 [H, W, 3].

        Raises:
            InvalidVideoError: It is no such frame.
        """
        if self._flips:
            frame = frame[..., ::-1]
        if self._preprocessing is None:
            return np.ascontiguousarray(frame)
        if self._facebook is not None:
            return np.stack([self._facebook.pixels(frame, crop) for crop in self.crops])
        return np.stack(self._preprocessing.planes(frame, self.crops))

    def views(self, frames: Sequence[Converted]) -> Iterator[npt.NDArray[Any]]:
        """The input of each view: all crops of the first clip, then those of the next.

        Args:
            frames: The converted frames of all clips, one clip after the other.

        Returns:
            Batches of one clip, as the graph takes them.

        Raises:
            InvalidVideoError: The frames have several sizes.
        """
        for start in range(0, len(frames), self.num_frames):
            clip = frames[start : start + self.num_frames]
            for crop in range(len(self.crops)):
                yield self._batch(clip, crop)

    def _scaled_size(self, height: int, width: int) -> tuple[int, int]:
        """To which size FFmpeg may scale frames, in pixels; ``convert`` then has no more to do."""
        if self._preprocessing is None:
            return height, width
        size = self._preprocessing.resized_size(height, width)
        return size if max(size) <= _MOST_SCALED else (height, width)

    def _batch(self, clip: Sequence[Converted], crop: int) -> npt.NDArray[Any]:
        if self._preprocessing is None:
            return stack_frames(clip)[None]
        if self._facebook is not None:
            values: npt.NDArray[Any] = np.stack([frame[crop] for frame in clip])
        else:
            values = self._preprocessing.normalize([frame[crop] for frame in clip])
        return values[None].astype(self._dtype, copy=False)


def _check_frames_input(views: Views) -> None:
    """Of a graph that takes frames of any size, resize and crop are part."""
    for name, is_default in (
        ("crops", views.crops == 1),
        ("protocol", views.protocol == "huggingface"),
        ("resize", views.resize == "exact"),
    ):
        if not is_default:
            raise InvalidOptionError(
                f"{name} {getattr(views, name)} cannot be had of this model: its graph resizes and "
                "crops frames itself; export it with --input pixel_values"
            )


def _check_crops(preprocessing: Preprocessing) -> None:
    if not preprocessing.do_center_crop:
        raise InvalidOptionError(
            "crops 3 needs a model with do_center_crop; this one takes whole frames"
        )
    size = preprocessing.size
    fits = (
        not isinstance(size, int)
        and max(size[0] - preprocessing.crop_size[0], size[1] - preprocessing.crop_size[1]) <= 0
    )
    if preprocessing.do_resize and fits:
        raise InvalidOptionError(
            "crops 3 would be 3 times the same: this model squeezes whole frames into its input"
        )
