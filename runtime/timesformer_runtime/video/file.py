"""VideoFile: a video's path or file object, to open again and again."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from timesformer_runtime.errors import unreadable
from timesformer_runtime.video.limits import Watch

ReadAt = Callable[[int, int], bytes]  # takes an offset and a number of bytes, gives the bytes


class SeekableFile(Protocol):
    """The methods of a file object that FFmpeg needs."""

    def read(self, size: int, /) -> bytes:
        """Reads at most ``size`` bytes."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Moves to an offset and returns it."""

    def tell(self) -> int:
        """Returns the offset."""


@dataclasses.dataclass(frozen=True)
class VideoFile:
    """A video file: its path, or a file object that can seek.

    Attributes:
        name: The video's name, for messages.
        target: An absolute path, or the file object.
        watch: Enforces the limits for reading the video.
    """

    name: str
    target: str | SeekableFile
    watch: Watch

    def size(self) -> int:
        """Returns the number of bytes.

        Raises:
            InvalidVideoError: The file cannot be read any more.
        """
        if isinstance(self.target, str):
            try:
                return Path(self.target).stat().st_size
            except OSError as error:
                raise unreadable(self.name, error) from error
        return self.target.seek(0, os.SEEK_END)

    def first_bytes(self, count: int) -> bytes:
        """Reads at most ``count`` bytes at the beginning of the file.

        Raises:
            InvalidVideoError: The file cannot be read any more.
        """
        if isinstance(self.target, str):
            try:
                with Path(self.target).open("rb") as file:
                    return file.read(count)
            except OSError as error:
                raise unreadable(self.name, error) from error
        offset = self.target.tell()  # an open container reads on from this offset
        self.watch.check_time()  # a file object may be slow
        self.target.seek(0)
        first = self.target.read(count)
        self.target.seek(offset)
        return first

    @contextlib.contextmanager
    def opened(self) -> Iterator[SeekableFile]:
        """Opens the path without a buffer; gives a file object as it is, and leaves it open."""
        if isinstance(self.target, str):
            with Path(self.target).open("rb", buffering=0) as file:
                yield file
        else:
            yield self.target

    @contextlib.contextmanager
    def random_access(self) -> Iterator[ReadAt]:
        """Gives a function that reads the file at any offset, and fewer bytes at its end."""
        target = self.target
        if isinstance(target, str):
            with Path(target).open("rb", buffering=0) as file:
                yield lambda offset, count: _read_from(file.fileno(), count, offset)
            return

        def read_object(offset: int, count: int) -> bytes:
            self.watch.check_time()  # a file object may be slow
            target.seek(offset)
            return target.read(count)

        yield read_object


def _read_from(descriptor: int, count: int, offset: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(descriptor, count, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)  # Windows
    return os.read(descriptor, count)
