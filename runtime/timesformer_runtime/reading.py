"""Reads what a model needs of one video, and says what that was and what it cost."""

from __future__ import annotations

import dataclasses
import time
from os import PathLike
from typing import BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

from timesformer_runtime.errors import InvalidVideoError
from timesformer_runtime.model_input import Converted, ModelInput
from timesformer_runtime.results import Answer, Seconds, VideoResult, View
from timesformer_runtime.timing import Timed
from timesformer_runtime.video import DecodedFrames, DecodeLimits, VideoDecoder

ARRAY_RATE = 30.0  # frames per second of arrays, which do not tell

Video: TypeAlias = str | PathLike[str] | BinaryIO | npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Reading:
    """What was read of a video.

    Attributes:
        frames: Those of all clips, one clip after the other, as ``ModelInput`` converts them.
        views: Of which frames each view consists.
        count: Number of frames that the video has.
        failed_packets: Number of its packets that did not decode.
        problems: What is wrong with the file, a short sentence for each.
        truncated: Whether the file ends before what it states to hold.
        interlaced: Whether frames consist of two fields.
        decode: Seconds that the reading and decoding took.
        preprocess: Seconds that the conversion took.
    """

    frames: tuple[Converted, ...]
    views: tuple[View, ...]
    count: int
    decode: float
    preprocess: float
    failed_packets: int = 0
    problems: tuple[str, ...] = ()
    truncated: bool = False
    interlaced: bool = False

    def result(self, answer: Answer) -> VideoResult:
        """Joins what is known about the video with the model's answer to it."""
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
    if isinstance(video, np.ndarray):
        return _read_array(video, model_input)
    convert = Timed(model_input.convert)
    start = time.perf_counter()
    rendering = model_input.rendering(convert)
    with VideoDecoder(
        video,
        threads=threads,
        limits=limits,
        convert=rendering.convert,
        scale_to=rendering.scale_to,
        square_pixels=rendering.square_pixels,
    ) as decoder:
        frames = _chosen_frames(decoder, model_input)
        verdict = decoder.verdict()
        seconds = time.perf_counter() - start
        return Reading(
            frames=frames.pixels,
            views=_seen(frames.indices, frames.times, model_input),
            count=len(decoder),
            decode=seconds - convert.seconds,
            preprocess=convert.seconds,
            failed_packets=decoder.failed_packets,
            problems=verdict.problems,
            truncated=verdict.truncated,
            interlaced=frames.interlaced,
        )


def _chosen_frames(decoder: VideoDecoder, model_input: ModelInput) -> DecodedFrames:
    """Decodes what the model needs, and chooses again where decoding corrects the count."""
    count = decoder.likely_count
    # A file in which no packet seems to hold a frame may have frames all the same.
    frames = decoder.frames_if_there(model_input.choose(max(count, 1), decoder.rate))
    if frames is None or decoder.likely_count != count:
        frames = decoder.frames(model_input.choose(decoder.likely_count, decoder.rate))
    return frames


def _read_array(video: npt.NDArray[np.uint8], model_input: ModelInput) -> Reading:
    check_array(video)
    start = time.perf_counter()
    indices = model_input.choose(len(video), ARRAY_RATE).tolist()
    converted = {index: model_input.convert(video[index]) for index in set(indices)}
    return Reading(
        frames=tuple(converted[index] for index in indices),
        views=_seen(tuple(indices), None, model_input),
        count=len(video),
        decode=0.0,
        preprocess=time.perf_counter() - start,
    )


def check_array(video: npt.NDArray[np.uint8]) -> None:
    """Makes sure that an array is a video.

    Raises:
        InvalidVideoError: It is not uint8 RGB [T, H, W, 3], or has no frames.
    """
    if video.dtype != np.uint8:
        raise InvalidVideoError(
            f"the video is an array of {video.dtype}; give uint8 RGB frames [T, height, width, 3]"
        )
    if video.ndim != 4 or video.shape[3] != 3 or 0 in video.shape:
        raise InvalidVideoError(
            f"the video is an array of shape {video.shape}; "
            "give uint8 RGB frames [T, height, width, 3]"
        )


def _seen(
    indices: tuple[int, ...], times: tuple[float, ...] | None, model_input: ModelInput
) -> tuple[View, ...]:
    views = []
    for start in range(0, len(indices), model_input.num_frames):
        part = slice(start, start + model_input.num_frames)
        shown = None if times is None else times[part]
        views += [View(crop, indices[part], shown) for crop in model_input.crops]
    return tuple(views)
