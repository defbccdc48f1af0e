"""Makes a ``VideoFile`` of a path, a file object or a pipe; copies a pipe to a temporary file."""

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
    quoted,
    unreadable,
)
from timesformer_runtime.source_names import shown
from timesformer_runtime.video.file import SeekableFile, VideoFile
from timesformer_runtime.video.file_objects import CheckedFile, checked_bytes
from timesformer_runtime.video.guard.mp4_tables import check_sample_tables
from timesformer_runtime.video.limits import DecodeLimits, Watch
from timesformer_runtime.video.opening import GIVE_A_VIDEO

_CHUNK = 1 << 20  # bytes of a pipe to copy at a time
_LONGEST_WAIT = 3600.0  # seconds of one call of poll
_PAUSE = 0.01  # seconds between two attempts to read

Source = str | os.PathLike[str] | BinaryIO


@contextlib.contextmanager
def locate(source: Source, limits: DecodeLimits | None = None) -> Iterator[VideoFile]:
    """Finds a video, and gives a ``VideoFile`` that can be opened again while the context lasts.

    Args:
        source: A path, or a binary file object. A file object that can seek is read from its
            beginning. A pipe, and a file object that cannot seek, is copied from where it stands to
            a temporary file.
        limits: Limits for reading the video; the time runs from here. The limit of time also ends
            the wait for a named pipe or an unbuffered file object; but where ``read`` of another
            file object does not return, nothing ends the wait.

    Raises:
        VideoNotFoundError: There is no such file.
        InvalidVideoError: The source is not a path or a file object; or it is a URL, a folder, a
            device, or empty; or it cannot be read or copied.
        VideoLimitError: Copying takes too long, or there are too many bytes to copy; or the file
            announces far more packets than the limit.
        InvalidOptionError: ``limits`` is not a ``DecodeLimits``, or sets ``isolated``, which
            needs a ``VideoClassifier``.
    """
    if not isinstance(limits, DecodeLimits | None):
        raise InvalidOptionError(f"`limits` is {quoted(limits)}; it must be a DecodeLimits")
    if limits is not None and limits.isolated:
        raise InvalidOptionError(
            "`isolated` is True; only a VideoClassifier reads videos in another process: leave it "
            "out"
        )
    with locate_unchecked(source, limits) as video_file:
        try:
            check_sample_tables(video_file)
        except OSError as error:
            raise unreadable(video_file.name, error) from error
        yield video_file


@contextlib.contextmanager
def locate_unchecked(source: Source, limits: DecodeLimits | None = None) -> Iterator[VideoFile]:
    """Finds a video as ``locate`` does, but does not check what is in the file.

    Raises:
        VideoNotFoundError: There is no such file.
        InvalidVideoError: The source is not a video file, or cannot be read or copied.
        VideoLimitError: Copying takes too long, or there are too many bytes to copy.
    """
    name = _name(source)
    watch = Watch(name, limits or DecodeLimits())
    try:
        target, resources = _open_source(source, name, watch)
    except TimesformerError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a closed file object
        raise unreadable(name, error) from error
    with resources:
        yield VideoFile(name, target, watch)


def _name(source: Source) -> str:
    """Makes the name of a video for messages, without secrets; refuses what is not a source."""
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


def _open_source(
    source: Source, name: str, watch: Watch
) -> tuple[str | SeekableFile, contextlib.ExitStack]:
    """Finds the path or file object from which the video can be read again and again.

    Returns:
        The absolute path or the file object, and the resources to close afterwards.
    """
    with contextlib.ExitStack() as stack:
        target: str | SeekableFile
        if not isinstance(source, str | os.PathLike):
            target = _seekable_file(source, name, stack, watch)
        elif _checked_path_is_regular(os.fsdecode(source), name):
            # FFmpeg does not take an absolute path for one of its own prefixes ("concat:").
            target = str(Path(os.fsdecode(source)).absolute())
        else:
            with _open_pipe(os.fsdecode(source)) as pipe:
                _refuse_endless_device(pipe, name)
                target = copy_to_temporary_file(pipe, name, stack, watch)
        return target, stack.pop_all()


