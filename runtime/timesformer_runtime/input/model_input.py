"""Turns decoded frames into the graph's input, one view of a video at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from timesformer_runtime.errors import InvalidOptionError, VideoLimitError
from timesformer_runtime.input.crops import CENTER, CROPS
from timesformer_runtime.input.preprocess import MAX_CLIP_BYTES, Frame, Preprocessing
from timesformer_runtime.input.sampling import FrameIndices
from timesformer_runtime.input.views import Views
from timesformer_runtime.video.limits import DecodeLimits
from timesformer_runtime.video.pixels import ConvertedFrame, Rendering, stack_frames

if TYPE_CHECKING:  # few users ask for this protocol
    from timesformer_runtime.input.facebook import FacebookPreprocessing

_MAX_SCALED_SIDE = 8192  # pixels; of frames that become larger, ``convert`` resizes only the crop


@dataclasses.dataclass(frozen=True)
class GraphInput:
    """The one input of the graph.

    Attributes:
        name: The name of the input in the graph.
        takes_frames: True for uint8 RGB frames [1, T, H, W, 3] of any size, which the graph
            preprocesses; False for preprocessed ``pixel_values`` [1, T, C, h, w].
        dtype: Type of the values.
        num_frames: Number of frames of a clip, T.
    """

    name: str
    takes_frames: bool
    dtype: type[np.generic]
    num_frames: int


class ModelInput:
    """Chooses the frames that a model needs, and turns them into its input.

    Any thread may convert frames, one by one; a converted frame holds only what the model sees.

    Args:
        graph_input: The input of the graph.
        preprocessing: Turns frames into that input; None where the graph does the preprocessing.
        views: Which frames and crops of a video the model sees.
        max_bytes: Memory that the frames of a clip may take.

    Raises:
        InvalidOptionError: The model cannot take such views.
    """

    def __init__(
        self,
        graph_input: GraphInput,
        preprocessing: Preprocessing | None,
        views: Views,
        max_bytes: int = DecodeLimits.max_bytes,
    ) -> None:
        self._max_bytes = max_bytes
        self.num_frames = graph_input.num_frames
        self.sampling = views.sampling.resolved(self.num_frames)
        self.crops = (CENTER,) if views.crops == 1 else CROPS
        self._dtype = graph_input.dtype
        self._views = views
        self._reverses_channels = views.channel_order == "bgr"
        self._preprocessing = preprocessing
        self._facebook: FacebookPreprocessing | None = None
        if preprocessing is None:
            _check_frames_input(views)
            return
        if self._reverses_channels and preprocessing.num_channels == 1:
            raise InvalidOptionError("`channel_order=bgr` is for colour models; this one is grey")
        if views.protocol == "facebook":
            from timesformer_runtime.input.facebook import FacebookPreprocessing  # noqa: PLC0415

            self._facebook = FacebookPreprocessing.of(preprocessing, views.crops)
        elif views.crops > 1:
            _check_crops(preprocessing)

    def choose(self, count: int, rate: float) -> FrameIndices:
        """Chooses the frames that the model needs of a video, one clip after the other.

        Args:
            count: Number of frames that the video has.
            rate: Frames per second.

        Returns:
            int64 [clips * num_frames].

        Raises:
            InvalidVideoError: The video is too short, and the sampling says to refuse it.
        """
        return self.sampling.indices(count, self.num_frames, rate).ravel()

    def rendering(self, convert: Callable[[Frame], ConvertedFrame] | None = None) -> Rendering:
        """Tells the decoder how to convert the frames that it decodes.

        Args:
            convert: Takes the place of ``self.convert``, for example to measure its time.
        """
        return Rendering(
            convert=convert or self.convert,
            scale_to=self._scaled_size if self._views.resize == "fast" else None,
            square_pixels=self._views.square_pixels,
        )

    def convert(self, frame: Frame) -> ConvertedFrame:
        """Converts a frame to what the model sees of it.

        Args:
            frame: uint8 RGB [H, W, 3].

        Returns:
            [crops, C, h, w], uint8, or float32 for protocol facebook; for graphs that preprocess
            themselves uint8 [H, W, 3].

        Raises:
            InvalidVideoError: The frame is not uint8 [H, W, 3].
        """
        if self._reverses_channels:
            frame = frame[..., ::-1]
        if self._preprocessing is None:
            return np.ascontiguousarray(frame)
        if self._facebook is not None:
            return np.stack([self._facebook.pixels(frame, crop) for crop in self.crops])
        return np.stack(self._preprocessing.planes(frame, self.crops))

    def pictures(self, frame: ConvertedFrame) -> list[Frame]:
        """Turns a frame that ``convert`` gave back into pictures, for people.

        Args:
            frame: The converted frame.

        Returns:
            For each crop the pixels that the model sees, uint8 RGB [h, w, 3]; for graphs that
            preprocess themselves the whole frame.
        """
        if self._preprocessing is None:
            return [self._picture(frame)]
        return [self._picture(np.moveaxis(planes, 0, 2)) for planes in frame]

    def views(self, frames: Sequence[ConvertedFrame]) -> Iterator[npt.NDArray[Any]]:
        """Gives the input of each view: all crops of the first clip, then those of the next.

        Args:
            frames: The converted frames of all clips, one clip after the other.

        Returns:
            Batches of one clip, as the graph takes them.

        Raises:
            InvalidVideoError: The frames have several sizes.
            VideoLimitError: A clip takes too much memory.
        """
        for start in range(0, len(frames), self.num_frames):
            clip = frames[start : start + self.num_frames]
            self._check_memory(clip)
            for crop in range(len(self.crops)):
                yield self._batch(clip, crop)

    def _picture(self, pixels: npt.NDArray[Any]) -> Frame:
        """Makes RGB of a converted crop [h, w, C]."""
        if self._facebook is not None:  # which has normalised it
            levels = pixels * np.array(self._facebook.std) + np.array(self._facebook.mean)
            pixels = np.clip(levels * 255 + 0.5, 0, 255).astype(np.uint8)
        if pixels.shape[2] == 1:
            pixels = np.repeat(pixels, 3, axis=2)
        return np.ascontiguousarray(pixels[..., ::-1] if self._reverses_channels else pixels)

    def _scaled_size(self, height: int, width: int) -> tuple[int, int]:
        """Computes the height and width to which FFmpeg scales a frame in place of ``convert``."""
        if self._preprocessing is None:
            return height, width
        size = self._preprocessing.resized_size(height, width)
        return size if max(size) <= _MAX_SCALED_SIDE else (height, width)

    def _check_memory(self, clip: Sequence[ConvertedFrame]) -> None:
        """Checks the size of the model's input, which repeats the frames of a short video."""
        if self._preprocessing is None:
            size, limit = sum(frame.nbytes for frame in clip), self._max_bytes
        else:  # the pixels of one crop, already preprocessed
            size = len(clip) * clip[0][0].size * np.dtype(self._dtype).itemsize
            limit = max(self._max_bytes, MAX_CLIP_BYTES)
        if size > limit:
            raise VideoLimitError(
                f"the model's input takes {size} bytes for a clip of {len(clip)} frames, above the "
                f"limit of {limit}; give a smaller video, or raise `max_bytes`"
            )

    def _batch(self, clip: Sequence[ConvertedFrame], crop: int) -> npt.NDArray[Any]:
        if self._preprocessing is None:
            return stack_frames(clip)[None]
        if self._facebook is not None:
            values: npt.NDArray[Any] = np.stack([frame[crop] for frame in clip])
        else:
            values = self._preprocessing.normalize([frame[crop] for frame in clip])
        return values[None].astype(self._dtype, copy=False)


def _check_frames_input(views: Views) -> None:
    """Refuses options that have no effect on a graph with its own resize and crop."""
    for name, is_default in (
        ("crops", views.crops == 1),
        ("protocol", views.protocol == "huggingface"),
        ("resize", views.resize == "exact"),
    ):
        if not is_default:
            raise InvalidOptionError(
                f"`{name}={getattr(views, name)}` does not apply to this model: its graph resizes "
                "and crops frames itself; export it with `input=pixel_values`"
            )


def _check_crops(preprocessing: Preprocessing) -> None:
    if not preprocessing.do_center_crop:
        raise InvalidOptionError(
            "`crops=3` needs a model with do_center_crop; this one takes whole frames"
        )
    size = preprocessing.size
    fits = (
        not isinstance(size, int)
        and max(size[0] - preprocessing.crop_size[0], size[1] - preprocessing.crop_size[1]) <= 0
    )
    if preprocessing.do_resize and fits:
        raise InvalidOptionError(
            "`crops=3` would give 3 equal views: this model squeezes whole frames into its input"
        )
