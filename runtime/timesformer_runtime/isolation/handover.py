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
from timesformer_runtime.video.source import Source, acquired, copied

_OF_ONE_DESCRIPTOR = (io.FileIO, io.BufferedReader, io.BufferedRandom)


@dataclasses.dataclass(frozen=True)
class HandedVideo:
    """A video as another process gets it.

    Attributes:
        name: Its name, for messages.
        path: Its path as it was given; None where a descriptor comes with it.
        folder: The working directory, from which the path may lead; None where it was removed.
    """

    name: str
    path: str | None = None
    folder: str | None = None

    @contextlib.contextmanager
    def opened(self, descriptors: Sequence[int]) -> Iterator[Source]:
        """Gives the video in the process that got it, and got these descriptors with it."""
        if self.path is not None:
            if self.folder is not None:
                os.chdir(self.folder)
            yield self.path
            return
        (descriptor,) = descriptors
        try:
            # Opened again: a descriptor's own offset is also that of the parent, and stays.
            file = _path_of(descriptor).open("rb", buffering=0)
        finally:
            os.close(descriptor)
        with file:
            file.name = self.name
            yield file


class Handover(NamedTuple):
    """A video that another process can be given.

    Attributes:
        video: The video, for the other process.
        descriptor: The descriptor of its file in this process, where it has no path.
        watch: Follows what reading it costs.
    """

    video: HandedVideo
    descriptor: int | None
    watch: Watch


@contextlib.contextmanager
def handed_over(source: Source, limits: DecodeLimits) -> Iterator[Handover]:
    """Makes of a video what another process can be given.

    Args:
        source: The video.
        limits: What reading it may cost.

    Raises:
        VideoNotFoundError: There is no such file.
        InvalidVideoError: It cannot be read or copied.
        VideoLimitError: Copying it takes too long, or it has too many bytes to be copied.
    """
    with acquired(source, limits) as video_file, contextlib.ExitStack() as stack:
        name, watch = video_file.name, video_file.watch
        if isinstance(source, str | os.PathLike) and isinstance(video_file.target, str):
            video = HandedVideo(name, os.fsdecode(source), _working_directory())
            yield Handover(video, None, watch)
        else:
            descriptor = _descriptor(source, video_file, stack)
            yield Handover(HandedVideo(name), descriptor, watch)


def _working_directory() -> str | None:
    try:
        return str(Path.cwd())
    except OSError:  # it was removed: the path is an absolute one
        return None


def _descriptor(source: Source, video_file: VideoFile, stack: contextlib.ExitStack) -> int:
    """The descriptor of a regular file with the bytes of a video, which is copied if need be."""
    target: Any = video_file.target
    for file in (target, source):  # the first may be a copy already
        # Many others have the descriptor of a file that is not what they read, as of a ZIP file.
        if type(file) in _OF_ONE_DESCRIPTOR and isinstance(file, io.IOBase):
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
    return copied(target, name, stack, watch, reason="has no descriptor and has more than").fileno()


def _path_of(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}")
