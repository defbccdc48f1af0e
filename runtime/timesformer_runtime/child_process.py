"""Runs functions of this package in another process, whose memory and crashes are its own.

The two processes exchange lines of JSON. The child imports nothing from the working directory,
which may hold files of strangers, and ends when its parent does.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any, BinaryIO, Self

from timesformer_runtime import errors
from timesformer_runtime.errors import ChildError, TimesformerError
from timesformer_runtime.watchdog import time_limit

_START = (
    "import sys; sys.path[:] = sys.argv[2:]; "
    "from timesformer_runtime.child_process import main; main(sys.argv[1])"
)
_END_SECONDS = 3.0  # to wait for the end of a process that closed its output


class ChildProcess:
    """A process that runs one generator function; use it in a ``with`` statement.

    The function gets the first request and yields its answer; each further request is the value of
    that ``yield``. Requests and answers are values of JSON.

    Args:
        function: The function, as ``module:name``.

    Raises:
        ChildError: The system starts no more processes.
    """

    def __init__(self, function: str) -> None:
        paths = [path or os.getcwd() for path in sys.path if isinstance(path, str)]  # noqa: PTH109
        options: dict[str, Any] = {} if os.name == "nt" else {"process_group": 0}
        try:
            # The process gets a group of its own, because Ctrl-C on a terminal is for the parent.
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-c", _START, function, *paths],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                **options,
            )
        except OSError as error:
            raise ChildError(f"a process does not start ({error.strerror})") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, request: Any, seconds: float) -> Any:
        """Sends a request, and waits for its answer.

        Args:
            request: The request.
            seconds: How long the answer may take.

        Raises:
            ChildError: The process ended, or took too long.
            TimesformerError: The function raised such an error.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:  # for mypy: both are pipes
            raise ChildError("the process has no pipes")
        with contextlib.suppress(OSError):  # the process has ended, and readline() finds no answer
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()
        with time_limit(seconds, self._process.kill) as alarm:
            line = stdout.readline()
        if alarm.rang:
            raise ChildError(f"the process was not done after {seconds:g} seconds")
        if not line.endswith(b"\n"):
            raise ChildError(self._end())
        answer = json.loads(line)
        if "error" in answer:
            raise getattr(errors, answer["error"], TimesformerError)(answer["message"])
        return answer["answer"]

    def _end(self) -> str:
        """Says how the process ended."""
        try:
            code = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return "the process closed its output"
        if code == -getattr(signal, "SIGKILL", 0):
            return "the process was killed (SIGKILL), as where the memory ends"
        if code < 0:
            return f"the process crashed ({signal.Signals(-code).name})"
        return f"the process ended with code {code}"


def main(function: str) -> None:
    """Answers the parent's requests with a generator function until the parent ends."""
    with _private_stdout() as output:
        module, _, name = function.partition(":")
        run = getattr(importlib.import_module(module), name)
        generator: Generator[Any, Any, None] | None = None
        for line in sys.stdin.buffer:
            request = json.loads(line)
            try:
                if generator is None:
                    generator = run(request)
                    answer = {"answer": next(generator)}
                else:
                    answer = {"answer": generator.send(request)}
            except (TimesformerError, MemoryError) as error:
                message = errors.reason_of(error)
                answer = {"error": type(error).__name__, "message": message}
            output.write(json.dumps(answer).encode() + b"\n")
            output.flush()


@contextlib.contextmanager
def _private_stdout() -> Generator[BinaryIO, None, None]:
    """Gives standard output as a file on which libraries can no longer print."""
    with os.fdopen(os.dup(1), "wb") as output, Path(os.devnull).open("wb") as null:
        os.dup2(null.fileno(), 1)
        yield output
