"""Finds videos: paths, file objects and pipes become something that can be opened again."""

from __future__ import annotations

import contextlib
import io
import os
import select
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from timesformer_runtime.errors import (
    InvalidOptionError,
    InvalidVideoError,
    TimesformerError,
    VideoNotFoundError,
    unreadable,
)
from timesformer_runtime.source_names import shown
from timesformer_runtime.video.file import SeekableFile, VideoFile
from timesformer_runtime.video.file_objects import CheckedFile, checked_bytes
from timesformer_runtime.video.guard.mp4_tables import check_tables
from timesformer_runtime.video.limits import DecodeLimits, Watch
from timesformer_runtime.video.opening import READABLE

_CHUNK = 1 << 20  # bytes of a pipe that are copied at a time
_LONGEST_WAIT = 3600.0  # seconds; then it waits again
_PAUSE = 0.01  # seconds until something may be there again

Source = str | os.PathLike[str] | BinaryIO


@contextlib.contextmanager
def locate(source: Source, limits: DecodeLimits | None = None) -> Iterator[VideoFile]:
    """Finds a video and makes sure that it can be opened again while the context lasts.

    Args:
        source: A path, or a binary file object. One that can seek is read from its beginning;
            the rest of one that cannot, and of a pipe, is copied to a temporary file.
        limits: What reading it may cost; the time counts from here. A pipe that is named, and an
            unbuffered file object, are not waited for any longer than that; other file objects
            whose ``read`` does not return are.

    Raises:
        VideoNotFoundError: There is no such file.
        InvalidVideoError: It is a URL, a folder, a device, empty, cannot be read or copied, or no
            path or file object.
        VideoLimitError: Copying a pipe takes too long, or it has too much to be copied; or the
            file announces far more packets than the limit.
        InvalidOptionError: The limits ask for another process, and this one would read it.
    """
    if limits is not None and limits.isolated:
        raise InvalidOptionError(
            "isolated is True; only a VideoClassifier reads videos in another process: leave it out"
        )
    with acquired(source, limits) as video_file:
        try:
            check_tables(video_file)
        except OSError as error:
            raise unreadable(video_file.name, error) from error
        yield video_file


@contextlib.contextmanager
def acquired(source: Source, limits: DecodeLimits | None = None) -> Iterator[VideoFile]:
    """Finds a video, but looks at nothing that is in it; see ``locate``.

    Raises:
        VideoNotFoundError: As for ``locate``.
        InvalidVideoError: As for ``locate``.
        VideoLimitError: Copying a pipe takes too long, or it has too much to be copied.
    """
    name = _name(source)  # for messages
    watch = Watch(name, limits or DecodeLimits())
    try:
        target, resources = _acquire(source, name, watch)
    except TimesformerError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a closed file object
        raise unreadable(name, error) from error
    with resources:
        yield VideoFile(name, target, watch)


def _name(source: Source) -> str:
    if isinstance(source, str | os.PathLike):
        name = os.fsdecode(source)
        if not name:
            raise InvalidVideoError("the path of a video is empty; give a file")
        return shown(name)
    if isinstance(source, io.TextIOBase):
        raise InvalidVideoError("the file object was opened in text mode; open it with mode 'rb'")
    if hasattr(source, "read"):
        return shown(str(getattr(source, "name", "the file object")))
    raise InvalidVideoError(
        f"a video cannot be a {type(source).__name__}; give a path or a binary file object"
    )


def _acquire(
    source: Source, name: str, watch: Watch
) -> tuple[str | SeekableFile, contextlib.ExitStack]:
    """Makes a source readable again and again; also gives what to close after that."""
    with contextlib.ExitStack() as stack:
        target: str | SeekableFile
        if not isinstance(source, str | os.PathLike):
            target = _seekable(source, name, stack, watch)
        elif _is_regular_file(os.fsdecode(source), name):
            # An absolute path cannot be taken for one of FFmpeg's own prefixes ("concat:").
            target = str(Path(os.fsdecode(source)).absolute())
        else:
            with _opened_pipe(os.fsdecode(source)) as pipe:
                _refuse_endless_device(pipe, name)
                target = copied(pipe, name, stack, watch)
        return target, stack.pop_all()


