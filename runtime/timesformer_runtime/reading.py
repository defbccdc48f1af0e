"""Reads what a model needs of one video, and says what that was and what it cost."""

from __future__ import annotations

import dataclasses
import time
from os import PathLike
from typing import BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

from timesformer_runtime.errors import InvalidVideoError
from timesformer_runtime.model_input import ModelInput
from timesformer_runtime.results import Answer, Seconds, VideoResult, View
from timesformer_runtime.timing import Timed
from timesformer_runtime.video import Clip, DecodeLimits, read_clip

Video: TypeAlias = str | PathLike[str] | BinaryIO | npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Reading:
    """What was read of a video.

    Attributes:
        clip: The frames of all clips, one clip after the other, as ``ModelInput`` converts them.
        views: Of which frames each view consists.
        decode: Seconds that the reading and decoding took.
        preprocess: Seconds that the conversion took.
    """

    clip: Clip
    views: tuple[View, ...]
    decode: float
    preprocess: float

    def result(self, answer: Answer) -> VideoResult:
        """Joins what is known about the video with the model's answer to it."""
        return VideoResult(
            predictions=answer.predictions,
            views=self.views,
            count=self.clip.count,
            failed_packets=self.clip.failed_packets,
            problems=self.clip.problems,
            truncated=self.clip.truncated,
            interlaced=self.clip.interlaced,
            seconds=Seconds(
                decode=self.decode,
                preprocess=self.preprocess + answer.preprocess,
                inference=answer.inference,
            ),
            outputs=answer.outputs,
        )


def read_video(
    video: Video, model_input: ModelInput, *, threads: int, limits: DecodeLimits
) -> Reading:
    """Reads the frames that a model needs; each is converted as soon as it is decoded.

    Args:
        video: A path, a binary file object, or frames uint8 RGB [T, H, W, 3].
        model_input: Chooses and converts the frames.
        threads: Number of decoding threads.
        limits: What reading may cost.

    Raises:
        VideoNotFoundError: There is no such file.
        InvalidVideoError: It is no video that can be decoded, or no array of frames.
    """
    convert = Timed(model_input.convert)
    start = time.perf_counter()
    if isinstance(video, np.ndarray):
        clip = Clip.from_array(video, model_input.choose)
        chosen = dict(zip(clip.indices, clip.frames, strict=True))
        kept = {index: convert(frame) for index, frame in chosen.items()}
        clip = dataclasses.replace(clip, frames=tuple(kept[index] for index in clip.indices))
    elif isinstance(video, list | tuple) or hasattr(video, "__array__"):
        raise InvalidVideoError(
            f"a video cannot be a {type(video).__name__}; give its frames as one array, uint8 RGB "
            "[T, height, width, 3], such as numpy.stack(frames), a path, or a binary file object"
        )
    else:
        rendering = model_input.rendering(convert)
        clip = read_clip(
            video,
            model_input.choose,
            convert=rendering.convert,
            scale_to=rendering.scale_to,
            square_pixels=rendering.square_pixels,
            threads=threads,
            limits=limits,
        )
    seconds = time.perf_counter() - start
    return Reading(clip, _seen(clip, model_input), seconds - convert.seconds, convert.seconds)


def _seen(clip: Clip, model_input: ModelInput) -> tuple[View, ...]:
    views = []
    for start in range(0, len(clip.indices), model_input.num_frames):
        part = slice(start, start + model_input.num_frames)
        times = None if clip.times is None else clip.times[part]
        views += [View(crop, clip.indices[part], times) for crop in model_input.crops]
    return tuple(views)
