"""Live streams: the newest complete window is classified, again and again.

One thread reads and decodes, one converts the frames that windows need, and the caller's runs the
model. What a later step cannot keep up with is dropped before it, and counted; files are replayed
without drops.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import stat
import threading
import time
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any, TypeAlias

from timesformer_runtime.channel import Channel
from timesformer_runtime.errors import InvalidOptionError, InvalidVideoError
from timesformer_runtime.live_windows import ReadyWindow, Windowing
from timesformer_runtime.pipeline import Pipeline
from timesformer_runtime.results import PartResult, Seconds, count_duplicates
from timesformer_runtime.source_names import shown
from timesformer_runtime.timeline import decoding_threads
from timesformer_runtime.video.limits import Watch
from timesformer_runtime.video.live_address import is_url, live_address
from timesformer_runtime.video.live_source import Connection, LiveFrame, LiveSource
from timesformer_runtime.video.playback import play
from timesformer_runtime.windows import WindowSettings

_WAITING_FRAMES = 1 << 26  # bytes; enough for the bursts in which networks deliver
_TIMEOUT, _ATTEMPTS = 10.0, 10  # unless something else is asked for
_LIVE_ONLY = ("timeout", "reconnect", "rtsp_transport")

_Read: TypeAlias = Callable[[threading.Event], Generator[LiveFrame, None, None]]

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class LiveSettings:
    """How a source is read.

    Attributes:
        timeout: After how many seconds without a frame it counts as lost; by default 10.
        reconnect: How often in a row to try to connect again, after 0.5 seconds, 1, 2, ... up to
            30; by default 10. With 0 the stream ends where the source does.
        drop: Whether only the newest window counts when the model cannot keep up. By default so
            for live sources, and not for files.
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
                f"timeout is {timeout!r}; it must be a number of seconds above 0"
            )
        if reconnect is not None and (type(reconnect) is not int or reconnect < 0):
            raise InvalidOptionError(
                f"reconnect is {reconnect!r}; it must be an integer of at least 0"
            )
        if not isinstance(self.drop, bool | None):
            raise InvalidOptionError(f"drop is {self.drop!r}; it must be True or False")


