"""Hands a video to a reader process: a path as it is, anything else as the descriptor of a file."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from timesformer_runtime.errors import unreadable
from timesformer_runtime.video.file import VideoFile
from timesformer_runtime.video.limits import DecodeLimits, Watch
from timesformer_runtime.video.source import Source, copy_to_temporary_file, locate_unchecked

# Classes whose ``fileno`` leads to the bytes that they read. With other classes it may lead
# elsewhere, as to the compressed bytes of a ZIP file.
_PLAIN_FILE_CLASSES = (io.FileIO, io.BufferedReader, io.BufferedRandom)


@dataclasses.dataclass(frozen=True)
class HandedVideo:
    """The part of a handed-over video that the parent pickles for the reader process.

    Attributes:
        name: The video's name, for messages.
        path: The path as the user gave it; None where the parent sends a descriptor.
        folder: The working directory, to which the path is relative; None for an absolute path, and
            if the directory no longer exists.
    """

    name: str
    path: str | None = None
    folder: str | None = None

    @contextlib.contextmanager
    def opened(self, descriptors: Sequence[int]) -> Iterator[Source]:
        """Opens the video in the reader process.

        Args:
            descriptors: The descriptors that came with the video: one if it has no path, else none.
        """
        if self.path is not None:
            if self.folder is not None:
                os.chdir(self.folder)
            yield self.path
            return
        (descriptor,) = descriptors
        try:
            # The descriptor shares its offset with the parent's file object. Opening the file again
            # leaves that offset alone.
            file = _path_of(descriptor).open("rb", buffering=0)
        finally:
            os.close(descriptor)
        with file:
            file.name = self.name
            yield file


class Handover(NamedTuple):
    """A video that this process can send to a reader process.

    Attributes:
        video: The part that this process pickles.
        descriptor: A descriptor of the video's file, to send along; None where there is a path.
        watch: Limits what reading the video costs.
    """

    video: HandedVideo
    descriptor: int | None
    watch: Watch


@contextlib.contextmanager
def handed_over(source: Source, limits: DecodeLimits) -> Iterator[Handover]:
    """Prepares a video for a reader process, while the context lasts.

    Args:
        source: The video.
        limits: Limits for reading the video.

    Raises:
        VideoNotFoundError: There is no such file.
        InvalidVideoError: The video cannot be read or copied.
        VideoLimitError: Copying takes too long, or there are too many bytes to copy.
    """
    with locate_unchecked(source, limits) as video_file, contextlib.ExitStack() as stack:
        name, watch = video_file.name, video_file.watch
        if isinstance(source, str | os.PathLike) and isinstance(video_file.target, str):
            path = os.fsdecode(source)
            # A user may run programs in a folder that the user may not enter.
            folder = None if Path(path).is_absolute() else _working_directory()
            yield Handover(HandedVideo(name, path, folder), None, watch)
        else:
            descriptor = _descriptor(source, video_file, stack)
            yield Handover(HandedVideo(name), descriptor, watch)


def _working_directory() -> str | None:
    try:
        return str(Path.cwd())
    except OSError:  # it no longer exists, so a relative path leads nowhere
        return None


def _descriptor(source: Source, video_file: VideoFile, stack: contextlib.ExitStack) -> int:
    """Finds a descriptor of a regular file with the video's bytes; copies them if there is none."""
    target: Any = video_file.target
    for file in (target, source):  # the target may be a copy already
        if type(file) in _PLAIN_FILE_CLASSES and isinstance(file, io.IOBase):
            try:
                file.flush()
            except OSError as error:
                raise unreadable(video_file.name, error) from error
            descriptor = file.fileno()
            is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
            if is_file and os.access(_path_of(descriptor), os.R_OK):
                return descriptor
    target.seek(0)
    name, watch = video_file.name, video_file.watch
    reason = "has no descriptor and has more than"
    return copy_to_temporary_file(target, name, stack, watch, reason=reason).fileno()


def _path_of(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}")
