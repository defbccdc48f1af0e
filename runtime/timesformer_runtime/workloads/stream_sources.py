"""The sources of streams: live ones, and files that are played as if they were live."""

from __future__ import annotations

import dataclasses
import functools
import os
import stat
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import NamedTuple, TypeAlias

from timesformer_runtime.errors import InvalidOptionError, InvalidVideoError, quoted
from timesformer_runtime.pipeline import Pipeline
from timesformer_runtime.source_names import shown
from timesformer_runtime.video.limits import Watch
from timesformer_runtime.video.live.address import is_url, live_address
from timesformer_runtime.video.live.source import Connection, LiveFrame, LiveSource
from timesformer_runtime.video.playback import play
from timesformer_runtime.workloads.timeline import decoding_threads

TIMEOUT = 10.0  # seconds; the default
_LONGEST_TIMEOUT = 86_400  # seconds
_ATTEMPTS = 10  # to connect again; the default
_LIVE_ONLY = ("timeout", "reconnect", "rtsp_transport", "hardware")

ReadFrames: TypeAlias = Callable[[threading.Event], Generator[LiveFrame, None, None]]


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
        hardware: FFmpeg's name of the hardware that decodes, such as ``cuda`` or ``vaapi``; None
            to decode on the CPU.

    Raises:
        InvalidOptionError: A value is not allowed.
    """

    timeout: float | None = None
    reconnect: int | None = None
    drop: bool | None = None
    format: str | None = None
    rtsp_transport: str | None = None
    hardware: str | None = None

    def __post_init__(self) -> None:
        reconnect = self.reconnect
        if self.timeout is not None:
            check_timeout("`timeout`", self.timeout)
        if reconnect is not None and (type(reconnect) is not int or reconnect < 0):
            raise InvalidOptionError(
                f"`reconnect` is {quoted(reconnect)}; it must be an integer of at least 0"
            )
        if not isinstance(self.drop, bool | None):
            raise InvalidOptionError(f"`drop` is {quoted(self.drop)}; it must be true or false")


def check_timeout(name: str, seconds: float) -> None:
    """Checks a time limit of the network.

    Args:
        name: The option, for the error.
        seconds: Its value.

    Raises:
        InvalidOptionError: It is not a number above 0, or is longer than a day.
    """
    if not (type(seconds) in {int, float} and 0 < seconds <= _LONGEST_TIMEOUT):
        raise InvalidOptionError(
            f"{name} is {quoted(seconds)}; it must be a number of seconds above 0, and at most "
            f"{_LONGEST_TIMEOUT}"
        )


def is_live(source: str | os.PathLike[str], format: str | None) -> bool:  # noqa: A002
    """True for a URL or a device; False for a file, which can be replayed."""
    return is_url(source) or format is not None


class SourceFrames(NamedTuple):
    """How to read a source, live or played like a live one.

    Attributes:
        read: Gives the source's frames until the event that it gets is set.
        check: To be called with the number of bytes that held frames take; may raise.
    """

    read: ReadFrames
    check: Callable[[int], None]


def check_source(source: object) -> None:
    """Makes sure that a source is a name.

    Raises:
        InvalidVideoError: The source is not a string or path, or it is empty.
    """
    if not isinstance(source, str | os.PathLike):
        raise InvalidVideoError(
            f"a stream cannot be a {type(source).__name__}; give a URL, a device or a path"
        )
    if not os.fspath(source):
        raise InvalidVideoError("the source is empty; give a URL, a device or a path")


def source_frames(
    pipeline: Pipeline,
    source: str | os.PathLike[str],
    settings: LiveSettings,
    notify: Callable[[str], None],
    *,
    endless: bool = False,
) -> SourceFrames:
    """Finds out how to read a source; connects to nothing.

    Args:
        pipeline: Has the limits.
        source: A URL, a device with its format, or a path.
        settings: Options for reading.
        notify: Called with one sentence when the source is lost, and when it is connected again.
        endless: True to try to connect without end, also the first time, where ``settings`` do not
            say how often.

    Raises:
        InvalidVideoError: The source cannot be a stream.
        InvalidOptionError: An option does not apply to this source.
    """
    live = is_live(source, settings.format)
    if not live:
        check_file(source, settings)
    if pipeline.limits.isolated:
        remedy = (
            "`isolated` is for files; this source is live: leave it out"
            if live
            else "`isolated` and `drop` do not go together; leave out one of them"
        )
        raise InvalidOptionError(remedy)
    if not live:
        read = functools.partial(_played_frames, pipeline, source, notify)
        return SourceFrames(read, _check_of_file(pipeline, source))
    address = live_address(source, format=settings.format, rtsp_transport=settings.rtsp_transport)
    attempts = None if endless else _ATTEMPTS
    frames = LiveSource(
        address,
        timeout=TIMEOUT if settings.timeout is None else settings.timeout,
        reconnect=attempts if settings.reconnect is None else settings.reconnect,
        notify=notify,
        max_pixels=pipeline.limits.max_pixels,
        hardware=settings.hardware,
    ).frames
    return SourceFrames(frames, Watch("the stream", pipeline.limits).check_bytes)


def check_file(source: str | os.PathLike[str], settings: LiveSettings) -> None:
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


def _check_of_file(pipeline: Pipeline, source: str | os.PathLike[str]) -> Callable[[int], None]:
    """Makes a check of the held bytes and the time.

    Checking the time at each packet is not enough: frames may come long after the last packet.
    """
    watch = Watch(shown(os.fsdecode(source)), pipeline.limits.for_long_videos())

    def check(held: int) -> None:
        watch.check_bytes(held)
        watch.check_time()

    return check


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
        notify_of_problems(source, video.problems(), notify)


def notify_of_problems(
    source: str | os.PathLike[str], problems: tuple[str, ...], notify: Callable[[str], None]
) -> None:
    """Tells the problems of a file, if it has any."""
    if problems:
        notify(f"{shown(os.fsdecode(source))}: damaged: {'; '.join(problems)}")


def _is_special(path: str | os.PathLike[str]) -> bool:
    """True for a path that exists, but is a device, a pipe or a folder."""
    try:
        return not stat.S_ISREG(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return False  # opening the path raises the error
