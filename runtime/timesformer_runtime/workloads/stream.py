"""Live streams: the newest complete window is classified, again and again.

One thread reads and decodes, another converts the frames that windows need, and the caller's thread
runs the model. Frames and windows for which a thread is too slow are dropped and counted. For a
file, the results are those of its timeline.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import math
import os
import stat
import threading
import time
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any, TypeAlias

from timesformer_runtime.errors import InvalidOptionError, InvalidVideoError
from timesformer_runtime.pipeline import Pipeline
from timesformer_runtime.results import PartResult, Ranking, Seconds, count_duplicates
from timesformer_runtime.source_names import shown
from timesformer_runtime.video.limits import Watch
from timesformer_runtime.video.live.address import is_url, live_address
from timesformer_runtime.video.live.source import Connection, LiveFrame, LiveSource
from timesformer_runtime.video.playback import play
from timesformer_runtime.workloads.bounded_queue import BoundedQueue
from timesformer_runtime.workloads.shared_generator import SharedGenerator
from timesformer_runtime.workloads.stream_windows import LiveWindow, LiveWindows
from timesformer_runtime.workloads.timeline import (
    WindowReader,
    classified_windows,
    decoding_threads,
    segment_of,
)
from timesformer_runtime.workloads.windows import WindowSettings

_MAX_WAITING_BYTES = 1 << 26  # of frames; enough for the bursts in which networks deliver them
_TIMEOUT, _ATTEMPTS = 10.0, 10  # the defaults, in seconds and in connections
_LIVE_ONLY = ("timeout", "reconnect", "rtsp_transport")

_Read: TypeAlias = Callable[[threading.Event], Generator[LiveFrame, None, None]]

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class LiveSettings:
    """Options for reading a source.

    Attributes:
        timeout: Seconds without a frame after which the source counts as lost; by default 10.
        reconnect: How often in a row to try to connect again, after 0.5 seconds, 1, 2, ... up to
            30; by default 10. With 0 the stream ends where the source does.
        drop: True skips windows that the model is too slow for, and classifies the newest one. By
            default True for live sources, and False for files.
        format: FFmpeg's name of a device or format, such as ``v4l2``, ``hls`` or ``mjpeg``.
        rtsp_transport: ``tcp`` (the default) or ``udp``.

    Raises:
        InvalidOptionError: A value is not allowed.
    """

    timeout: float | None = None
    reconnect: int | None = None
    drop: bool | None = None
    format: str | None = None
    rtsp_transport: str | None = None

    def __post_init__(self) -> None:
        timeout, reconnect = self.timeout, self.reconnect
        if timeout is not None and not (type(timeout) in {int, float} and 0 < timeout < math.inf):
            raise InvalidOptionError(
                f"`timeout` is {timeout!r}; it must be a number of seconds above 0"
            )
        if reconnect is not None and (type(reconnect) is not int or reconnect < 0):
            raise InvalidOptionError(
                f"`reconnect` is {reconnect!r}; it must be an integer of at least 0"
            )
        if not isinstance(self.drop, bool | None):
            raise InvalidOptionError(f"`drop` is {self.drop!r}; it must be True or False")


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


def is_live(source: str | os.PathLike[str], format: str | None) -> bool:  # noqa: A002
    """True for a URL or a device; False for a file, which can be replayed."""
    return is_url(source) or format is not None


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
    if not isinstance(source, str | os.PathLike):
        raise InvalidVideoError(
            f"a stream cannot be a {type(source).__name__}; give a URL, a device or a path"
        )
    if not os.fspath(source):
        raise InvalidVideoError("the source is empty; give a URL, a device or a path")
    if is_live(source, settings.format):
        if pipeline.limits.isolated:
            raise InvalidOptionError("`isolated` is for files; this source is live: leave it out")
        frames = _connect(pipeline, source, settings, notify).frames
        watch = Watch("the stream", pipeline.limits)
        drop = settings.drop is not False
        newest = _NewestWindows(pipeline, windows, frames, drop=drop, check=watch.check_bytes)
        return newest.results(ranking)
    _check_file(source, settings)
    if not settings.drop:
        return _replay(pipeline, source, windows, ranking, notify)
    if pipeline.limits.isolated:
        raise InvalidOptionError("`isolated` and `drop` do not go together; leave out one of them")
    played = functools.partial(_played_frames, pipeline, source, notify)
    check = _check_of_file(pipeline, source)
    newest = _NewestWindows(pipeline, windows, played, drop=True, check=check)
    return newest.results(ranking)


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
    _notify_of_problems(source, reading.problems, notify)


class _NewestWindows:
    """Reads a source in one thread, makes windows in another, and classifies the newest ones.

    Args:
        pipeline: The model.
        settings: Length and stride of the windows.
        read: Gives the source's frames until its event is set.
        drop: True to drop the oldest frames and windows where a thread is too slow for them.
        check: Called with the number of bytes that held frames take; may raise.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        settings: WindowSettings,
        read: _Read,
        *,
        drop: bool,
        check: Callable[[int], None],
    ) -> None:
        self._pipeline = pipeline
        self._read = read
        self._windows = LiveWindows(pipeline, settings, check)
        self._frames: BoundedQueue[LiveFrame] = BoundedQueue(
            _MAX_WAITING_BYTES, drop=drop, size=lambda frame: frame.size
        )
        self._ready: BoundedQueue[LiveWindow] = BoundedQueue(1, drop=drop)

    def results(self, ranking: Ranking) -> Generator[LiveResult, None, None]:
        """Gives the results; reads nothing before the first one is asked for."""
        frames, ready = self._frames, self._ready
        threads = [
            frames.fill(self._read(frames.closed), "stream: reading"),
            ready.fill(self._windows.of(frames), "stream: preparing"),
        ]
        try:
            yield from results_of(self._pipeline, ready, ranking)
        except KeyboardInterrupt:
            threads.clear()  # do not wait for the network: the threads end within the timeout
            raise
        finally:
            ready.close()
            frames.close()
            for thread in threads:
                thread.join()


