"""Cameras: many sources, each read in a thread of its own, share one loaded model.

The sources take turns. The newest complete window of each source waits until each other source has
had at most one window classified, and an older window that still waits is dropped for it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import NamedTuple

from timesformer_runtime.cameras.motion import motion
from timesformer_runtime.cameras.settings import SourceSettings
from timesformer_runtime.classifier import VideoClassifier
from timesformer_runtime.errors import InvalidOptionError, TimesformerError, reason_of
from timesformer_runtime.pipeline import Pipeline
from timesformer_runtime.results import Answer, Ranking
from timesformer_runtime.video.source import locate_unchecked
from timesformer_runtime.workloads.bounded_queue import BoundedQueue
from timesformer_runtime.workloads.stream import LiveResult, WindowResults
from timesformer_runtime.workloads.stream_sources import (
    TIMEOUT,
    check_source,
    is_live,
    source_frames,
)
from timesformer_runtime.workloads.stream_windows import LiveWindow, LiveWindows

_NOTHING = Answer((), {}, 0.0, 0.0)
_SHORT_WAIT = 0.05  # seconds between two looks whether another thread has ended
_LONGEST_WAIT = 1.0  # seconds until the caller is asked whether to go on


@dataclasses.dataclass
class Counts:
    """Counts of one source's windows, frames and reconnections so far.

    Attributes:
        windows: Number of windows that the model classified.
        static: Number of windows without motion, which the model did not see.
        skipped: Number of windows that were dropped for newer ones.
        dropped_frames: Number of frames that only dropped windows show.
        failed_packets: Number of packets that did not decode.
        reconnects: How often the source was lost and found again.
    """

    windows: int = 0
    static: int = 0
    skipped: int = 0
    dropped_frames: int = 0
    failed_packets: int = 0
    reconnects: int = 0

    def add(self, result: LiveResult, reconnects: int, *, is_static: bool) -> None:
        """Counts one more result, and the reconnections since the one before."""
        self.windows += not is_static
        self.static += is_static
        self.skipped += result.skipped_windows
        self.dropped_frames += result.dropped_frames
        self.failed_packets += result.failed_packets
        self.reconnects += reconnects


def fairness(counts: Iterable[Counts]) -> float:
    """The least number of a source's windows divided by the most; 1.0 without windows.

    Windows without motion count, because their source had its turn.
    """
    numbers = [count.windows + count.static for count in counts]
    most = max(numbers, default=0)
    return min(numbers) / most if most else 1.0


class CameraResult(NamedTuple):
    """The result of one window, or the end of a source.

    Attributes:
        source: The source's settings.
        result: The result; its predictions are empty for a window without motion. None where the
            source has ended, or is silent.
        motion: The window's motion, from 0 to 255; None where it was not measured.
        is_static: True for a window that the model did not see, because nothing moves in it.
        is_first_of_connection: True where the source was lost since its window before.
        origin: Seconds since the epoch at the source's first frame; None for a file.
        ended: True where the source has ended.
        error: Why it ended, or None where it ended by itself.
        silent: Seconds for which a live source has given no window: told each second, once its
            timeout, a window and a stride have passed. None otherwise.
    """

    source: SourceSettings
    result: LiveResult | None = None
    motion: float | None = None
    is_static: bool = False
    is_first_of_connection: bool = False
    origin: float | None = None
    ended: bool = False
    error: str | None = None
    silent: float | None = None


class _MeasuredWindow(NamedTuple):
    window: LiveWindow
    motion: float | None


class _Camera:
    """One source: the thread that reads it, and the newest window that waits.

    Args:
        pipeline: The model.
        settings: The source.
        counts: The source's counts so far.
        notify: Called with one sentence, which names the source, by the thread.
        wake: Called after each window.
        before: Cameras whose threads must end before this source can be read: they may have its
            port or its device.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        settings: SourceSettings,
        counts: Counts,
        notify: Callable[[str], None],
        wake: Callable[[], None],
        before: Sequence[_Camera],
    ) -> None:
        check_source(settings.address)
        self.counts = counts
        live = settings.live
        self.settings = settings
        self.is_live = is_live(settings.address, live.format)
        self._before = before
        self._frames = source_frames(
            pipeline,
            settings.address,
            live,
            lambda message: notify(_with_name(settings.name, message)),
            endless=True,
        )
        if not self.is_live:
            with locate_unchecked(settings.address):
                pass  # a file that is not there is an error at once
        drop = self.is_live if live.drop is None else live.drop
        self.ready: BoundedQueue[_MeasuredWindow] = BoundedQueue(1, drop=drop, on_change=wake)
        self._windows = LiveWindows(pipeline, settings.windows, self._frames.check)
        self._results = WindowResults(pipeline.input.num_frames)
        self.thread: threading.Thread | None = None
        self._connection = 0
        timeout = TIMEOUT if live.timeout is None else live.timeout
        self._patience = timeout + settings.windows.length + settings.windows.stride
        self._window_taken()

    def _window_taken(self) -> None:
        self._last = time.monotonic()
        self._next_silence = self._last + self._patience

    def start(self) -> None:
        """Begins to read."""
        self.thread = self.ready.fill(self._read(), f"camera: {self.settings.name}")

    def _read(self) -> Generator[_MeasuredWindow, None, None]:
        for camera in self._before:
            while _is_running(camera) and not self.ready.closed.wait(_SHORT_WAIT):
                pass
        self._before = ()
        with contextlib.closing(self._frames.read(self.ready.closed)) as frames:
            for window in self._windows.of(frames):
                measures = self.settings.static_level is not None
                yield _MeasuredWindow(window, motion(window.window.values) if measures else None)

    def result(self, measured: _MeasuredWindow, answer: Answer, *, is_static: bool) -> CameraResult:
        """Makes the result of a window, and counts it."""
        self._window_taken()
        result = self._results.of(measured.window, answer)
        reconnects = result.reconnects - self._connection
        self._connection = result.reconnects
        self.counts.add(result, reconnects, is_static=is_static)
        arrived = time.time() - result.latency
        return CameraResult(
            self.settings,
            result,
            measured.motion,
            is_static,
            reconnects > 0,
            arrived - measured.window.newest.seconds if self.is_live else None,
        )

    def silence(self) -> float | None:
        """Gives the seconds without a window, once a second while a live source is silent."""
        now = time.monotonic()
        if not self.is_live or now < self._next_silence:
            return None
        self._next_silence = now + _LONGEST_WAIT
        return now - self._last


