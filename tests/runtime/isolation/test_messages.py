"""Tests messages between a reader process and its parent, also damaged and hostile ones."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from timesformer_runtime import VideoLimitError, View
from timesformer_runtime.isolation import messages

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "AF_UNIX"), reason="the processes are connected by Unix sockets"
)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    with contextlib.ExitStack() as stack:
        first, second = socket.socketpair()
        yield stack.enter_context(first), stack.enter_context(second)


def test_arrays_arrive_as_they_were(ends: tuple[socket.socket, socket.socket]) -> None:
    arrays: list[npt.NDArray[Any]] = [
        np.arange(24, dtype=np.float32).reshape(2, 3, 4)[:, ::2],
        np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3)),
        np.zeros((0, 3), np.uint8),
        np.array(7, np.int64),
        np.array([True, False]),
    ]
    messages.send(ends[0], arrays)
    with ends[1].makefile("rb") as file:
        received = messages.receive(file)
    for array, other in zip(received, arrays, strict=True):
        assert (array.dtype, array.shape) == (other.dtype, other.shape)
        np.testing.assert_array_equal(array, other)


def test_values_and_errors_arrive_one_after_the_other(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    view = View("center", (0, 3), (0.0, 0.1))
    error = VideoLimitError("caf\udce9 is too long")
    for value in (view, error, FileNotFoundError(2, "No such file", "a"), None):
        messages.send(ends[0], value)
    with ends[1].makefile("rb") as file:
        assert messages.receive(file) == view
        found = messages.receive(file)
        assert (type(found), found.args) == (type(error), error.args)
        assert messages.receive(file).filename == "a"
        assert messages.receive(file) is None
        ends[0].close()
        with pytest.raises(EOFError):
            messages.receive(file)


class Call:
    """An object that pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


CALLS = [
    Call(os.mkdir, "called"),
    Call(eval, "__import__('os').mkdir('called')"),
    Call(subprocess.Popen, ["mkdir", "called"]),
    Call(np.frompyfunc, len, 1, 1),
    Call(messages.send, None, None),
    Call(messages._array, "|O", (1,), b"12345678"),  # would be an address
]


@pytest.mark.parametrize("call", CALLS)
def test_nothing_that_a_message_names_is_called(
    ends: tuple[socket.socket, socket.socket],
    call: Call,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    ends[0].sendall(pickle.dumps(call))
    with ends[1].makefile("rb") as file, pytest.raises(messages.BrokenMessageError):
        messages.receive(file)
    assert not list(tmp_path.iterdir())


def test_no_module_is_imported(ends: tuple[socket.socket, socket.socket]) -> None:
    """Importing this module would run the command."""
    ends[0].sendall(b"ctimesformer_runtime.__main__\nmain\n.")
    with ends[1].makefile("rb") as file, pytest.raises(messages.BrokenMessageError):
        messages.receive(file)


@pytest.mark.parametrize(
    "data", [b"\xff" * 100, b"\x80\x05\x8e" + b"\xff" * 8, b"\x80\x05]q", b"0.", b"N0."]
)
def test_nonsense_is_an_error(ends: tuple[socket.socket, socket.socket], data: bytes) -> None:
    ends[0].sendall(data)
    ends[0].close()
    with ends[1].makefile("rb") as file, pytest.raises((messages.BrokenMessageError, EOFError)):
        messages.receive(file)


def test_a_message_that_does_not_come(ends: tuple[socket.socket, socket.socket]) -> None:
    ends[0].sendall(pickle.dumps(bytes(1000))[:500])
    ends[1].settimeout(0.1)
    with ends[1].makefile("rb") as file, pytest.raises(TimeoutError):
        messages.receive(file)
