"""The reader process: does what its parent asks, until the parent is gone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import resource
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import timesformer_runtime.workloads.timeline  # noqa: F401  # before the time of a video counts
from timesformer_runtime import errors
from timesformer_runtime.isolation import messages
from timesformer_runtime.isolation.process import Task

# Address space that each further thread of a decoder takes: its stack, and a part of the heap.
_BYTES_PER_THREAD = 1 << 27
_MOST_GROWN = 0.25  # of the memory that a video may take; a process that keeps more ends
_STDIN, _STDERR = 0, 2


def main(descriptor: int) -> None:
    """Serves the parent at the other end of a socket.

    Args:
        descriptor: The socket.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is the one to be interrupted
    _end_with_parent()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # where the machine's memory ends, this process goes first
        Path("/proc/self/oom_score_adj").write_text("1000")
    base = _address_space()
    with socket.socket(fileno=descriptor) as connection, connection.makefile("rb") as tasks:
        messages.send(connection, ("ready", None))
        _discard_messages()
        while _serve(connection, tasks, base):
            pass


def _end_with_parent() -> None:
    """Makes the system kill this process when its parent ends, whatever this one does then.

    Standard input is a pipe of which only the parent has the other end. It never writes: the first
    that happens to the pipe is that it is closed.
    """
    fcntl.fcntl(_STDIN, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(_STDIN, fcntl.F_SETSIG, signal.SIGKILL)
    flags = fcntl.fcntl(_STDIN, fcntl.F_GETFL)
    fcntl.fcntl(_STDIN, fcntl.F_SETFL, flags | os.O_ASYNC)


def _discard_messages() -> None:
    """Keeps what libraries print of a file from the parent's terminal, which gets the error."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, _STDERR)
    os.close(null)


def _serve(connection: socket.socket, tasks: BinaryIO, base: int) -> bool:
    """Does one task; False where it was the last one.

    Args:
        connection: The socket to the parent.
        tasks: The same, as a file.
        base: Bytes of address space that the process had before the first task.
    """
    head, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
    if not head:  # the parent has no more
        return False
    task: Task = pickle.load(tasks)  # noqa: S301  # of the parent
    threads = _BYTES_PER_THREAD * (task.threads - 1)
    end: tuple[str, object] = ("end", None)
    try:
        with (
            _memory_limit(base + task.most_memory + threads),
            task.video.opened(descriptors) as source,
        ):
            for answer in task.job(source):
                messages.send(connection, ("answer", answer))
    except Exception as error:  # whatever it is, it is the answer
        end = ("error", _plain(error))
    messages.send(connection, end)
    return _address_space() - base - threads <= _MOST_GROWN * task.most_memory


@contextlib.contextmanager
def _memory_limit(size: int) -> Iterator[None]:
    """Limits the address space of this process, unless it has a lower limit already."""
    before, most = resource.getrlimit(resource.RLIMIT_AS)
    limits = [limit for limit in (size, before, most) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, most))


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _plain(error: Exception) -> Exception:
    """An error as the parent may unpickle it: of this package, or of Python itself."""
    if _is_about_memory(error):
        return MemoryError(str(error))
    kind: type[Exception] = next(
        kind for kind in type(error).__mro__ if kind.__module__ in {"builtins", errors.__name__}
    )
    if kind is type(error) and all(isinstance(value, str | int | None) for value in error.args):
        return error
    return kind(str(error))


def _is_about_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that there is not enough memory."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False