def _checked_path_is_regular(path: str, name: str) -> bool:
    """Refuses a path that cannot be a video; tells a regular file from a pipe or device."""
    if "://" in path:
        raise InvalidVideoError(f"{name} is a URL; download it first and give the file's path")
    try:
        status = Path(path).stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        # A traceback with the cause would show what the name hides.
        cause: Exception | None = error if name == path else None
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
        raise InvalidVideoError(f"{name} is empty; {GIVE_A_VIDEO}")
    if not os.access(path, os.R_OK):
        raise InvalidVideoError(f"{name} cannot be read; check its permissions")
    return stat.S_ISREG(mode)


def _open_pipe(path: str) -> io.FileIO:
    """Opens a pipe or a device, and does not wait until another process writes to it."""

    def opener(file: str, flags: int) -> int:
        return os.open(file, flags | getattr(os, "O_NONBLOCK", 0))

    return io.FileIO(path, opener=opener)


def _refuse_endless_device(file: io.FileIO, name: str) -> None:
    """Refuses a device without an end; pipes, terminals and the null device have one."""
    status = os.fstat(file.fileno())
    if not stat.S_ISCHR(status.st_mode) or file.isatty():
        return
    if status.st_rdev != Path(os.devnull).stat().st_rdev:
        raise InvalidVideoError(f"{name} is not a regular file; give the path of a video file")


def _seekable_file(
    file: BinaryIO, name: str, stack: contextlib.ExitStack, watch: Watch
) -> SeekableFile:
    if not (hasattr(file, "seekable") and file.seekable()):
        return copy_to_temporary_file(file, name, stack, watch)
    checked = CheckedFile(file, name)
    if checked.seek(0, os.SEEK_END) == 0:
        raise InvalidVideoError(f"{name} is empty; {GIVE_A_VIDEO}")
    return checked


def copy_to_temporary_file(
    file: BinaryIO | SeekableFile,
    name: str,
    stack: contextlib.ExitStack,
    watch: Watch,
    *,
    reason: str = "cannot seek and has more than",
) -> io.FileIO:
    """Copies a file object, from its offset to its end, to a temporary file.

    Args:
        file: The file object.
        name: The video's name, for errors.
        stack: Closes the temporary file.
        watch: Enforces the limits on the number of bytes and on the time.
        reason: Says why the video is copied; the words of the error between name and limit.

    Raises:
        InvalidVideoError: The file object is empty, or cannot be copied.
        VideoLimitError: There are too many bytes to copy, or copying takes too long.
    """
    # Unbuffered: where the disk is full, closing a buffered file would write the rest once more.
    copy = stack.enter_context(tempfile.TemporaryFile(buffering=0))  # noqa: SIM115
    count = 0
    while chunk := _next_chunk(file, watch):
        count += len(chunk)
        watch.check_pipe_bytes(count, reason)
        _write(copy, chunk, name)
    if count == 0:
        raise InvalidVideoError(f"{name} is empty; {GIVE_A_VIDEO}")
    return copy


def _next_chunk(file: BinaryIO | SeekableFile, watch: Watch) -> bytes:
    """Reads the bytes that are there, and waits for at least one; empty at the end."""
    while True:
        if isinstance(file, io.FileIO) and hasattr(select, "poll"):
            _wait_for_data(file, watch)
        # ``read1`` gives the bytes that are there: filling a whole chunk may take hours.
        chunk: object
        chunk = file.read1(_CHUNK) if isinstance(file, io.BufferedReader) else file.read(_CHUNK)
        if chunk is not None:
            return checked_bytes(chunk, watch.name)
        watch.check_time()
        time.sleep(_PAUSE)  # another reader of the pipe took the bytes


def _wait_for_data(file: io.FileIO, watch: Watch) -> None:
    """Waits until there are bytes to read, or the file ends.

    Raises:
        VideoLimitError: The time is over.
    """
    poll = select.poll()
    poll.register(file, select.POLLIN)
    while not poll.poll(min(watch.seconds_left(), _LONGEST_WAIT) * 1000):
        pass


def _write(copy: io.FileIO, chunk: bytes, name: str) -> None:
    """Writes a whole chunk, in several calls where one call writes less."""
    left = memoryview(chunk)
    try:
        while left:
            left = left[copy.write(left) :]
    except OSError as error:
        raise InvalidVideoError(
            f"{name} cannot be copied to {tempfile.gettempdir()}: {error.strerror}; give the path "
            "of a file, or set TMPDIR to a folder with more room"
        ) from error
