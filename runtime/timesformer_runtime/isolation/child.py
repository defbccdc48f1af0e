"""The program of a reader process: does the tasks of its parent, until the parent ends."""

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

import numpy as np

from timesformer_runtime import errors
from timesformer_runtime.isolation import messages
from timesformer_runtime.isolation.process import Task

# Address space that each decoding thread after the first takes, for its stack and its part of the
# heap.
_BYTES_PER_THREAD = 1 << 27
# The process ends after a task that leaves it larger than before by more than this share of the
# memory limit.
_MAX_GROWTH = 0.25
_STDIN, _STDERR = 0, 2


def main(descriptor: int) -> None:
    """Does the tasks that the parent sends through a socket.

    Args:
        descriptor: The descriptor of the socket.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the parent
    _end_with_parent()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # if the machine runs out of memory, kill this process first
        Path("/proc/self/oom_score_adj").write_text("1000")
    _warm_up_blas()
    initial_size = _address_space()
    with socket.socket(fileno=descriptor) as connection, connection.makefile("rb") as tasks:
        try:
            messages.send(connection, ("ready", None))
        except BrokenPipeError:  # the parent ended while this process started
            return
        _silence_stderr()
        while _do_next_task(connection, tasks, initial_size):
            pass


def _warm_up_blas() -> None:
    """Lets NumPy's BLAS take its buffers before a task's memory is limited.

    OpenBLAS takes tens of megabytes at its first large product, depending on the processor, and
    ends the process where it does not get them.
    """
    square = np.ones((256, 256), np.float32)
    square @ square


def _end_with_parent() -> None:
    """Makes the system kill this process when its parent ends, even while this process hangs.

    Standard input is a pipe, and only the parent has the other end. The parent never writes to it.
    So the pipe becomes readable only when the parent's end closes, and the system then sends the
    signal that this function chooses.
    """
    fcntl.fcntl(_STDIN, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(_STDIN, fcntl.F_SETSIG, signal.SIGKILL)
    flags = fcntl.fcntl(_STDIN, fcntl.F_GETFL)
    fcntl.fcntl(_STDIN, fcntl.F_SETFL, flags | os.O_ASYNC)


def _silence_stderr() -> None:
    """Discards the messages that libraries print about a file; the parent gets the error itself."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, _STDERR)
    os.close(null)


def _do_next_task(connection: socket.socket, tasks: BinaryIO, initial_size: int) -> bool:
    """Receives one task, does it, and sends the answers.

    Args:
        connection: The socket to the parent.
        tasks: A file object that reads from this socket.
        initial_size: Bytes of address space that the process had before the first task.

    Returns:
        True if the process can do another task.
    """
    head, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
    if not head:  # the parent has closed the socket
        return False
    task: Task = pickle.load(tasks)  # noqa: S301  # the parent sent it
    threads = _BYTES_PER_THREAD * (task.threads - 1)
    end: tuple[str, object] = ("end", None)
    try:
        with (
            _memory_limit(initial_size + task.max_memory + threads),
            task.video.opened(descriptors) as source,
        ):
            for answer in task.job(source):
                messages.send(connection, ("answer", answer))
    except Exception as error:  # the parent gets any error
        end = ("error", _picklable(error))
    messages.send(connection, end)
    return _address_space() - initial_size - threads <= _MAX_GROWTH * task.max_memory


@contextlib.contextmanager
def _memory_limit(size: int) -> Iterator[None]:
    """Limits the address space of this process, unless it has a lower limit already."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limits = [limit for limit in (size, soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _picklable(error: Exception) -> Exception:
    """Makes an error that the parent can unpickle: of a class of this package or of Python."""
    if _is_about_memory(error):
        return MemoryError(str(error))
    kind: type[Exception] = next(
        kind for kind in type(error).__mro__ if kind.__module__ in {"builtins", errors.__name__}
    )
    if kind is type(error) and all(isinstance(value, str | int | None) for value in error.args):
        return error
    return kind(str(error))


def _is_about_memory(error: BaseException | None) -> bool:
    """True if an error, or an error that caused it, says that there is not enough memory."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False
