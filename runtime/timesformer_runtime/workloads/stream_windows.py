"""Makes windows of live frames: each of one connection, and numbered, to notice skipped ones."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import NamedTuple

from timesformer_runtime.pipeline import Pipeline
from timesformer_runtime.reading import Timed
from timesformer_runtime.video.live.source import LiveFrame
from timesformer_runtime.video.pixels import ConvertedFrame
from timesformer_runtime.workloads.windows import SlidingWindows, Window, WindowSettings

_ROUNDING = 1e-6  # seconds


class LiveWindow(NamedTuple):
    """A window with converted frames, and the state of the stream when the window was complete.

    Attributes:
        window: The window.
        offset: Seconds from the stream's first frame to the first of the window's connection.
        number: Number of windows that were complete before this one.
        first: Number of frames that ``LiveWindows`` took before the window starts.
        stop: Number of frames that ``LiveWindows`` took up to ``newest``, which is included.
        missing: Number of frames so far that were dropped before ``LiveWindows`` took them.
        newest: The frame that completed the window.
        decoding: Seconds that decoding to RGB took so far.
        converting: Seconds that the conversion to the model's input took so far.
    """

    window: Window[ConvertedFrame]
    offset: float
    number: int
    first: int
    stop: int
    missing: int
    newest: LiveFrame
    decoding: float
    converting: float


class LiveWindows:
    """Makes windows of live frames; none of them spans two connections.

    Args:
        pipeline: Chooses and converts the frames.
        settings: Length and stride.
        check: Called with the number of bytes that held frames take; may raise.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        settings: WindowSettings,
        check: Callable[[int], None] | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._settings = settings
        self._check = check
        self._convert = Timed(pipeline.input.convert)
        self._render = Timed(pipeline.input.rendering(self._convert))
        self._used = self._missing = self._count = 0

    def of(self, frames: Iterable[LiveFrame]) -> Generator[LiveWindow, None, None]:
        """Gives the windows of these frames, each as soon as its last frame is there."""
        for _, connected in itertools.groupby(frames, lambda frame: frame.connection):
            yield from self._of_connection(connected)

    def _of_connection(self, frames: Iterator[LiveFrame]) -> Generator[LiveWindow, None, None]:
        """Gives the windows of one connection, whose times count from its first frame."""
        first = next(frames)
        windows: SlidingWindows[LiveFrame, ConvertedFrame] = SlidingWindows(
            self._settings,
            first.connection.rate,
            self._pipeline.input.choose,
            lambda frame: self._render(frame.av_frame, frame.sample_aspect_ratio),
            first.connection.duration,
            self._check,
        )
        # Times of the frames from the start of the oldest open window on.
        times: collections.deque[float] = collections.deque()
        for frame in itertools.chain([first], frames):
            self._missing = frame.number - self._used
            self._used += 1
            times.append(frame.seconds - first.seconds)
            for window in windows.push(times[-1], frame, frame.number):
                yield self._complete(window, first.seconds, times, frame)

    def _complete(
        self,
        window: Window[ConvertedFrame],
        offset: float,
        times: collections.deque[float],
        newest: LiveFrame,
    ) -> LiveWindow:
        """Adds the state of the stream to a window that ``newest`` completed."""
        while times and times[0] < window.start - _ROUNDING:
            times.popleft()
        self._count += 1
        return LiveWindow(
            window=window,
            offset=offset,
            number=self._count - 1,
            first=self._used - len(times),
            stop=self._used,
            missing=self._missing,
            newest=newest,
            decoding=newest.decode_seconds + self._render.seconds - self._convert.seconds,
            converting=self._convert.seconds,
        )
