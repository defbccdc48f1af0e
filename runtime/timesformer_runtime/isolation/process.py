"""ReaderProcess: starts a process that reads videos, gives it tasks, and ends it."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, Literal, NamedTuple

from timesformer_runtime.errors import InvalidVideoError
from timesformer_runtime.isolation import messages
from timesformer_runtime.isolation.handover import HandedVideo
from timesformer_runtime.video.source import Source

Job = Callable[[Source], Iterator[Any]]

# The process imports the jobs first, so that the import costs no video's time or memory.
_START = (
    "import importlib, sys; sys.path[:] = sys.argv[3:]; importlib.import_module(sys.argv[2]); "
    "from timesformer_runtime.isolation.child import main; main(int(sys.argv[1]))"
)
_START_SECONDS = 120.0  # the start takes less than one second, except on a busy machine
_END_SECONDS = 3.0  # to wait, after a broken connection, until the process has ended


class Task(NamedTuple):
    """A task for a reader process.

    Attributes:
        job: A picklable function that takes the video and yields the answers.
        video: The video.
        threads: Number of decoding threads.
        max_memory: Bytes of address space that the task may take, without those for threads.
    """

    job: Job
    video: HandedVideo
    threads: int
    max_memory: int


class AccidentError(Exception):
    """A reader process did not finish its task.

    Attributes:
        kind: ``time`` or ``memory`` if the process took too much of it, ``crash`` if it ended.
    """

    def __init__(self, kind: Literal["time", "memory", "crash"], reason: str = "") -> None:
        super().__init__(reason)
        self.kind = kind


class _UnwantedError(Exception):
    """Carries an error that a check raised, so that it does not count as the process's own."""

    def __init__(self, reason: Exception) -> None:
        super().__init__()
        self.reason = reason


class ReaderProcess:
    """A process that reads videos, one at a time.

    Args:
        job_module: Name of the module in which the jobs are defined; the process imports it at its
            start.

    Attributes:
        is_used: True once the process got a video, which may have damaged the process.
        is_free: True while the process can take a task.

    Raises:
        InvalidVideoError: The process does not start.
    """

    def __init__(self, job_module: str) -> None:
        self.is_used = False
        self.is_free = True
        self._is_ready = False
        self._connection, child_end = socket.socketpair()
        self._incoming = messages.Incoming(self._connection)
        self._file = io.BufferedReader(self._incoming)
        try:
            with child_end:
                self._process = _start(child_end.fileno(), job_module)
        except OSError as error:
            self._file.close()
            self._connection.close()
            raise _start_error(error.strerror) from error

    @property
    def is_alive(self) -> bool:
        """True while the process runs; False in a fork of the process that started it."""
        return self._process.poll() is None

    def answers(
        self,
        task: Task,
        descriptor: int | None,
        seconds: Callable[[], float],
        check: Callable[[], object],
    ) -> Generator[Any, None, None]:
        """Sends a task, and gives the answers as they come.

        Args:
            task: The task.
            descriptor: The descriptor of the video's file; None where the video has a path.
            seconds: Called for each answer; returns how many seconds the answer may take.
            check: Called now and then before an answer begins to come; what it raises ends the
                wait.

        Raises:
            InvalidVideoError: The process does not start.
            AccidentError: The process crashed, was killed, or took too much time or memory.
            Exception: Any error that the job or the check raises.
        """
        self.is_free = False
        self._wait_until_ready()
        self.is_used = True
        try:
            self._connection.settimeout(_START_SECONDS)
            descriptors = [] if descriptor is None else [descriptor]
            socket.send_fds(self._connection, [b"."], descriptors)
            messages.send(self._connection, task)
            while True:
                kind, value = self._receive(seconds(), check)
                if kind != "answer":
                    break
                yield value
        except _UnwantedError as unwanted:
            raise unwanted.reason from None
        except TimeoutError as error:
            raise AccidentError("time") from error
        except (EOFError, OSError, messages.BrokenMessageError) as error:
            raise AccidentError("crash", self._reason()) from error
        if isinstance(value, MemoryError):
            raise AccidentError("memory") from value
        self.is_free = True
        if isinstance(value, Exception):
            raise value

    def kill(self) -> None:
        """Kills the process; a thread that waits for its answer gets an ``AccidentError``."""
        self._process.kill()

    def end(self) -> None:
        """Kills the process, and frees everything that belongs to it."""
        self._process.kill()
        self._process.wait()
        self._file.close()
        self._connection.close()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _wait_until_ready(self) -> None:
        if self._is_ready:
            return
        try:
            self._receive(_START_SECONDS)
        except TimeoutError as error:
            raise _start_error(f"it takes longer than {_START_SECONDS:g} seconds") from error
        except (EOFError, OSError, messages.BrokenMessageError) as error:
            raise _start_error(f"it {self._reason()}") from error
        self._is_ready = True

    def _receive(
        self, seconds: float, check: Callable[[], object] = lambda: None
    ) -> tuple[Any, ...]:
        def still_wanted() -> None:
            try:
                check()
            except Exception as error:
                raise _UnwantedError(error) from error

        self._incoming.deadline = time.monotonic() + seconds
        self._incoming.check = still_wanted
        self._file.peek(1)  # waits for the first byte
        self._incoming.check = lambda: None  # an error amid a message would count as its damage
        message = messages.receive(self._file)
        if not isinstance(message, tuple) or len(message) != 2:
            raise messages.BrokenMessageError("it is not a pair")
        return message

    def _reason(self) -> str:
        """Says why the process does not answer as it should."""
        try:
            code = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return "gave an answer that cannot be read"
        if code == -signal.SIGKILL:
            return "was killed (SIGKILL), as where the machine's memory ends"
        if code == -signal.SIGTERM:
            return "was killed (SIGTERM)"
        if code < 0:
            return f"crashed ({signal.Signals(-code).name})"
        return f"ended with code {code}"


def _start(descriptor: int, job_module: str) -> subprocess.Popen[bytes]:
    # The process gets a group of its own, because Ctrl-C on a terminal is for the parent. With -P
    # it imports nothing from the working directory, which may hold files of strangers.
    paths = [path or os.getcwd() for path in sys.path if isinstance(path, str)]  # noqa: PTH109
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-P", "-c", _START, str(descriptor), job_module, *paths],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        pass_fds=[descriptor],
        process_group=0,
    )


def _start_error(reason: object) -> InvalidVideoError:
    return InvalidVideoError(
        f"the process that is to read videos does not start ({reason}); leave out `isolated`"
    )
