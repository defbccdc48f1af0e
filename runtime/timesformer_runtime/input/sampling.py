"""Chooses the frames of a video that a model sees: pure functions of the number of frames.

| method | frames | taken from |
|---|---|---|
| ``uniform`` | evenly over the whole video, both ends included | Hugging Face's examples |
| ``center`` | every ``rate``-th, around the middle | mmaction2's test |
| ``dense`` | ``clips`` clips like that of ``center``, evenly over the video | mmaction2's test |
| ``segments`` | the middle of equal parts | the authors' test on Something-Something v2 |
| ``pipeline`` | every ``rate``-th or so, from the first | transformers' pipeline |
| ``facebook`` | ``rate`` at 30 frames a second, from the first | the authors' test on Kinetics |

Files, windows of long videos and live streams all choose their frames here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from timesformer_runtime.errors import InvalidOptionError, InvalidVideoError
from timesformer_runtime.input.option_values import METHODS, SHORT_POLICIES

FrameIndices = npt.NDArray[np.int64]

FACEBOOK_RATE = 30.0  # frames per second at which the authors' test states its rates
# Rates of the released Kinetics models by number of frames; the files of the models do not state
# them.
RELEASED_RATES: Mapping[int, int] = {8: 32, 16: 16, 96: 4}

_WITH_RATE = ("center", "dense", "pipeline", "facebook")
_WITH_CLIPS = ("dense", "facebook")
_MOST_CLIPS, _HIGHEST_RATE = 1000, 1_000_000


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Options for the choice of frames.

    Attributes:
        method: One of the methods in this module's table.
        rate: Distance from one chosen frame to the next, in frames; for ``facebook`` in thirtieths
            of a second. None means 1 for ``pipeline``, as in transformers, and otherwise the rate
            with which the released Kinetics model of that many frames was trained.
        clips: Number of clips of a video; only ``dense`` and ``facebook`` allow several.
        short: The frames that replace those past the end of a video that is too short: its last
            frame (``repeat_last``), or the video again from its start (``wrap``); ``error``
            refuses the video. ``uniform`` and ``segments`` never reach past the end: with
            ``repeat_last`` they repeat frames in place where a video has fewer than the model
            takes.

    Raises:
        InvalidOptionError: A value is not allowed, or would have no effect on this method.
    """

    method: str = "uniform"
    rate: int | None = None
    clips: int = 1
    short: str = "repeat_last"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise _invalid("sampling", self.method, f"one of {', '.join(METHODS)}")
        if self.short not in SHORT_POLICIES:
            raise _invalid("short", self.short, f"one of {', '.join(SHORT_POLICIES)}")
        if self.rate is not None:
            rate = _checked("frame_sampling_rate", self.rate, _HIGHEST_RATE)
            object.__setattr__(self, "rate", rate)
            if self.method not in _WITH_RATE:
                raise InvalidOptionError(
                    f"`frame_sampling_rate` has no effect on {self.method} sampling; leave it out, "
                    f"or choose `sampling` {_either(_WITH_RATE)}"
                )
        object.__setattr__(self, "clips", _checked("clips", self.clips, _MOST_CLIPS))
        if self.clips > 1 and self.method not in _WITH_CLIPS:
            raise InvalidOptionError(
                f"{self.method} sampling takes one clip of a video, not {self.clips}; choose "
                f"`sampling` {_either(_WITH_CLIPS)}"
            )

    def resolved(self, num_frames: int) -> Self:
        """Fills in the rate for a model of ``num_frames`` frames.

        Raises:
            InvalidOptionError: The rate was left open, and is not known for this number of frames.
        """
        if self.rate is not None or self.method not in _WITH_RATE:
            return self
        rate = 1 if self.method == "pipeline" else RELEASED_RATES.get(num_frames)
        if rate is None:
            raise InvalidOptionError(
                f"{self.method} sampling needs a `frame_sampling_rate` for a model of {num_frames} "
                "frames: the distance in frames that it was trained with"
            )
        return dataclasses.replace(self, rate=rate)

    def indices(self, count: int, num_frames: int, fps: float = FACEBOOK_RATE) -> FrameIndices:
        """Chooses the frames of a video.

        Args:
            count: Number of frames of the video, at least 1.
            num_frames: Number of frames of a clip, at least 1.
            fps: Frames per second of the video; only ``facebook`` uses them. Arrays of frames
                count as 30 a second.

        Returns:
            int64 [clips, num_frames], each row ascending unless the video is wrapped around, each
            index from 0 to ``count - 1``.

        Raises:
            InvalidOptionError: A number is not valid, or the rate was left open.
            InvalidVideoError: The video is too short, and ``short`` is ``error``.
        """
        count, num_frames = _checked("count", count), _checked("num_frames", num_frames)
        if not 0 < fps < float("inf"):
            raise _invalid("fps", fps, "a number above 0")
        sampling = self.resolved(num_frames)
        needed = _needed(sampling, num_frames, fps)
        if self.short == "wrap":
            return _formula(sampling, max(count, needed), num_frames, fps) % count
        if self.short == "error" and count < needed:
            raise InvalidVideoError(
                f"the video has {count} frames, and {self.method} sampling needs {needed}; choose "
                "another `sampling`, or `short=repeat_last` or `short=wrap`"
            )
        return np.minimum(_formula(sampling, count, num_frames, fps), count - 1)

    def to_dict(self) -> dict[str, Any]:
        """The options as JSON types."""
        return dataclasses.asdict(self)


