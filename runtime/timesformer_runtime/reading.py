"""Reading: the frames that a model needs of a video, converted, and facts about the video.

This module reads arrays; ``file_reading`` reads files.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from timesformer_runtime.errors import InvalidVideoError
from timesformer_runtime.input.model_input import ModelInput
from timesformer_runtime.results import Answer, Seconds, VideoResult, View
from timesformer_runtime.video.pixels import ConvertedFrame

P = ParamSpec("P")
R = TypeVar("R")

_ARRAY_RATE = 30.0  # frames per second that arrays of frames count as


@dataclasses.dataclass(frozen=True)
class Reading:
    """The frames that were read of a video, and the facts about the video that reading found.

    Attributes:
        frames: The frames of all clips, one clip after the other, converted by ``ModelInput``.
        views: The frames and the crop of each view.
        count: Number of frames that the video has.
        failed_packets: Number of its packets that did not decode.
        problems: A short sentence for each thing that is wrong with the file.
        truncated: True if the file ends earlier than it states.
        interlaced: True if a frame consists of two fields.
        decode: Seconds that the reading and decoding took.
        preprocess: Seconds that the conversion took.
    """

    frames: tuple[ConvertedFrame, ...]
    views: tuple[View, ...]
    count: int
    decode: float
    preprocess: float
    failed_packets: int = 0
    problems: tuple[str, ...] = ()
    truncated: bool = False
    interlaced: bool = False

    @property
    def seconds(self) -> float:
        """Seconds that reading and conversion took together."""
        return self.decode + self.preprocess

    def result(self, answer: Answer) -> VideoResult:
        """The result of the video, once the model has answered."""
        return VideoResult(
            predictions=answer.predictions,
            views=self.views,
            count=self.count,
            failed_packets=self.failed_packets,
            problems=self.problems,
            truncated=self.truncated,
            interlaced=self.interlaced,
            seconds=Seconds(
                decode=self.decode,
                preprocess=self.preprocess + answer.preprocess,
                inference=answer.inference,
            ),
            outputs=answer.outputs,
        )


class Timed(Generic[P, R]):
    """Calls a function and adds up the wall time of the calls, which come from one thread.

    Args:
        function: The function.

    Attributes:
        seconds: Wall time of all calls so far.
    """

    def __init__(self, function: Callable[P, R]) -> None:
        self.seconds = 0.0
        self._function = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls the function."""
        start = time.perf_counter()
        try:
            return self._function(*args, **kwargs)
        finally:
            self.seconds += time.perf_counter() - start


def read_array(video: npt.NDArray[np.uint8], model_input: ModelInput) -> Reading:
    """Converts the frames that the model needs of an array.

    Args:
        video: uint8 RGB [T, H, W, 3].
        model_input: Chooses and converts the frames.

    Raises:
        InvalidVideoError: The array is not uint8 RGB [T, H, W, 3], or has no frames.
    """
    check_array(video)
    start = time.perf_counter()
    indices = model_input.choose(len(video), _ARRAY_RATE).tolist()
    converted = {index: model_input.convert(video[index]) for index in set(indices)}
    return Reading(
        frames=tuple(converted[index] for index in indices),
        views=views_of(tuple(indices), None, model_input),
        count=len(video),
        decode=0.0,
        preprocess=time.perf_counter() - start,
    )


def check_array(video: npt.NDArray[np.uint8]) -> None:
    """Makes sure that an array is a video.

    Raises:
        InvalidVideoError: The array is not uint8 RGB [T, H, W, 3], or has no frames.
    """
    if video.dtype != np.uint8:
        raise InvalidVideoError(
            f"the video is an array of {video.dtype}; give uint8 RGB frames [T, height, width, 3]"
        )
    if video.ndim != 4 or video.shape[3] != 3 or 0 in video.shape:
        hint = ": one frame, so that numpy.stack(frames) is a video" if video.ndim == 3 else ""
        raise InvalidVideoError(
            f"the video is an array of shape {video.shape}{hint}; "
            "give uint8 RGB frames [T, height, width, 3]"
        )


def views_of(
    indices: tuple[int, ...], times: tuple[float, ...] | None, model_input: ModelInput
) -> tuple[View, ...]:
    """Lists the frames and the crop of each view.

    Args:
        indices: The frames of all clips, one clip after the other.
        times: When these frames are shown, in seconds; None for arrays.
        model_input: Tells the frames of a clip, and the crops.
    """
    views = []
    for start in range(0, len(indices), model_input.num_frames):
        part = slice(start, start + model_input.num_frames)
        shown = None if times is None else times[part]
        views += [View(crop, indices[part], shown) for crop in model_input.crops]
    return tuple(views)
