"""Lets FFmpeg read a file object of the user: checks the bytes, and loses no error or interrupt.

PyAV copies the bytes that ``read`` returns into a buffer, and does not check that they fit. PyAV
also drops a ``KeyboardInterrupt`` that comes while it calls Python: FFmpeg then takes the interrupt
for the end of the file. An interrupt may come before the first line of a Python function runs. So
PyAV calls no Python functions here, but the C methods ``send`` and ``__next__`` of generators,
which already wait inside a ``try``.
"""

from __future__ import annotations

import functools
import operator
import struct
from collections.abc import Callable, Generator
from typing import BinaryIO

from timesformer_runtime.errors import InvalidVideoError, TimesformerError, unreadable
from timesformer_runtime.video.guard.nal_units import GuardedFile

_OFFSET_LIMIT = 1 << 63  # FFmpeg's offsets are int64
_SEEK = struct.Struct("=qi")  # the arguments of a seek: offset and whence
_NO_SEEK = (0, -1)


class CheckedFile:
    """Wraps a file object of the user, and checks what its methods return.

    Args:
        file: The file object.
        name: The video's name, for errors.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name

    def read(self, size: int, /) -> bytes:
        """Reads at most ``size`` bytes.

        Raises:
            InvalidVideoError: The file object raises an error, or returns too many bytes or
                something other than bytes.
        """
        data = checked_bytes(self._call(self._file.read, size), self._name)
        if len(data) > size:
            raise InvalidVideoError(
                f"{self._name} gave {len(data)} bytes when {size} were read; give a file object "
                "whose read(n) gives no more than n bytes"
            )
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Moves to an offset and returns it.

        Raises:
            InvalidVideoError: The file object raises an error, or returns no valid offset.
        """
        reached = self._call(self._file.seek, offset, whence)
        return self.tell() if reached is None else self._checked_offset(reached, "seek")

    def tell(self) -> int:
        """Returns the offset.

        Raises:
            InvalidVideoError: The file object raises an error, or returns no valid offset.
        """
        return self._checked_offset(self._call(self._file.tell), "tell")

    def _call(self, method: Callable[..., object], *arguments: int) -> object:
        try:
            return method(*arguments)
        except TimesformerError:
            raise
        except (OSError, ValueError) as error:  # ValueError: the file is closed
            raise unreadable(self._name, error) from error

    def _checked_offset(self, offset: object, method: str) -> int:
        try:
            number = operator.index(offset)  # type: ignore[arg-type]  # a TypeError is handled
        except TypeError:
            number = -1
        if not 0 <= number < _OFFSET_LIMIT:
            raise InvalidVideoError(
                f"{self._name} gave {offset!r} as its offset; give a file object whose {method}() "
                "gives how many bytes are before it"
            )
        return number


def checked_bytes(data: object, name: str) -> bytes:
    """Checks that a file object returned bytes, or something that can become bytes.

    Args:
        data: The object that ``read`` returned.
        name: The video's name, for errors.

    Raises:
        InvalidVideoError: The data are not bytes.
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
    """The functions that PyAV calls to read a file.

    They never raise. An error goes to ``file.note_error``, and from then on the file seems to end.

    Args:
        file: The file.

    Attributes:
        name: The file's name.
        read: Takes a number, and reads at most so many bytes.
        seek: Stores an offset and a whence; the next ``read`` or ``tell`` moves there. Returns
            None: PyAV then computes the new offset itself, or asks ``tell``.
        tell: Returns the offset in bytes.
    """

    def __init__(self, file: GuardedFile) -> None:
        self.name = file.name
        pending_seek = bytearray(_SEEK.pack(*_NO_SEEK))
        reading, telling = _reading(file, pending_seek), _telling(file, pending_seek)
        next(reading)  # runs to the first ``yield``
        next(telling)
        self.read: Callable[[int], bytes] = reading.send
        self.seek: Callable[[int, int], None] = functools.partial(_SEEK.pack_into, pending_seek, 0)
        self.tell: Callable[[], int] = telling.__next__


def _reading(file: GuardedFile, pending_seek: bytearray) -> Generator[bytes, int, None]:
    """Receives numbers of bytes, and yields that many bytes of the file; never raises."""
    data = b""
    while True:
        try:
            while True:
                size = yield data
                data = b""
                if file.error is None:
                    _do_pending_seek(file, pending_seek)
                    data = file.read(size)
        except GeneratorExit:
            raise
        except BaseException as error:
            file.note_error(error)


def _telling(file: GuardedFile, pending_seek: bytearray) -> Generator[int, None, None]:
    """Yields the offset each time, or -1 after an error; never raises."""
    offset = -1
    while True:
        try:
            while True:
                yield offset
                offset = -1
                _do_pending_seek(file, pending_seek)
                offset = file.tell()
        except GeneratorExit:
            raise
        except BaseException as error:
            file.note_error(error)


def _do_pending_seek(file: GuardedFile, pending_seek: bytearray) -> None:
    wanted = _SEEK.unpack(pending_seek)
    if wanted != _NO_SEEK:
        _SEEK.pack_into(pending_seek, 0, *_NO_SEEK)
        file.seek(*wanted)
