"""Long videos: labels for each of many windows, in one pass through the file.

One thread decodes and converts the frames that windows need, a few windows ahead; other threads run
the model. Memory does not grow with the length of the video.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from typing import NamedTuple, Self, TypeVar

import numpy as np
import numpy.typing as npt

from timesformer_runtime.input.model_input import ModelInput
from timesformer_runtime.option_checks import check_flag
from timesformer_runtime.pipeline import Pipeline
from timesformer_runtime.reading import Timed
from timesformer_runtime.results import PartResult, Ranking, Seconds, count_duplicates
from timesformer_runtime.video.limits import DecodeLimits
from timesformer_runtime.video.pixels import ConvertedFrame
from timesformer_runtime.video.playback import IndexMismatchError, Playback, PlayedFrame, play
from timesformer_runtime.video.source import Source
from timesformer_runtime.workloads.bounded_queue import BoundedQueue
from timesformer_runtime.workloads.shared_generator import SharedGenerator
from timesformer_runtime.workloads.windows import SlidingWindows, Window, WindowSettings
from timesformer_runtime.workloads.workers import Workers, check_workers

T = TypeVar("T")

_WINDOWS_AHEAD = 1  # windows that wait for the model
_WINDOWS_HELD = 3  # windows that wait, and those that the reading thread holds


@dataclasses.dataclass(frozen=True)
class Segment(PartResult):
    """The model's answer to a part of a video.

    Attributes:
        windows: Number of windows of the part; more than one only if they were merged. Their
            logits are then averaged.
    """

    windows: int


class Timeline(Iterator[Segment]):
    """The segments of a video, each as soon as the model is done with it.

    Nothing is read before the first segment is asked for. The threads end when the timeline is
    closed or deleted. Any thread may close it, also while another one waits for a segment. A
    process that is forked after the first segment gets ``ClosedError`` for the next one.

    Args:
        pipeline: The model.
        video: Path or binary file object.
        settings: Length and stride of the windows.
        ranking: How logits become a segment's labels with scores.
        merge: True joins neighbouring windows with the same first label into one segment.
        workers: How many windows the model works on at a time, on a CPU.

    Raises:
        InvalidOptionError: ``merge`` or ``workers`` is not valid.
        MissingOutputError: The model has no logits.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        video: Source,
        settings: WindowSettings,
        ranking: Ranking,
        *,
        merge: bool = False,
        workers: int = 1,
    ) -> None:
        pipeline.check_outputs(["logits"])
        check_flag("merge", merge)
        check_workers(workers)
        # The threads hold the reader, which is an object apart: they must not keep this one alive.
        self._reading = WindowReader(pipeline, video, settings, workers)
        segments = _segments(self._reading, ranking, merge=merge)
        self._segments = SharedGenerator(segments, "timeline")

    @property
    def duration(self) -> float | None:
        """The duration that the file states, in seconds.

        None before the first segment, and for a file that states none.
        """
        return self._reading.duration

    @property
    def problems(self) -> tuple[str, ...]:
        """A sentence for each problem of the file; complete after the last segment."""
        return self._reading.problems

    def __next__(self) -> Segment:
        return next(self._segments)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the reading of the video, and waits for its threads."""
        self._segments.close()


def _segments(
    reading: WindowReader, ranking: Ranking, *, merge: bool
) -> Generator[Segment, None, None]:
    with contextlib.closing(classified_windows(reading)) as classified:
        for group in _with_one_label(classified) if merge else ([window] for window in classified):
            yield segment_of(reading.pipeline, group, ranking)


def _with_one_label(windows: Iterator[ClassifiedWindow]) -> Iterator[list[ClassifiedWindow]]:
    """Groups neighbouring windows by first label; an error comes after the group before it."""
    group: list[ClassifiedWindow] = []
    try:
        for window in windows:
            if group and group[0].label != window.label:
                yield group
                group = []
            group.append(window)
    except Exception:
        if group:
            yield group
        raise
    if group:
        yield group


def segment_of(pipeline: Pipeline, group: list[ClassifiedWindow], ranking: Ranking) -> Segment:
    """Makes a segment of one window, or of several with the same label."""
    reads = [item.read for item in group]
    windows = [item.window for item in reads]
    logits = np.stack([item.logits for item in group]).mean(axis=0, dtype=np.float64)
    return Segment(
        start=windows[0].start,
        end=windows[-1].end,
        predictions=pipeline.rank(logits.astype(np.float32), ranking),
        indices=tuple(index for window in windows for index in window.indices),
        times=tuple(seconds for window in windows for seconds in window.times),
        duplicates=sum(
            count_duplicates(window.indices, pipeline.input.num_frames) for window in windows
        ),
        windows=len(windows),
        failed_packets=sum(item.failed_packets for item in reads),
        problems=tuple(dict.fromkeys(text for item in reads for text in item.problems)),
        seconds=Seconds(
            decode=sum(item.decode for item in reads),
            preprocess=sum(item.read.preprocess + item.preprocess for item in group),
            inference=sum(item.inference for item in group),
        ),
    )


def classified_windows(reading: WindowReader) -> Generator[ClassifiedWindow, None, None]:
    """Runs the model on each window, in order; a thread reads ahead."""
    runs = reading.workers if reading.pipeline.model.session.device.name == "cpu" else 1
    windows: BoundedQueue[ReadWindow] = BoundedQueue(_WINDOWS_AHEAD, drop=False)
    pool = Workers(runs, "timeline: model")
    answers: BoundedQueue[Future[ClassifiedWindow]] = BoundedQueue(runs, drop=False)
    started = _started_runs(iter(windows), reading.pipeline, pool, threading.Semaphore(runs))
    threads: list[threading.Thread] = []
    waits_for_jobs = True
    try:
        threads.append(windows.fill(reading.windows(), "timeline: reading"))
        threads.append(answers.fill(started, "timeline: feeding"))
        for answer in answers:
            yield answer.result()
    except CancelledError:
        # The interpreter ends: the pool dropped a job of this daemon thread. SystemExit ends the
        # thread without a traceback; a return would look like the end of the results.
        raise SystemExit from None
    except KeyboardInterrupt:
        waits_for_jobs = False  # reading from a slow disk or a silent pipe may take long
        raise
    finally:
        windows.close()
        answers.close()
        reading.stop()
        pool.close(wait=waits_for_jobs)
        for thread in threads if waits_for_jobs else ():
            thread.join()


def _started_runs(
    windows: Iterator[ReadWindow],
    pipeline: Pipeline,
    pool: Workers,
    free: threading.Semaphore,
) -> Generator[Future[ClassifiedWindow], None, None]:
    """Runs the model on each window; takes a window only when a worker is free for it."""

    def answer(read: ReadWindow) -> ClassifiedWindow:
        found = pipeline.predict(read.window.values, Ranking(top_k=1))
        return ClassifiedWindow(
            read.without_frames(),  # the frames of a long merged segment would not fit into memory
            found.outputs["logits"],
            found.predictions[0]["label"],
            found.preprocess,
            found.inference,
        )

    while True:
        free.acquire()
        read = next(windows, None)
        if read is None:
            return
        future = pool.start(answer, read)
        del read  # so that nothing holds the frames when the worker is done
        future.add_done_callback(lambda _: free.release())
        yield future


def decoding_threads(pipeline: Pipeline, workers: int = 1) -> int:
    """Number of threads that decode a file: all but one, which is left to the model."""
    return max(1, pipeline.model.session.threads * workers - 1)


class ReadWindow(NamedTuple):
    """A window of a file that is ready for the model.

    Attributes:
        window: The window, its frames converted.
        read_at: When the window was complete, in seconds of the monotonic clock.
        failed_packets: Number of packets since the previous window that did not decode.
        problems: A sentence for each problem of the file that is known so far.
        decode: Seconds for reading and decoding since the previous window.
        preprocess: Seconds for the conversion of frames since the previous window.
    """

    window: Window[ConvertedFrame]
    read_at: float
    failed_packets: int
    problems: tuple[str, ...]
    decode: float
    preprocess: float

    def without_frames(self) -> Self:
        """Leaves out the frames, once the model has seen them."""
        return self._replace(window=dataclasses.replace(self.window, values=()))


class ClassifiedWindow(NamedTuple):
    """A window and the model's answer to it."""

    read: ReadWindow
    logits: npt.NDArray[np.float32]
    label: str
    preprocess: float
    inference: float