class _Bell:
    """Wakes the thread that waits for it; other threads and signal handlers ring it.

    ``threading.Event`` will not do: a handler may run while its own thread holds the event's lock,
    and to set the event would then take for ever.
    """

    def __init__(self) -> None:
        self._rings: queue.SimpleQueue[None] = queue.SimpleQueue()

    def ring(self) -> None:
        """Ends a wait, or the next one."""
        if self._rings.empty():
            self._rings.put(None)

    def forget(self) -> None:
        """Forgets that it rang before."""
        for _ in range(self._rings.qsize()):
            self._rings.get_nowait()

    def wait(self, seconds: float) -> None:
        """Waits until it rings, for so long at most."""
        with contextlib.suppress(queue.Empty):
            self._rings.get(timeout=seconds)


class Cameras:
    """Classifies the newest windows of many sources in turns.

    Nothing is read before the first result is asked for. Use it in one thread.
    ``close`` it, or leave its ``with`` block, to end its threads.

    Args:
        classifier: The model.
        sources: The sources; their names must differ.
        ranking: How logits become labels with scores.
        notify: Called with one sentence when a source is lost, and when it is connected again, by
            the thread of that source.

    Raises:
        InvalidOptionError: Two sources have one name, or an option does not apply to a source.
        InvalidVideoError: A source is not a URL, a device or a file.
        VideoNotFoundError: A file is not there.
        MissingOutputError: The model has no logits.
    """

    def __init__(
        self,
        classifier: VideoClassifier,
        sources: Sequence[SourceSettings],
        ranking: Ranking,
        notify: Callable[[str], None],
    ) -> None:
        classifier.check_outputs(["logits"])
        self._classifier = classifier
        self._ranking = ranking
        self._notify = notify
        self._woken = _Bell()
        self._cameras: list[_Camera] = []  # in the order of their turns
        self._leaving: list[_Camera] = []  # their threads end soon
        self._ended: dict[str, SourceSettings] = {}  # of the newest settings, by name
        self._counts: dict[str, Counts] = {}
        self._reading = False
        self.update(sources)

    def __enter__(self) -> Cameras:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, sources: Sequence[SourceSettings]) -> list[SourceSettings]:
        """Takes new settings; sources whose reading does not change go on without a break.

        Such a source that has ended stays so: a file is not played twice.

        Where this raises an error, the settings stay as they were.

        Returns:
            The sources whose reading this ends: those that are gone, and those that begin again.

        Raises:
            InvalidOptionError: Two sources have one name, or an option does not apply to a source.
            InvalidVideoError: A source is not a URL, a device or a file.
            VideoNotFoundError: A file is not there.
        """
        self._check(sources)
        running = {camera.settings.name: camera for camera in self._cameras}
        kept, ended, new = [], [], []
        for source in sources:
            camera, before = running.get(source.name), self._ended.get(source.name)
            if camera is not None and camera.settings.reads_like(source):
                kept.append((camera, source))
            elif before is not None and before.reads_like(source):
                ended.append(source)
            else:
                new.append(source)
        going_on = [camera for camera, _ in kept]
        gone = [camera for camera in self._cameras if camera not in going_on]
        counts = {source.name: self._counts.get(source.name, Counts()) for source in sources}
        leaving = [*gone, *self._leaving]
        begun = [self._camera(source, counts[source.name], leaving) for source in new]
        for camera, source in kept:
            camera.settings = source
        self._cameras = [camera for camera in self._cameras if camera in going_on] + begun
        for camera in gone:
            camera.ready.close()
        self._leaving = [*gone, *(camera for camera in self._leaving if _is_running(camera))]
        self._ended = {source.name: source for source in ended}
        self._counts = counts
        if self._reading:
            self._start(begun)
        return [camera.settings for camera in gone]

    def counts(self) -> dict[str, Counts]:
        """Gives the counts so far of each source of the newest settings, by name."""
        return self._counts

    def results(self) -> Generator[CameraResult | None, None, None]:
        """Gives results as they come, until all sources have ended.

        Gives None at least once a second where nothing comes, so that the caller can see to other
        things.
        """
        self._reading = True
        self._start(self._cameras)
        while self._cameras:
            self._woken.forget()  # before looking, so that no window is overlooked
            found = False
            for camera in list(self._cameras):
                if camera not in self._cameras:  # the caller took it out meanwhile
                    continue
                result = self._turn(camera)
                if result is not None:
                    found = True
                    yield result
            if not found:
                self._woken.wait(_LONGEST_WAIT)
                yield None

    def close(self) -> None:
        """Ends the reading of all sources, and waits for their threads."""
        self.stop()
        for camera in self._leaving:
            if camera.thread is not None:
                camera.thread.join()

    def wake(self) -> None:
        """Makes ``results`` give None at once, from any thread or signal handler."""
        self._woken.ring()

    def stop(self) -> None:
        """Ends the reading of all sources, and does not wait: the network may be slow to answer."""
        for camera in self._cameras:
            camera.ready.close()
        self._leaving += self._cameras
        self._cameras = []

    def _camera(
        self, source: SourceSettings, counts: Counts, leaving: Sequence[_Camera]
    ) -> _Camera:
        """Makes a camera; if others that leave read its address, they end before it begins."""
        place = _without_options(source)
        before = [camera for camera in leaving if _without_options(camera.settings) == place]
        with errors_of(source):
            return _Camera(self._classifier, source, counts, self._notify, self._woken.ring, before)

    def _start(self, cameras: Iterable[_Camera]) -> None:
        for camera in cameras:
            if camera.thread is None:
                camera.start()

    def _turn(self, camera: _Camera) -> CameraResult | None:
        """Classifies the window of a source that waits, if there is one."""
        measured = camera.ready.poll()
        if measured is None:
            return self._without_window(camera)
        level = camera.settings.static_level
        is_static = level is not None and measured.motion is not None and measured.motion <= level
        answer = _NOTHING
        if not is_static:
            answer = self._classifier.predict(measured.window.window.values, self._ranking)
        return camera.result(measured, answer, is_static=is_static)

    def _without_window(self, camera: _Camera) -> CameraResult | None:
        ended, error = camera.ready.outcome()
        if ended and camera in self._cameras:
            self._cameras.remove(camera)
            self._ended[camera.settings.name] = camera.settings
            reason = None if error is None else _reason(error)
            return CameraResult(camera.settings, ended=True, error=reason)
        silent = camera.silence()
        return None if silent is None else CameraResult(camera.settings, silent=silent)

    def _check(self, sources: Sequence[SourceSettings]) -> None:
        if not sources:
            raise InvalidOptionError("`sources` is empty; give at least one source")
        names = [source.name for source in sources]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InvalidOptionError(f"two sources have the name {twice}; give each its own")
        measured = any(source.static_level is not None for source in sources)
        if measured and self._classifier.views.protocol == "facebook":
            raise InvalidOptionError(
                "`static_level` is for the protocol huggingface: the frames of `protocol=facebook` "
                "have no brightness; leave one of them out"
            )


@contextlib.contextmanager
def errors_of(source: SourceSettings) -> Iterator[None]:
    """Puts the source's name before the errors that leave the block."""
    try:
        yield
    except TimesformerError as error:
        raise type(error)(_with_name(source.name, str(error))) from error


def _is_running(camera: _Camera) -> bool:
    return camera.thread is not None and camera.thread.is_alive()


def _without_options(source: SourceSettings) -> str:
    """The address without the options of a URL, which do not choose another port."""
    return str(source.address).partition("?")[0]


def _with_name(name: str, message: str) -> str:
    """Puts the source's name before a message about its address, which may be the name."""
    return message if message.startswith(f"{name}: ") else f"{name}: {message}"


def _reason(error: BaseException) -> str:
    if isinstance(error, Exception):
        return reason_of(error)
    return type(error).__name__
