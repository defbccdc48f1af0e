"""Live streams: the newest complete window is classified, again and again.

One thread reads and decodes, another converts the frames that windows need, and the caller's thread
runs the model. Frames and windows for which a thread is too slow are dropped and counted. For a
file, the results are those of its timeline.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import threading
import time
from collections.abc import Callable, Generator, Iterable
from typing import Any

from timesformer_runtime.pipeline import Pipeline
from timesformer_runtime.results import Answer, PartResult, Ranking, Seconds, count_duplicates
from timesformer_runtime.source_names import shown
from timesformer_runtime.video.live.source import LiveFrame
from timesformer_runtime.workloads.bounded_queue import BoundedQueue
from timesformer_runtime.workloads.shared_generator import SharedGenerator
from timesformer_runtime.workloads.stream_sources import (
    LiveSettings,
    SourceFrames,
    check_file,
    check_source,
    is_live,
    notify_of_problems,
    source_frames,
)
from timesformer_runtime.workloads.stream_windows import LiveWindow, LiveWindows
from timesformer_runtime.workloads.timeline import (
    WindowReader,
    classified_windows,
    segment_of,
)
from timesformer_runtime.workloads.windows import WindowSettings

_MAX_WAITING_BYTES = 1 << 26  # of frames; enough for the bursts in which networks deliver them

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class LiveResult(PartResult):
    """The model's answer to one window of a stream.

    Attributes:
        latency: Seconds from the arrival of the window's last frame to this result.
        dropped_frames: Number of frames since the previous result that came too fast to be used.
        skipped_windows: Number of windows since the previous result that were skipped for newer
            ones.
        reconnects: How often the source was lost and found again so far.
    """

    latency: float
    dropped_frames: int
    skipped_windows: int
    reconnects: int

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON types."""
        return {**super().to_dict(), "latency": round(self.latency, 6)}


def stream(
    pipeline: Pipeline,
    source: str | os.PathLike[str],
    windows: WindowSettings,
    settings: LiveSettings,
    ranking: Ranking,
    notify: Callable[[str], None] | None = None,
) -> Generator[LiveResult, None, None]:
    """Classifies the windows of a stream as they come; see ``VideoClassifier.stream``."""
    results = _results(pipeline, source, windows, settings, ranking, notify or _logger.warning)
    return SharedGenerator(results, "stream")


def _results(
    pipeline: Pipeline,
    source: str | os.PathLike[str],
    windows: WindowSettings,
    settings: LiveSettings,
    ranking: Ranking,
    notify: Callable[[str], None],
) -> Generator[LiveResult, None, None]:
    """Checks the options, and chooses how to read the source."""
    pipeline.check_outputs(["logits"])
    check_source(source)
    live = is_live(source, settings.format)
    if not live and not settings.drop:
        check_file(source, settings)
        return _replay(pipeline, source, windows, ranking, notify)
    frames = source_frames(pipeline, source, settings, notify)
    drop = settings.drop is not False
    newest = _NewestWindows(pipeline, windows, frames, drop=drop)
    name, length = shown(os.fsdecode(source)), windows.length
    return _told_if_empty(
        newest.results(ranking),
        lambda: notify(
            f"{name}: ended before a window of {length:g} seconds was complete; give a shorter "
            "`window`"
        ),
    )


def _told_if_empty(
    results: Generator[LiveResult, None, None], tell: Callable[[], None]
) -> Generator[LiveResult, None, None]:
    """Gives results, and calls ``tell`` at the end where there were none."""
    empty = True
    with contextlib.closing(results):
        for result in results:
            empty = False
            yield result
    if empty:
        tell()


def _replay(
    pipeline: Pipeline,
    source: str | os.PathLike[str],
    windows: WindowSettings,
    ranking: Ranking,
    notify: Callable[[str], None],
) -> Generator[LiveResult, None, None]:
    """Gives a file's timeline as the results of a stream."""
    reading = WindowReader(pipeline, source, windows)
    with contextlib.closing(classified_windows(reading)) as classified:
        for window in classified:
            segment = segment_of(pipeline, [window], ranking)
            values = {
                field.name: getattr(segment, field.name) for field in dataclasses.fields(PartResult)
            }
            latency = time.monotonic() - window.read.read_at
            yield LiveResult(
                **values, latency=latency, dropped_frames=0, skipped_windows=0, reconnects=0
            )
    notify_of_problems(source, reading.problems, notify)


class _NewestWindows:
    """Reads a source in one thread, makes windows in another, and classifies the newest ones.

    Args:
        pipeline: The model.
        settings: Length and stride of the windows.
        frames: How to read the source.
        drop: True to drop the oldest frames and windows where a thread is too slow for them.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        settings: WindowSettings,
        frames: SourceFrames,
        *,
        drop: bool,
    ) -> None:
        self._pipeline = pipeline
        self._read = frames.read
        self._windows = LiveWindows(pipeline, settings, frames.check)
        self._frames: BoundedQueue[LiveFrame] = BoundedQueue(
            _MAX_WAITING_BYTES, drop=drop, size=lambda frame: frame.size
        )
        self._ready: BoundedQueue[LiveWindow] = BoundedQueue(1, drop=drop)

    def results(self, ranking: Ranking) -> Generator[LiveResult, None, None]:
        """Gives the results; reads nothing before the first one is asked for."""
        frames, ready = self._frames, self._ready
        threads: list[threading.Thread] = []
        try:
            threads.append(frames.fill(self._read(frames.closed), "stream: reading"))
            threads.append(ready.fill(self._windows.of(frames), "stream: preparing"))
            yield from results_of(self._pipeline, ready, ranking)
        except KeyboardInterrupt:
            threads.clear()  # do not wait for the network: the threads end within the timeout
            raise
        finally:
            ready.close()
            frames.close()
            for thread in threads:
                thread.join()


def results_of(
    pipeline: Pipeline,
    ready: Iterable[LiveWindow],
    ranking: Ranking,
) -> Generator[LiveResult, None, None]:
    """Classifies the ready windows; counts the windows and frames dropped between them."""
    results = WindowResults(pipeline.input.num_frames)
    for item in ready:
        yield results.of(item, pipeline.predict(item.window.values, ranking))


class WindowResults:
    """Makes results of windows, with what happened since the window before.

    Args:
        num_frames: Number of frames of a clip.
    """

    def __init__(self, num_frames: int) -> None:
        self._num_frames = num_frames
        self._before: LiveWindow | None = None

    def of(self, item: LiveWindow, answer: Answer) -> LiveResult:
        """Makes the result of the next window and the model's answer to it."""
        before, self._before = self._before, item
        window, newest = item.window, item.newest
        skipped = item.number - (before.number + 1 if before else 0)
        unseen = max(0, item.first - (before.stop if before else 0)) if skipped else 0
        return LiveResult(
            start=window.start + item.offset,
            end=window.end + item.offset,
            predictions=answer.predictions,
            indices=window.indices,
            times=tuple(seconds + item.offset for seconds in window.times),
            duplicates=count_duplicates(window.indices, self._num_frames),
            latency=time.monotonic() - newest.arrived,
            dropped_frames=unseen + item.missing - (before.missing if before else 0),
            skipped_windows=skipped,
            failed_packets=newest.failed_packets - (before.newest.failed_packets if before else 0),
            problems=newest.problems,
            seconds=Seconds(
                decode=item.decoding - (before.decoding if before else 0.0),
                preprocess=item.converting
                - (before.converting if before else 0.0)
                + answer.preprocess,
                inference=answer.inference,
            ),
            reconnects=newest.connection.number,
        )