@dataclasses.dataclass(frozen=True)
class LiveResult(PartResult):
    """What the model says to one window of a stream.

    Attributes:
        latency: Seconds from the arrival of the window's last frame to this result.
        dropped_frames: Frames since the result before that came too fast to be used.
        skipped_windows: Windows since the result before that were replaced by newer ones.
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
    """Whether this is a URL or a device, and not a file that can be replayed."""
    return is_url(source) or format is not None


def stream(
    pipeline: Pipeline,
    source: str | os.PathLike[str],
    windows: WindowSettings,
    settings: LiveSettings,
    *,
    top_k: int | None = 5,
    function_to_apply: str | None = None,
    notify: Callable[[str], None] | None = None,
) -> Generator[LiveResult, None, None]:
    """Classifies the windows of a stream as they come; see ``VideoClassifier.stream``."""
    if not isinstance(source, str | os.PathLike):
        raise InvalidVideoError(
            f"a stream cannot be a {type(source).__name__}; give a URL, a device or a path"
        )
    if not os.fspath(source):
        raise InvalidVideoError("the source is empty; give a URL, a device or a path")
    notify = notify or _logger.warning
    live = is_live(source, settings.format)
    drop = live if settings.drop is None else settings.drop
    with_last = not live and not drop
    read: _Read
    problems = None
    if live:
        read = _connect(pipeline, source, settings, notify).frames
    else:
        replay = _Replay(pipeline, source, settings, notify)
        read = replay.frames
        problems = replay.problems if with_last else None
    frames: Channel[LiveFrame] = Channel(_WAITING_FRAMES, drop=drop, size=lambda frame: frame.size)
    ready: Channel[ReadyWindow] = Channel(1, drop=drop)

    def results() -> Generator[LiveResult, None, None]:
        check = _check_of_live(pipeline) if live else _check_of_file(pipeline, source)
        windowing = Windowing(
            pipeline, windows, with_last=with_last, check=check, problems=problems
        )
        threads = [
            frames.fill(read(frames.closed), "stream: reading"),
            ready.fill(windowing.windows(frames), "stream: preparing"),
        ]
        try:
            yield from results_of(pipeline, ready, top_k, function_to_apply)
        except KeyboardInterrupt:
            threads.clear()  # nobody waits for the network: they end within the timeout, or at exit
            raise
        finally:
            ready.close()
            frames.close()
            for thread in threads:
                thread.join()

    return results()


def _check_of_live(pipeline: Pipeline) -> Callable[[int], None]:
    """Checks how many bytes are held of the frames."""
    return Watch("the stream", pipeline.limits).check_bytes


def _check_of_file(pipeline: Pipeline, source: str | os.PathLike[str]) -> Callable[[int], None]:
    """The same, and the time: all packets may be read long before the model is done."""
    watch = Watch(shown(os.fsdecode(source)), pipeline.limits.for_long_videos())

    def check(held: int) -> None:
        watch.check_bytes(held)
        watch.seconds_left()

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


class _Replay:
    """A file in place of a live source.

    Args:
        pipeline: Limits it, and leaves threads for its decoding.
        source: Its path.
        settings: None of them may be for live sources only.
        notify: Is told what is wrong with it, at its end.

    Raises:
        InvalidVideoError: It is no file.
        InvalidOptionError: A setting is for live sources.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        source: str | os.PathLike[str],
        settings: LiveSettings,
        notify: Callable[[str], None],
    ) -> None:
        self._name = shown(os.fsdecode(source))
        if _is_special(source):
            raise InvalidVideoError(
                f"{self._name} is not a video file; give one, a URL, or a device with its "
                "format, such as v4l2"
            )
        for name in _LIVE_ONLY:
            if getattr(settings, name) is not None:
                raise InvalidOptionError(
                    f"{name} is for live sources, and {self._name} is a file; leave it out"
                )
        self._pipeline = pipeline
        self._source = source
        self._notify = notify
        self._problems: tuple[str, ...] = ()

    def problems(self) -> tuple[str, ...]:
        """What is wrong with the file; known after the last frame."""
        return self._problems

    def frames(self, _: threading.Event) -> Generator[LiveFrame, None, None]:
        """Its frames, each as soon as it is wanted."""
        limits = self._pipeline.limits.for_long_videos()
        threads = decoding_threads(self._pipeline)  # as timeline: damaged files depend on it
        start, decoding = time.perf_counter(), 0.0
        with play(self._source, threads=threads, limits=limits) as video:
            connection = Connection(0, video.rate, video.duration)
            for frame in video.frames():
                decoding += time.perf_counter() - start
                yield LiveFrame(
                    picture=frame.picture,
                    pixel_shape=frame.pixel_shape,
                    seconds=frame.seconds,
                    arrived=time.monotonic(),
                    number=frame.index,
                    failed_packets=video.failed_packets,
                    decoding=decoding,
                    connection=connection,
                    problems=video.problems_so_far(),
                )
                start = time.perf_counter()
            self._problems = video.problems()
        if self._problems:
            self._notify(f"{self._name}: damaged: {'; '.join(self._problems)}")


def _is_special(path: str | os.PathLike[str]) -> bool:
    """Whether it is there, but is a device, a pipe or a folder."""
    try:
        return not stat.S_ISREG(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return False  # whoever opens it says what is wrong


def results_of(
    pipeline: Pipeline,
    ready: Iterable[ReadyWindow],
    top_k: int | None,
    function_to_apply: str | None,
) -> Generator[LiveResult, None, None]:
    """Classifies the windows that were not skipped."""
    before: ReadyWindow | None = None
    for item in ready:
        window, newest = item.window, item.newest
        answer = pipeline.predict(window.values, top_k, function_to_apply)
        skipped = item.number - (before.number + 1 if before else 0)
        unseen = max(0, item.first - (before.stop if before else 0)) if skipped else 0
        yield LiveResult(
            start=window.start + item.offset,
            end=window.end + item.offset,
            predictions=answer.predictions,
            indices=window.indices,
            times=tuple(seconds + item.offset for seconds in window.times),
            duplicates=count_duplicates(window.indices, pipeline.num_frames),
            latency=time.monotonic() - newest.arrived,
            dropped_frames=unseen + item.missing - (before.missing if before else 0),
            skipped_windows=skipped,
            failed_packets=newest.failed_packets - (before.newest.failed_packets if before else 0),
            problems=item.problems,
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