class WindowReader:
    """Reads the windows of a file for a model, and measures what each of them costs.

    Args:
        pipeline: Chooses and converts the frames.
        video: Path or binary file object.
        settings: Length and stride.
        workers: How many windows the model works on at a time.

    Attributes:
        pipeline: The model.
        workers: As given.
        duration: The duration that the file states, in seconds; None before the first window, and
            for a file that states none.
        problems: A sentence for each problem of the file; complete after the last window.
    """

    def __init__(
        self, pipeline: Pipeline, video: Source, settings: WindowSettings, workers: int = 1
    ) -> None:
        self.pipeline = pipeline
        self.workers = workers
        self.duration: float | None = None
        self.problems: tuple[str, ...] = ()
        self._video = video
        self._readers = pipeline.new_readers()
        self._file = _FileReader(
            pipeline.input,
            pipeline.limits.in_reader_process().for_long_videos(),
            decoding_threads(pipeline, workers),
            settings,
            workers,
        )

    def windows(self) -> Generator[ReadWindow, None, None]:
        """Gives the windows with converted frames; the last one has all problems of the file.

        Raises:
            VideoNotFoundError: The file does not exist.
            InvalidVideoError: The file cannot be decoded as a video.
            VideoLimitError: A limit is reached.
        """
        with contextlib.closing(self._reports()) as reports:
            for window, self.duration, self.problems in reports:
                yield window

    def stop(self) -> None:
        """Ends the reading from another thread; with ``isolated`` at once, else does nothing."""
        self._readers.close()

    def _reports(self) -> Generator[_Report, None, None]:
        return self._readers.answers(
            self._file.reports, self._video, self._file.limits, threads=self._file.threads
        )


