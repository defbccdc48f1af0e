"""Messages between a reader process and its parent: pickled values on a socket.

The reader process works on files of strangers, so its parent does not trust it. The parent
unpickles only plain values, arrays of numbers, errors and the dataclasses and tuples of this
package, and calls nothing else that a message names.
"""

from __future__ import annotations

import dataclasses
import io
import math
import pickle
import select
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

_CHECK_MILLISECONDS = 250


class BrokenMessageError(Exception):
    """The received bytes are not a message."""


def send(connection: socket.socket, value: object) -> None:
    """Sends a value; waits until the other side has read most of it."""
    with connection.makefile("wb") as file:
        _Pickler(file, protocol=5).dump(value)


def receive(file: BinaryIO) -> Any:
    """Waits for a value from a reader process.

    Raises:
        EOFError: The reader process has closed the connection.
        OSError: The connection broke, or its timeout is over.
        BrokenMessageError: The bytes are not a message, or end in the middle of one.
    """
    try:
        return _Unpickler(file).load()
    except (EOFError, OSError):
        raise
    except Exception as error:  # for damaged bytes the unpickler raises errors of many classes
        raise BrokenMessageError(str(error)) from error


class Incoming(io.RawIOBase):
    """The bytes that a reader process sends; a wait for them ends at a deadline, or earlier.

    Args:
        connection: The socket.

    Attributes:
        deadline: Time of ``time.monotonic`` at which a wait ends with a TimeoutError.
        check: Called now and then during a wait; what it raises ends the wait.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.deadline = math.inf
        self.check: Callable[[], object] = lambda: None
        self._connection = connection
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    def readable(self) -> bool:
        """Always true."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Waits for bytes; returns how many came, 0 at the end."""
        while time.monotonic() < self.deadline:
            if self._poll.poll(_CHECK_MILLISECONDS):
                return self._connection.recv_into(buffer)
            self.check()
        raise TimeoutError


class _Pickler(pickle.Pickler):
    """Writes arrays so that reading them calls ``_array`` and none of NumPy's own functions."""

    def reducer_override(self, value: Any) -> Any:
        if type(value) is not np.ndarray:
            return NotImplemented
        data = pickle.PickleBuffer(np.ascontiguousarray(value).data)
        return _array, (value.dtype.str, value.shape, data)


def _array(dtype: str, shape: tuple[int, ...], data: bytearray) -> npt.NDArray[Any]:
    return np.frombuffer(data, dtype).reshape(shape)  # raises for dtypes that hold addresses


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        package = __name__.partition(".")[0]
        # Importing another module could do anything.
        if module in sys.modules and module.partition(".")[0] in {"builtins", package}:
            found = super().find_class(module, name)
            if found is _array or _holds_values(found):
                return found
        raise pickle.UnpicklingError(f"{module}.{name} does not belong in a message")


def _holds_values(kind: object) -> bool:
    return isinstance(kind, type) and (
        dataclasses.is_dataclass(kind) or issubclass(kind, tuple | Exception)
    )