def _is_regular_file(path: str, name: str) -> bool:
    if "://" in path:
        raise InvalidVideoError(f"{name} is a URL; download it first and give the file's path")
    try:
        status = Path(path).stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        cause: Exception | None = error if name == path else None  # its traceback has the path
        raise VideoNotFoundError(f"{name}: there is no such file; check the path") from cause
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        cause = error if name == path else None
        raise InvalidVideoError(f"{name!r} is not a path that can be read: {reason}") from cause
    mode = status.st_mode
    if stat.S_ISDIR(mode):
        if not os.access(path, os.R_OK | os.X_OK):
            raise InvalidVideoError(
                f"{name} is a folder that cannot be read; check its permissions"
            )
        raise InvalidVideoError(f"{name} is a folder; give the path of a video file in it")
    if stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
        raise InvalidVideoError(f"{name} is not a regular file; give the path of a video file")
    if stat.S_ISREG(mode) and status.st_size == 0:
        raise InvalidVideoError(f"{name} is empty; {READABLE}")
    if not os.access(path, os.R_OK):
        raise InvalidVideoError(f"{name} cannot be read; check its permissions")
    return stat.S_ISREG(mode)


def _opened_pipe(path: str) -> io.FileIO:
    """Opens a pipe or a device without waiting for someone to write to it."""

    def opener(file: str, flags: int) -> int:
        return os.open(file, flags | getattr(os, "O_NONBLOCK", 0))

    return io.FileIO(path, opener=opener)


def _refuse_endless_device(file: io.FileIO, name: str) -> None:
    """Lets pipes, terminals and the null device pass: of those, a reader sees an end."""
    status = os.fstat(file.fileno())
    if not stat.S_ISCHR(status.st_mode) or file.isatty():
        return
    if status.st_rdev != Path(os.devnull).stat().st_rdev:
        raise InvalidVideoError(f"{name} is not a regular file; give the path of a video file")


def _seekable(file: BinaryIO, name: str, stack: contextlib.ExitStack, watch: Watch) -> SeekableFile:
    if not (hasattr(file, "seekable") and file.seekable()):
        return copied(file, name, stack, watch)
    checked = CheckedFile(file, name)
    if checked.seek(0, os.SEEK_END) == 0:
        raise InvalidVideoError(f"{name} is empty; {READABLE}")
    return checked


def copied(
    file: BinaryIO | SeekableFile,
    name: str,
    stack: contextlib.ExitStack,
    watch: Watch,
    *,
    reason: str = "cannot seek and has more than",
) -> io.FileIO:
    """Copies a file object to a temporary file.

    Args:
        file: Is read from where it stands to its end.
        name: Its name, for errors.
        stack: Closes the temporary file.
        watch: Knows how many bytes may be copied, and how long that may take.
        reason: Why it is copied, for the error of too many bytes.

    Raises:
        InvalidVideoError: It is empty, or cannot be copied.
        VideoLimitError: It has too many bytes, or copying takes too long.
    """
    # Unbuffered: what does not fit onto a full disk would be written once more when it is closed.
    copy = stack.enter_context(tempfile.TemporaryFile(buffering=0))  # noqa: SIM115
    count = 0
    while chunk := _next_chunk(file, watch):
        count += len(chunk)
        watch.check_pipe_bytes(count, reason)
        _write(copy, chunk, name)
    if count == 0:
        raise InvalidVideoError(f"{name} is empty; {READABLE}")
    return copy


def _next_chunk(file: BinaryIO | SeekableFile, watch: Watch) -> bytes:
    while True:
        if isinstance(file, io.FileIO) and hasattr(select, "poll"):
            _wait(file, watch)
        # Of a buffered one what is there: a whole chunk may take hours.
        chunk: object
        chunk = file.read1(_CHUNK) if isinstance(file, io.BufferedReader) else file.read(_CHUNK)
        if chunk is not None:
            return checked_bytes(chunk, watch.name)
        watch.seconds_left()
        time.sleep(_PAUSE)  # another reader took what was there


def _wait(file: io.FileIO, watch: Watch) -> None:
    """Waits until there is something to read, or the end, or the time is over."""
    poll = select.poll()
    poll.register(file, select.POLLIN)
    while not poll.poll(min(watch.seconds_left(), _LONGEST_WAIT) * 1000):
        pass


def _write(copy: io.FileIO, chunk: bytes, name: str) -> None:
    left = memoryview(chunk)
    try:
        while left:
            left = left[copy.write(left) :]
    except OSError as error:
        raise InvalidVideoError(
            f"{name} cannot be copied to {tempfile.gettempdir()}: {error.strerror}; give the path "
            "of a file, or set TMPDIR to a folder with more room"
        ) from error
