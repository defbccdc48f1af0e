"""Helps worker processes, which use damaged files and answer what happened."""

import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REFUSED = "refused"
_STILL_LISTED = 2.0  # seconds for which the system may list a thread that has ended
_LONGEST = 1000  # characters of a message


@contextmanager
def limited_memory(more: int) -> Iterator[None]:
    """Limits the address space of this process, in the block, to so many bytes more than now."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    before, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + more, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, most))


def answer_all(use: Callable[[str, int], dict[str, Any]]) -> None:
    """Answers each line ``seed number`` of the input with a line of JSON.

    Args:
        use: Damages and uses a seed; returns the outcome and the seconds it took.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries may print
    before = _open_things()
    for line in sys.stdin:
        name, number = line.split()
        forget_peak()
        answer = use(name, int(number))
        answer["left_open"] = _left_open(before)
        answer["peak_mib"] = peak_mib()
        print(json.dumps(answer), file=answers, flush=True)


def refusal(error: Exception) -> str:
    """Judges an error of ours: a refusal if its message is a short line, else a finding."""
    message = str(error)
    if "\n" in message:
        return f"an error of several lines: {error!r}"
    if len(message) > _LONGEST:
        return f"an error of {len(message)} characters: {message[:_LONGEST]}"
    if not message.isprintable():
        return f"an error with characters that are not plain: {message!a}"
    return REFUSED


def forget_peak() -> int:
    """Resets ``peak_mib`` to the memory that the process takes now, and returns that."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_mib()


def peak_mib() -> int:
    """Returns the largest memory that the process has taken, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) >> 10


def _left_open(before: tuple[int, int, int]) -> list[int]:
    """Counts the things that are open now and were not before; waits for threads that end."""
    end = time.monotonic() + _STILL_LISTED
    while True:
        more = [now - then for now, then in zip(_open_things(), before, strict=True)]
        if max(more) <= 0 or time.monotonic() > end:
            return more
        time.sleep(0.01)


def _open_things() -> tuple[int, int, int]:
    """Counts open files, Python's threads, and all threads."""
    files = len(list(Path("/proc/self/fd").iterdir()))
    return files, threading.active_count(), len(list(Path("/proc/self/task").iterdir()))
