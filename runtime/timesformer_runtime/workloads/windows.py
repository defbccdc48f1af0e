"""Sliding windows over a video that is read once, frame by frame.

Window k shows the seconds from ``k * stride`` to ``k * stride + length`` of a video, counted from
its first frame. Its frames are chosen as if it were a video of constant rate: the sampling picks
positions on the grid of that rate, and each position stands for the frame that is shown at its
time. So the times are known before the frames come, only the chosen frames are converted, and a
file and a live stream of the file give equal windows. In a video of constant rate, the
positions of a window are exactly the frames between its start and its end.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from timesformer_runtime.errors import InvalidOptionError, quoted

ChooseFrames = Callable[[int, float], npt.NDArray[np.int64]]  # number of frames, frames a second
GivenFrame = TypeVar("GivenFrame")  # a frame as the caller gives it
Converted = TypeVar("Converted")  # a chosen frame as a window holds it

_ROUNDING = 1e-6  # seconds; decimal timestamps are not exact as floats
_MOST_OVERLAP = 1000  # windows that may share a moment of the video
_WHOLE = -1  # the number of the window that shows all of a video shorter than a window
_MIN_FILLED = 0.5  # of the last window; with less, most frames of its clip would be one frame


@dataclasses.dataclass(frozen=True)
class WindowSettings:
    """Length and stride of the windows.

    Attributes:
        length: Seconds that a window shows.
        stride: Seconds from the start of one window to the start of the next.

    Raises:
        InvalidOptionError: A value is not a number above 0, or too many windows would overlap.
    """

    length: float = 4.0
    stride: float = 2.0

    def __post_init__(self) -> None:
        for name, value in (("window", self.length), ("stride", self.stride)):
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise InvalidOptionError(
                    f"`{name}` is {quoted(value)}; it must be a number of seconds"
                )
            if not 1e-3 <= value <= 1e6:  # also false for NaN
                raise InvalidOptionError(
                    f"`{name}` is {quoted(value)} seconds; it must be 0.001 to 1000000"
                )
        if self.stride * _MOST_OVERLAP < self.length:
            raise InvalidOptionError(
                f"`stride` is {self.stride:g} seconds; for windows of {self.length:g} it must be "
                f"at least {self.length / _MOST_OVERLAP:g}"
            )


@dataclasses.dataclass(frozen=True)
class Window(Generic[Converted]):
    """A complete window.

    Attributes:
        start: Seconds from the video's first frame.
        end: Seconds from the video's first frame; for a video that ends in the window, its end.
        values: The chosen frames as converted, in the order of the sampling's indices.
        indices: Indices of the chosen frames in the video, counted from 0.
        times: Times of the chosen frames, in seconds.
        is_partial: True if the video ended before the window did. The video's last frame then
            takes the place of the missing frames.
    """

    start: float
    end: float
    values: tuple[Converted, ...]
    indices: tuple[int, ...]
    times: tuple[float, ...]
    is_partial: bool = False


class SlidingWindows(Generic[GivenFrame, Converted]):
    """Takes frames in the order in which they are shown, and gives windows.

    Memory holds the newest frame, and the converted frames of the windows that are not complete.
    Memory does not grow with the number of frames, nor with the time from one frame to the next:
    each window is made when the caller asks for it.

    Args:
        settings: Length and stride.
        rate: Frames per second of the grid: the video's usual rate.
        choose: The sampling: maps the number of a window's frames, and their rate, to indices.
        convert: Applied to each chosen frame, once, even where windows share the frame.
        duration: The duration that the video states, in seconds. With it, the one window of a
            video that is shorter than a window has frames from all of the video. Without it, the
            video's last frame fills the rest of that window.
        check: Called for each frame that a window uses, with the number of bytes that all held
            frames take, those of the last ``in_use`` complete windows included; may raise.
        in_use: Number of complete windows that may wait for the model or be in use by it.

    Raises:
        InvalidOptionError: The rate is not a number above 0.
        InvalidVideoError: The sampling refuses a video of as few frames as a window has.
    """

    def __init__(
        self,
        settings: WindowSettings,
        rate: float,
        choose: ChooseFrames,
        convert: Callable[[GivenFrame], Converted],
        duration: float | None = None,
        check: Callable[[int], None] | None = None,
        in_use: int = 4,
    ) -> None:
        if not 0 < rate < math.inf:
            raise InvalidOptionError(f"the frame rate is {rate}; it must be a number above 0")
        self._settings = settings
        # Thousands of windows may begin between two frames of a very slow video: all of them at one
        # position of the frames' grid. A finer grid spreads them.
        self._rate = max(rate, 1 / (_MOST_OVERLAP * settings.stride))
        self._convert = convert
        self._positions = max(1, round(settings.length * rate))
        self._chosen = self._choose(choose, self._positions)
        self._waiting: list[tuple[int, int]] = []  # a heap: grid position, number of the window
        self._open: dict[
            int, dict[int, _ConvertedFrame[Converted]]
        ] = {}  # frames of each window, by position
        self._opened = 0
        self._held = _HeldBytes(check, in_use)
        self._newest: _Frame[GivenFrame, Converted] | None = None
        self._whole: tuple[int, ...] = ()  # positions to choose in a video shorter than a window
        if duration is not None and 0 < duration < settings.length:
            self._whole = self._choose(choose, max(1, round(duration * rate)))
            self._open[_WHOLE] = {}
            self._waiting = sorted((index, _WHOLE) for index in set(self._whole))

    def push(
        self, seconds: float, frame: GivenFrame, number: int | None = None
    ) -> Iterator[Window[Converted]]:
        """Takes the next frame.

        Args:
            seconds: Seconds from the video's first frame, not less than for the previous frame.
            frame: The frame.
            number: The frame's index; needed where unused frames were left out before it.

        Returns:
            The windows that this frame completes, in order. There can be many, where a frame is
            shown for long; they have to be asked for before the next frame is given.

        Raises:
            InvalidOptionError: The time is not a number, or is before that of the previous frame.
        """
        before = self._newest
        if not (before.seconds if before else -math.inf) <= seconds < math.inf:
            raise InvalidOptionError(f"a frame's time is {seconds} s; times must not decrease")
        if number is None:
            number = before.number + 1 if before else 0
        newest = self._newest = _Frame(number, seconds, frame, self._convert)
        return self._completed(before, newest)

    def _completed(
        self, before: _Frame[GivenFrame, Converted] | None, newest: _Frame[GivenFrame, Converted]
    ) -> Iterator[Window[Converted]]:
        """Gives the windows that the newest frame completes, in order."""
        while (position := self._next_position()) <= self._reached(newest):
            # In a gap between two frames the earlier frame is still shown.
            is_late = newest.seconds > (position + 0.5) / self._rate + _ROUNDING
            shown = before if before is not None and is_late else newest
            window = self._use_frame(shown)
            if window is not None:
                yield window

    def finish(self) -> list[Window[Converted]]:
        """Gives the last window, where the video ends inside of it: at most one.

        The last window is the first one that reaches the video's end. This method leaves out a
        last window of which the video shows less than half, unless it is the only window.
        """
        newest = self._newest
        if newest is None:
            return []
        number = min(number for number in self._open if number != _WHOLE)
        reached = math.floor(self._reached(newest))
        missing = self._first_position(number) + self._positions - 1 - reached
        is_seen = number > 0 and reached < self._first_position(number - 1) + self._positions
        if number > 0 and (is_seen or missing > self._positions * (1 - _MIN_FILLED)):
            return []
        if number == 0 and self._whole:
            number, chosen = _WHOLE, self._whole
        else:
            chosen = self._chosen
        shown = self._open[number]
        first = self._first_position(number)
        frames = [shown.get(first + index) or newest.converted for index in chosen]
        return [self._window(number, frames, newest.seconds + 1 / self._rate)]

    def _reached(self, frame: _Frame[GivenFrame, Converted]) -> float:
        """Computes the last grid position whose frame is known once this frame has come."""
        return (frame.seconds - _ROUNDING) * self._rate + 0.5

    def _next_position(self) -> int:
        """Finds the first grid position that waits for its frame; opens the windows up to it."""
        while not self._waiting or self._first_position(self._opened) <= self._waiting[0][0]:
            first = self._first_position(self._opened)
            # The last position waits even if it is not chosen: with it the window is complete.
            for index in {*self._chosen, self._positions - 1}:
                heapq.heappush(self._waiting, (first + index, self._opened))
            self._open[self._opened] = {}
            self._opened += 1
        return self._waiting[0][0]

    def _use_frame(self, frame: _Frame[GivenFrame, Converted]) -> Window[Converted] | None:
        """Uses a frame for the first waiting position; returns the window if it is now complete."""
        position, number = heapq.heappop(self._waiting)
        index = position - self._first_position(number)
        if number == _WHOLE or index in self._chosen:
            self._open[number][position] = frame.converted
            self._held.hold(frame.converted.memory)
        if number == _WHOLE or index < self._positions - 1:
            return None
        whole = self._open.pop(_WHOLE, {})  # not needed: the video fills a window
        self._held.release(frame.memory for frame in whole.values())
        shown, first = self._open.pop(number), self._first_position(number)
        self._held.complete(frame.memory for frame in shown.values())
        return self._window(number, [shown[first + index] for index in self._chosen], math.inf)

    def _window(
        self, number: int, frames: Sequence[_ConvertedFrame[Converted]], video_end: float
    ) -> Window[Converted]:
        """Makes a window of its frames; ``video_end`` is infinite while the video goes on."""
        start = max(number, 0) * float(self._settings.stride)
        end = start + self._settings.length
        return Window(
            start=start,
            end=min(end, video_end),
            values=tuple(frame.value for frame in frames),
            indices=tuple(frame.number for frame in frames),
            times=tuple(frame.seconds for frame in frames),
            is_partial=video_end < math.inf,
        )

    def _first_position(self, number: int) -> int:
        """Computes the grid position at which a window starts."""
        return round(max(number, 0) * self._settings.stride * self._rate)

    def _choose(self, choose: ChooseFrames, count: int) -> tuple[int, ...]:
        return tuple(int(index) for index in choose(count, self._rate).ravel())


@dataclasses.dataclass(slots=True)
class _Memory:
    """Counts the windows that hold a frame of some bytes; does not hold the frame itself."""

    size: int
    holders: int = 0


class _ConvertedFrame(NamedTuple, Generic[Converted]):
    """A chosen frame as windows hold it."""

    value: Converted
    number: int
    seconds: float
    memory: _Memory


@dataclasses.dataclass
class _Frame(Generic[GivenFrame, Converted]):
    """A frame that may be chosen, and is then converted once."""

    number: int
    seconds: float
    decoded: GivenFrame
    convert: Callable[[GivenFrame], Converted]

    @functools.cached_property
    def converted(self) -> _ConvertedFrame[Converted]:
        value = self.convert(self.decoded)
        size = value.nbytes if isinstance(value, np.ndarray) else 0
        return _ConvertedFrame(value, self.number, self.seconds, _Memory(size))


class _HeldBytes:
    """Counts the bytes of the frames that windows hold, each frame once.

    Args:
        check: Called with the sum of bytes whenever a window uses a frame; may raise. None for no
            check.
        in_use: Number of complete windows that may wait for the model or be in use by it.
    """

    def __init__(self, check: Callable[[int], None] | None, in_use: int) -> None:
        self._check = check
        self._in_use = in_use
        self._bytes = 0
        self._complete: collections.deque[list[_Memory]] = collections.deque()

    def hold(self, frame: _Memory) -> None:
        """Counts one more window that uses the frame."""
        frame.holders += 1
        if frame.holders == 1:
            self._bytes += frame.size
        if self._check is not None:
            self._check(self._bytes)

    def complete(self, frames: Iterable[_Memory]) -> None:
        """Takes the frames of a complete window; beyond ``in_use`` windows, releases the oldest."""
        self._complete.append(list(frames))
        if len(self._complete) > self._in_use:
            self.release(self._complete.popleft())

    def release(self, frames: Iterable[_Memory]) -> None:
        """Counts one window less for each frame."""
        for frame in frames:
            frame.holders -= 1
            if frame.holders == 0:
                self._bytes -= frame.size
