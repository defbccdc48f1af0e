"""Windows of live frames: of one connection each, numbered, so that what is dropped shows."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import NamedTuple

from timesformer_runtime.last_item import change_last
from timesformer_runtime.model_input import Converted
from timesformer_runtime.pipeline import Pipeline
from timesformer_runtime.timing import Timed
from timesformer_runtime.video.live_source import LiveFrame
from timesformer_runtime.windows import SlidingWindows, Window, WindowSettings

_ROUNDING = 1e-6  # seconds


class ReadyWindow(NamedTuple):
    """A window whose frames are converted, and what had happened when it was complete.

    Attributes:
        window: The window.
        offset: Seconds from the stream's first frame to the first of the window's connection.
        number: How many windows were complete before.
        first: How many frames were used before the window starts.
        stop: How many with its last.
        missing: How many frames were dropped before they were looked at.
        newest: The frame that completed it.
        problems: What is known to be wrong with a file; of its last window, all of it.
        decoding: Seconds that the decoding took so far, to pictures in RGB.
        converting: Seconds that the conversion of these took so far.
    """

    window: Window[Converted]
    offset: float
    number: int
    first: int
    stop: int
    missing: int
    newest: LiveFrame
    problems: tuple[str, ...]
    decoding: float
    converting: float


class Windowing:
    """Makes windows of frames; none of them spans two connections.

    Args:
        pipeline: Chooses and converts the frames.
        settings: Length and stride.
        with_last: Whether a last window counts that the source's end cut short.
        check: As for ``SlidingWindows``.
        problems: Tells, once there are no more frames, what is wrong with the file; None for live
            sources. Each window then waits for the next one.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        settings: WindowSettings,
        *,
        with_last: bool,
        check: Callable[[int], None] | None = None,
        problems: Callable[[], tuple[str, ...]] | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._settings = settings
        self._with_last = with_last
        self._check = check
        self._problems = problems
        self._convert = Timed(pipeline.input.convert)
        self._render = Timed(pipeline.input.rendering(self._convert))
        self._used = self._missing = self._count = 0

    def windows(self, frames: Iterable[LiveFrame]) -> Generator[ReadyWindow, None, None]:
        """The windows, each as soon as its last frame is there."""
        windows, problems = self._windows_of(frames), self._problems
        if problems is None:
            return windows
        return change_last(windows, lambda last: last._replace(problems=problems()))

    def _windows_of(self, frames: Iterable[LiveFrame]) -> Generator[ReadyWindow, None, None]:
        for _, connected in itertools.groupby(frames, lambda frame: frame.connection):
            yield from self._of_connection(connected)

    def _of_connection(self, frames: Iterator[LiveFrame]) -> Generator[ReadyWindow, None, None]:
        newest = first = next(frames)
        windows: SlidingWindows[LiveFrame, Converted] = SlidingWindows(
            self._settings,
            first.connection.rate,
            self._pipeline.input.choose,
            lambda frame: self._render(frame.picture, frame.pixel_shape),
            first.connection.duration,
            self._check,
        )
        times: collections.deque[float] = collections.deque()  # from the oldest open window's start
        for frame in itertools.chain([first], frames):
            newest = frame
            self._missing = frame.number - self._used
            self._used += 1
            times.append(frame.seconds - first.seconds)
            for window in windows.push(times[-1], frame, frame.number):
                yield self._ready(window, first.seconds, times, newest)
        if self._with_last:
            for window in windows.finish():
                yield self._ready(window, first.seconds, times, newest)

    def _ready(
        self,
        window: Window[Converted],
        offset: float,
        times: collections.deque[float],
        newest: LiveFrame,
    ) -> ReadyWindow:
        while times and times[0] < window.start - _ROUNDING:
            times.popleft()
        first = self._used - len(times)
        self._count += 1
        return ReadyWindow(
            window,
            offset,
            self._count - 1,
            first,
            self._used,
            self._missing,
            newest,
            newest.problems,
            newest.decoding + self._render.seconds - self._convert.seconds,
            self._convert.seconds,
        )
