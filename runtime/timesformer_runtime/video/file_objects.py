"""Stands between a file object and FFmpeg: neither must harm the other.

PyAV copies what ``read`` gives into a buffer without looking at its length. And it loses a
``KeyboardInterrupt`` that is raised while it calls Python: FFmpeg then takes the file to end there.
An interrupt may come before the first line of a Python function, so PyAV is given functions that
are not written in Python: those of generators, which wait inside their ``try``.
"""

from __future__ import annotations

import functools
import operator
import struct
from collections.abc import Callable, Generator
from typing import BinaryIO

from timesformer_runtime.errors import InvalidVideoError, TimesformerError, unreadable
from timesformer_runtime.video.guard.units import CountedFile

_LARGEST = 1 << 63
_GOAL = struct.Struct("=qi")  # of a seek: offset and whence
_NOWHERE = (0, -1)


class CheckedFile:
    """A file object of the user that gives what it is asked for, or an error that says otherwise.

    Args:
        file: The file object.
        name: Its name, for errors.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name

    def read(self, size: int, /) -> bytes:
        """Reads up to so many bytes.

        Raises:
            InvalidVideoError: It cannot be read, or gives more than that or something else.
        """
        data = checked_bytes(self._call(self._file.read, size), self._name)
        if len(data) > size:
            raise InvalidVideoError(
                f"{self._name} gave {len(data)} bytes when {size} were read; give a file object "
                "whose read(n) gives no more than n bytes"
            )
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Goes to an offset and gives it.

        Raises:
            InvalidVideoError: It cannot be read, or gives something else.
        """
        reached = self._call(self._file.seek, offset, whence)
        return self.tell() if reached is None else self._checked(reached, "seek")

    def tell(self) -> int:
        """The offset.

        Raises:
            InvalidVideoError: It cannot be read, or gives something else.
        """
        return self._checked(self._call(self._file.tell), "tell")

    def _call(self, method: Callable[..., object], *arguments: int) -> object:
        try:
            return method(*arguments)
        except TimesformerError:
            raise
        except (OSError, ValueError) as error:  # ValueError: it is closed
            raise unreadable(self._name, error) from error

    def _checked(self, offset: object, method: str) -> int:
        try:
            number = operator.index(offset)  # type: ignore[arg-type]  # that is the question
        except TypeError:
            number = -1
        if not 0 <= number < _LARGEST:
            raise InvalidVideoError(
                f"{self._name} gave {offset!r} as its offset; give a file object whose {method}() "
                "gives how many bytes are before it"
            )
        return number


def checked_bytes(data: object, name: str) -> bytes:
    """Checks that a file object read bytes.

    Raises:
        InvalidVideoError: These are not bytes.
    """
    if type(data) is not bytes and isinstance(data, bytes | bytearray | memoryview):
        data = memoryview(data).tobytes()
    if not isinstance(data, bytes):
        raise InvalidVideoError(
            f"{name} gave a {type(data).__name__} when it was read, not bytes; "
            "give a binary file object"
        )
    return data


class Callbacks:
    """The functions that PyAV calls to read a file; each error is noted, and the file then ends.

    Args:
        file: The file.

    Attributes:
        name: Its name.
        read: Reads up to so many bytes.
        seek: Notes where to read on, by offset and whence. Gives None, for which PyAV takes the
            offset, or ``tell`` where that does not say it.
        tell: The offset in bytes.
    """

    def __init__(self, file: CountedFile) -> None:
        self.name = file.name
        goal = bytearray(_GOAL.pack(*_NOWHERE))
        reading, telling = _reading(file, goal), _telling(file, goal)
        next(reading)  # to the first ``yield``
        next(telling)
        self.read: Callable[[int], bytes] = reading.send
        self.seek: Callable[[int, int], None] = functools.partial(_GOAL.pack_into, goal, 0)
        self.tell: Callable[[], int] = telling.__next__


def _reading(file: CountedFile, goal: bytearray) -> Generator[bytes, int, None]:
    """Takes how much to read, and gives it; never raises an error."""
    data = b""
    while True:
        try:
            while True:
                size = yield data
                data = b""
                if file.error is None:
                    _go(file, goal)
                    data = file.read(size)
        except GeneratorExit:
            raise
        except BaseException as error:
            file.note(error)


def _telling(file: CountedFile, goal: bytearray) -> Generator[int, None, None]:
    """Gives the offset each time; never raises an error."""
    offset = -1
    while True:
        try:
            while True:
                yield offset
                offset = -1
                _go(file, goal)
                offset = file.tell()
        except GeneratorExit:
            raise
        except BaseException as error:
            file.note(error)


def _go(file: CountedFile, goal: bytearray) -> None:
    """Goes where PyAV wanted to go, unless it is there."""
    wanted = _GOAL.unpack(goal)
    if wanted != _NOWHERE:
        _GOAL.pack_into(goal, 0, *_NOWHERE)
        file.seek(*wanted)