def _check_of_file(pipeline: Pipeline, source: str | os.PathLike[str]) -> Callable[[int], None]:
    """Makes a check of the held bytes and the time.

    Checking the time at each packet is not enough: frames may come long after the last packet.
    """
    watch = Watch(shown(os.fsdecode(source)), pipeline.limits.for_long_videos())

    def check(held: int) -> None:
        watch.check_bytes(held)
        watch.check_time()

    return check


def _connect(
    pipeline: Pipeline,
    source: str | os.PathLike[str],
    settings: LiveSettings,
    notify: Callable[[str], None],
) -> LiveSource:
    address = live_address(source, format=settings.format, rtsp_transport=settings.rtsp_transport)
    return LiveSource(
        address,
        timeout=_TIMEOUT if settings.timeout is None else settings.timeout,
        reconnect=_ATTEMPTS if settings.reconnect is None else settings.reconnect,
        notify=notify,
        max_pixels=pipeline.limits.max_pixels,
    )


def _check_file(source: str | os.PathLike[str], settings: LiveSettings) -> None:
    """Makes sure that a source that is not live is a file, and that all settings are for files.

    Raises:
        InvalidVideoError: The source is a device, a pipe or a folder.
        InvalidOptionError: A setting is for live sources.
    """
    source_name = shown(os.fsdecode(source))
    if _is_special(source):
        raise InvalidVideoError(
            f"{source_name} is not a video file; give one, a URL, or a device with its `format`, "
            "such as v4l2"
        )
    for name in _LIVE_ONLY:
        if getattr(settings, name) is not None:
            raise InvalidOptionError(
                f"`{name}` is for live sources, and {source_name} is a file; leave it out"
            )


def _played_frames(
    pipeline: Pipeline,
    source: str | os.PathLike[str],
    notify: Callable[[str], None],
    _: threading.Event,
) -> Generator[LiveFrame, None, None]:
    """Plays a file as if it were live: gives each frame as soon as the consumer wants it."""
    limits = pipeline.limits.for_long_videos()
    start, decoding = time.perf_counter(), 0.0
    with play(source, threads=decoding_threads(pipeline), limits=limits) as video:
        connection = Connection(0, video.rate, video.duration)
        for frame in video.frames():
            decoding += time.perf_counter() - start
            yield LiveFrame(
                av_frame=frame.av_frame,
                sample_aspect_ratio=frame.sample_aspect_ratio,
                seconds=frame.seconds,
                arrived=time.monotonic(),
                number=frame.index,
                failed_packets=video.failed_packets,
                decode_seconds=decoding,
                connection=connection,
                problems=video.problems_so_far(),
            )
            start = time.perf_counter()
        _notify_of_problems(source, video.problems(), notify)


def _notify_of_problems(
    source: str | os.PathLike[str], problems: tuple[str, ...], notify: Callable[[str], None]
) -> None:
    if problems:
        notify(f"{shown(os.fsdecode(source))}: damaged: {'; '.join(problems)}")


def _is_special(path: str | os.PathLike[str]) -> bool:
    """True for a path that exists, but is a device, a pipe or a folder."""
    try:
        return not stat.S_ISREG(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return False  # opening the path raises the error


def results_of(
    pipeline: Pipeline,
    ready: Iterable[LiveWindow],
    ranking: Ranking,
) -> Generator[LiveResult, None, None]:
    """Classifies the ready windows; counts the windows and frames dropped between them."""
    before: LiveWindow | None = None
    for item in ready:
        window, newest = item.window, item.newest
        answer = pipeline.predict(window.values, ranking)
        skipped = item.number - (before.number + 1 if before else 0)
        unseen = max(0, item.first - (before.stop if before else 0)) if skipped else 0
        yield LiveResult(
            start=window.start + item.offset,
            end=window.end + item.offset,
            predictions=answer.predictions,
            indices=window.indices,
            times=tuple(seconds + item.offset for seconds in window.times),
            duplicates=count_duplicates(window.indices, pipeline.input.num_frames),
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
        before = item