def uniform(count: int, num_frames: int) -> FrameIndices:
    """Spreads the frames evenly over the whole video, its first and last frame included.

    This is the rule of Hugging Face's documented examples, ``numpy.linspace(0, count - 1,
    num_frames)``, truncated. A video with fewer frames than wanted repeats some.

    Args:
        count: Number of frames of the video, at least 1.
        num_frames: Number of frames wanted, at least 1.

    Returns:
        int64 [num_frames], ascending, each from 0 to ``count - 1``.

    Raises:
        InvalidOptionError: A number is smaller than 1.
    """
    count, num_frames = _checked("count", count), _checked("num_frames", num_frames)
    return np.linspace(0, count - 1, num_frames).astype(np.int64)


def _needed(sampling: Sampling, num_frames: int, fps: float) -> int:
    """Computes how many frames a video needs, so that no frame is used twice."""
    rate = sampling.rate or 1
    if num_frames == 1 or sampling.method == "uniform":
        return num_frames
    if sampling.method == "segments":
        return num_frames + 1  # the parts end at the last frame but one
    if sampling.method == "facebook":
        return max(int(_facebook_span(num_frames, rate, fps)), 1)
    if sampling.method == "pipeline":
        return num_frames * rate
    return _span(num_frames, rate)


def _formula(sampling: Sampling, count: int, num_frames: int, fps: float) -> FrameIndices:
    """Applies the method's formula: int64 [clips, num_frames]; may pass a short video's end."""
    rate = sampling.rate or 1
    if sampling.method == "uniform":
        return uniform(count, num_frames)[None]
    if sampling.method == "segments":
        return _segments(count, num_frames)[None]
    if sampling.method == "pipeline":
        return np.linspace(0, num_frames * rate - 1, num_frames, dtype=np.int64)[None]
    if sampling.method == "facebook":
        span = _facebook_span(num_frames, rate, fps)
        return _facebook(count, span, num_frames, sampling.clips)
    return _dense(count, num_frames, rate, sampling.clips)


def _segments(count: int, num_frames: int) -> FrameIndices:
    """Chooses frames halfway between the rounded borders of equal parts: int64 [num_frames]."""
    borders = np.round((count - 1) / num_frames * np.arange(num_frames + 1)).astype(np.int64)
    return (borders[:-1] + borders[1:]) // 2


def _span(num_frames: int, rate: int) -> int:
    """Counts the frames from the first to the last of a clip, both included."""
    return (num_frames - 1) * rate + 1


def _dense(count: int, num_frames: int, rate: int, clips: int) -> FrameIndices:
    """Chooses clips from the start to the end of the video; a single clip in its middle."""
    room = max(count - _span(num_frames, rate), 0)
    if clips == 1:
        starts = np.array([room // 2])
    else:
        starts = np.round(np.arange(clips) * (room / (clips - 1))).astype(np.int64)
    return starts[:, None] + rate * np.arange(num_frames, dtype=np.int64)


def _facebook_span(num_frames: int, rate: int, fps: float) -> float:
    return rate * num_frames / FACEBOOK_RATE * fps


def _facebook(count: int, span: float, num_frames: int, clips: int) -> FrameIndices:
    """Chooses the clips of the authors' test, the first one at the start of the video.

    The formula is that of the authors' loader for whole files. Where the loader decodes only a part
    of a file, later clips may start one frame later.
    """
    room = max(count - span, 0)
    starts = [room * clip / clips for clip in range(clips)]
    rows = [_torch_linspace(start, start + span - 1, num_frames) for start in starts]
    return np.maximum(np.stack(rows), 0).astype(np.int64)


def _torch_linspace(start: float, stop: float, number: int) -> npt.NDArray[np.float32]:
    """Computes ``torch.linspace``; its single precision decides where a position truncates."""
    first, last = np.float32(start), np.float32(stop)
    if number == 1:
        return np.array([first])
    step = (last - first) / np.float32(number - 1)
    steps = np.arange(number, dtype=np.float32)
    from_first = first + step * steps
    from_last = last - step * steps[::-1]
    return np.where(np.arange(number) < number // 2, from_first, from_last)


def _checked(name: str, value: int, most: int | None = None) -> int:
    """Checks a number; makes an integer of Python of one of NumPy, which may overflow."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise _invalid(name, value, "an integer of at least 1")
    if value < 1:
        raise InvalidOptionError(f"`{name}` is {value}; it must be at least 1")
    if most is not None and value > most:
        raise InvalidOptionError(f"`{name}` is {value}; it must be at most {most}")
    return int(value)


def _invalid(name: str, value: object, limit: str) -> InvalidOptionError:
    return InvalidOptionError(f"`{name}` is {value!r}; it must be {limit}")


def _either(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
