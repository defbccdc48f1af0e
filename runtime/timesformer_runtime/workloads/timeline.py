"""Long videos: a label for each of many windows, in one pass through the file.

One thread decodes and converts the frames that windows need, a few windows ahead; others run the
model. Memory does not grow with the length of the video.
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
from timesformer_runtime.pipeline import Pipeline, Timed
from timesformer_runtime.results import PartResult, Ranking, Seconds, count_duplicates
from timesformer_runtime.video.limits import DecodeLimits
from timesformer_runtime.video.pixels import ConvertedFrame
from timesformer_runtime.video.playback import IndexMismatchError, Playback, PlayedFrame, play
from timesformer_runtime.video.source import Source
from timesformer_runtime.workloads.queue import BoundedQueue
from timesformer_runtime.workloads.windows import SlidingWindows, Window, WindowSettings
from timesformer_runtime.workloads.workers import Workers, check_workers

T = TypeVar("T")

_AHEAD = 1  # windows that wait for the model
_READ = 3  # those, and what the reading thread holds


@dataclasses.dataclass(frozen=True)
class Segment(PartResult):
    """The model's answer to a part of a video.

    Attributes:
        windows: How many windows it is made of; more than one only where they were merged, and
            then their logits are averaged.
    """

    windows: int


class Timeline(Iterator[Segment]):
    """The segments of a video, each as soon as the model is done with it.

    Nothing is read before the first segment is asked for. Closing it, or forgetting it, ends its
    threads.

    Args:
        pipeline: The model.
        video: Path or binary file object.
        settings: Length and stride of the windows.
        ranking: How logits become a segment's labels with scores.
        merge: Whether windows that follow each other and have the same first label become one
            segment.
        workers: How many windows the model works on at a time, on a CPU.

    Raises:
        InvalidOptionError: ``workers`` is not valid.
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
        check_workers(workers)
        # Apart from this object: the threads must not keep it alive.
        self._reading = WindowReader(pipeline, video, settings, workers)
        self._segments = _segments(self._reading, ranking, merge=merge)

    @property
    def duration(self) -> float | None:
        """Seconds that the video says it has.

        None before the first segment, and where it does not say.
        """
        return self._reading.duration

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the file, a short sentence for each; known after the last segment."""
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
        for group in _alike(classified) if merge else ([window] for window in classified):
            yield segment_of(reading.pipeline, group, ranking)


def _alike(windows: Iterator[ClassifiedWindow]) -> Iterator[list[ClassifiedWindow]]:
    """Windows that follow each other and have the same first label; also those before an error."""
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


def segment_of(pipeline: Pipeline, alike: list[ClassifiedWindow], ranking: Ranking) -> Segment:
    """Makes a segment of one window, or of several with the same label."""
    reads = [item.read for item in alike]
    windows = [item.window for item in reads]
    logits = np.stack([item.logits for item in alike]).mean(axis=0, dtype=np.float64)
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
            preprocess=sum(item.read.preprocess + item.preprocess for item in alike),
            inference=sum(item.inference for item in alike),
        ),
    )


def classified_windows(reading: WindowReader) -> Generator[ClassifiedWindow, None, None]:
    """Runs the model on each window, in order; a thread reads ahead."""
    runs = reading.workers if reading.pipeline.model.session.device.name == "cpu" else 1
    windows: BoundedQueue[ReadWindow] = BoundedQueue(_AHEAD, drop=False)
    reader = windows.fill(reading.windows(), "timeline: reading")
    pool = Workers(runs, "timeline: model")
    answers: BoundedQueue[Future[ClassifiedWindow]] = BoundedQueue(runs, drop=False)
    begun = _begun(iter(windows), reading.pipeline, pool, threading.Semaphore(runs))
    feeder = answers.fill(begun, "timeline: feeding")
    is_patient = True
    try:
        for answer in answers:
            yield answer.result()
    except CancelledError:
        # The interpreter ends, and this is a thread that it does not wait for: it ends as well,
        # and neither prints a traceback nor takes this for the end of the results.
        raise SystemExit from None
    except KeyboardInterrupt:
        is_patient = False  # the disk may be slow, and a pipe silent
        raise
    finally:
        windows.close()
        answers.close()
        reading.stop()
        pool.close(wait=is_patient)
        if is_patient:
            feeder.join()
            reader.join()


def _begun(
    windows: Iterator[ReadWindow],
    pipeline: Pipeline,
    pool: Workers,
    free: threading.Semaphore,
) -> Generator[Future[ClassifiedWindow], None, None]:
    """Starts the model for each window once a worker is free; none is taken before."""

    def answer(read: ReadWindow) -> ClassifiedWindow:
        found = pipeline.predict(read.window.values, Ranking(top_k=1))
        return ClassifiedWindow(
            read.without_frames(),  # which a long merged segment could not hold
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
        del read  # the frames are the worker's alone
        future.add_done_callback(lambda _: free.release())
        yield future


def decoding_threads(pipeline: Pipeline, workers: int = 1) -> int:
    """How many threads decode a file while the model runs, which has the rest and often all."""
    return max(1, pipeline.model.session.threads * workers - 1)


class ReadWindow(NamedTuple):
    """A window of a file that is ready for the model.

    Attributes:
        window: The window, its frames converted.
        read_at: When its last frame was there, in seconds of the monotonic clock.
        failed_packets: Packets since the window before that did not decode.
        problems: What is known to be wrong with the file.
        decode: Seconds since the window before that reading and decoding took.
        preprocess: Seconds since the window before that converting frames took.
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
        pipeline: The model: says which frames, and what is made of them.
        video: Path or binary file object.
        settings: Length and stride.
        workers: How many windows the model works on at a time.

    Attributes:
        pipeline: The model.
        workers: As given.
        duration: Seconds that the video says it has; None before the first window, and where it
            does not say.
        problems: What is wrong with the file; known after the last window.
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
        """The windows, their frames converted; the last one with all that is wrong.

        Raises:
            VideoNotFoundError: There is no such file.
            InvalidVideoError: It cannot be decoded as a video.
            VideoLimitError: A limit is reached.
        """
        with contextlib.closing(self._reports()) as reports:
            for window, self.duration, self.problems in reports:
                yield window

    def stop(self) -> None:
        """Ends the reading from another thread, where that is possible before the next window."""
        if self._readers is not None:
            self._readers.close()

    def _reports(self) -> Generator[_Report, None, None]:
        if self._readers is None:
            return self._file.reports(self._video)
        return self._readers.answers(
            self._file.reports, self._video, self._file.limits, threads=self._file.threads
        )