_Report = tuple[ReadWindow, float | None, tuple[str, ...]]  # a window, the duration, the problems


class _FileReader:
    """Reads the windows of a file, in this process or, after pickling, in a reader process.

    Args:
        model_input: Chooses and converts frames.
        limits: Limits on the time, memory and size of the video.
        threads: How many threads decode.
        settings: Length and stride.
        workers: How many windows the model works on at a time.
    """

    def __init__(
        self,
        model_input: ModelInput,
        limits: DecodeLimits,
        threads: int,
        settings: WindowSettings,
        workers: int,
    ) -> None:
        self.limits = limits
        self.threads = threads
        self._input = model_input
        self._settings = settings
        self._workers = workers
        self._duration: float | None = None
        self._problems: tuple[str, ...] = ()
        self._convert = Timed(model_input.convert)

    def reports(self, video: Source) -> Generator[_Report, None, None]:
        """Gives each window with the duration and problems of the file that are known so far.

        Only the last window comes with all problems.
        """
        windows = change_last(
            self._measured(video), lambda last: last._replace(problems=self._problems)
        )
        with contextlib.closing(windows):
            for window in windows:
                yield window, self._duration, self._problems

    def _measured(self, video: Source) -> Generator[ReadWindow, None, None]:
        """Gives the windows, and measures the seconds and failed packets of each of them."""
        start, failed_packets, converted = time.perf_counter(), 0, 0.0
        with play(video, threads=self.threads, limits=self.limits, with_times=True) as opened:
            self._duration = opened.duration
            for playback, window in self._windows(opened):
                converting = self._convert.seconds - converted
                reading = time.perf_counter() - start - converting
                failures = playback.failed_packets - failed_packets
                problems = playback.problems_so_far()
                now = time.monotonic()
                yield ReadWindow(window, now, failures, problems, reading, converting)
                start, failed_packets = time.perf_counter(), playback.failed_packets
                converted = self._convert.seconds

    def _windows(self, playback: Playback) -> Iterator[tuple[Playback, Window[ConvertedFrame]]]:
        """Gives the windows with their playback; decodes only the frames that the windows need.

        If the frames are not as the file's index promised, decodes the file again in full.
        """
        given = 0
        times = playback.times()
        if times and times[-1] > len(times) * self._settings.stride:
            times = None  # more windows than frames: the windows need every frame
        if times is not None:
            try:
                for window in self._windows_of(
                    playback, playback.chosen_frames(self._plan(playback, times))
                ):
                    yield playback, window
                    given += 1
            except IndexMismatchError:
                pass
            else:
                self._problems = playback.problems()
                return
        again = (
            playback.reopened(self.threads)
            if times is not None
            else contextlib.nullcontext(playback)
        )
        with again as played:
            windows = self._windows_of(played, played.frames())
            for window in itertools.islice(windows, given, None):
                yield played, window
            self._problems = played.problems()

    def _plan(self, playback: Playback, times: Sequence[float]) -> set[int]:
        """Indices of the frames that windows will choose, and of the video's last frame."""
        wanted = {len(times) - 1}
        windows: SlidingWindows[int, None] = SlidingWindows(
            self._settings,
            playback.rate,
            self._input.choose,
            wanted.add,
            playback.duration,
        )
        for number, seconds in enumerate(times):
            collections.deque(windows.push(seconds, number), maxlen=0)
        windows.finish()
        return wanted

    def _windows_of(
        self, playback: Playback, frames: Iterator[PlayedFrame]
    ) -> Iterator[Window[ConvertedFrame]]:
        rendering = self._input.rendering(self._convert)
        windows: SlidingWindows[PlayedFrame, ConvertedFrame] = SlidingWindows(
            self._settings,
            playback.rate,
            self._input.choose,
            lambda frame: frame.render(rendering),
            playback.duration,
            playback.check,
            _WINDOWS_HELD + self._workers,
        )
        for frame in frames:
            yield from windows.push(frame.seconds, frame, frame.index)
        yield from windows.finish()


def change_last(
    items: Generator[T, None, None], change: Callable[[T], T]
) -> Generator[T, None, None]:
    """Gives the items, each one step late, so that the last one can be changed.

    If the items end with an error, the waiting item comes before the error, unchanged.
    """
    waiting: list[T] = []
    with contextlib.closing(items):
        try:
            for item in items:
                yield from waiting
                waiting = [item]
        except Exception:
            yield from waiting
            raise
        yield from map(change, waiting)