_Report = tuple[ReadWindow, float | None, tuple[str, ...]]  # its duration and problems


class _FileReader:
    """Reads the windows of a file, in whichever process; it can be pickled until it is used.

    Args:
        model_input: Chooses and converts frames.
        limits: What reading may cost.
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
        """Each window with what is known of the file: its problems only with the last one."""
        windows = change_last(
            self._measured(video), lambda last: last._replace(problems=self._problems)
        )
        with contextlib.closing(windows):
            for window in windows:
                yield window, self._duration, self._problems

    def _measured(self, video: Source) -> Generator[ReadWindow, None, None]:
        """The windows, and what each of them cost."""
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
        """The windows, and what plays their frames; no more is decoded than they need."""
        given = 0
        times = playback.times()
        if times and times[-1] > len(times) * self._settings.stride:
            times = None  # more windows than frames: they show them all
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
        """The frames that windows will choose, and the last one, with which the video ends."""
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
            _READ + self._workers,
        )
        for frame in frames:
            yield from windows.push(frame.seconds, frame, frame.index)
        yield from windows.finish()


def change_last(
    items: Generator[T, None, None], change: Callable[[T], T]
) -> Generator[T, None, None]:
    """Gives each item once the next one is there, and the last one changed.

    Where an error ends the items, the one that waited comes before it, unchanged.
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
