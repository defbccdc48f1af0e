"""How the cores are shared out where the model runs again and again."""

from __future__ import annotations

import atexit
import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from timesformer_runtime.errors import InvalidOptionError

T = TypeVar("T")
R = TypeVar("R")

_MOST_RUNS = 8  # at once: each takes memory
_MOST_WORKERS = 256


class Workers:
    """Threads that do what they are given, one thing after the other.

    The pool of ``concurrent.futures`` takes nothing more once the main thread has ended, although
    another one may go on for long; this one does. It does not keep the interpreter from ending,
    which drops what was not begun and waits for the rest.

    Args:
        count: How many threads there are at most.
        name: What their names begin with.
    """

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._is_closed = False
        self._lock = threading.Lock()

    def start(self, function: Callable[[T], R], item: T) -> Future[R]:
        """Calls a function with an item as soon as a thread is free.

        Returns:
            What becomes of it; cancelled where these workers are closed.
        """
        future: Future[R] = Future()
        with self._lock:
            if self._is_closed:
                _drop(future)
                return future
            self._jobs.put((future, function, item))
            if len(self._threads) < self._count:
                self._add_thread()
        return future

    def close(self, *, wait: bool = True) -> None:
        """Drops what was not begun, and ends the threads.

        Args:
            wait: Whether to wait for what was begun.
        """
        with self._lock:
            self._is_closed = True
            with contextlib.suppress(queue.Empty):
                while True:
                    job = self._jobs.get_nowait()
                    if job is not None:
                        _drop(job[0])
            for _ in self._threads:
                self._jobs.put(None)
        if wait:
            for thread in self._threads:
                thread.join()
            atexit.unregister(self.close)

    def _add_thread(self) -> None:
        thread = threading.Thread(
            target=_work, args=(self._jobs,), name=f"{self._name} {len(self._threads)}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # the system allows no more
            if not self._threads:
                raise
            return
        if not self._threads:
            # A thread that is still in FFmpeg when the interpreter is gone takes the process down.
            atexit.register(self.close)
        self._threads.append(thread)


_Job = tuple[Future[Any], Callable[[Any], Any], Any]


def _work(jobs: queue.SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        _do(*job)
        del job  # the item may be large


def _drop(future: Future[Any]) -> None:
    future.cancel()
    future.set_running_or_notify_cancel()  # which tells those who wait


def _do(future: Future[R], function: Callable[[T], R], item: T) -> None:
    future.set_running_or_notify_cancel()
    try:
        result = function(item)
    except BaseException as error:  # raised where the result is used
        future.set_exception(error)
    else:
        future.set_result(result)


def shared_threads(threads: int) -> int:
    """How many of these threads one run should have; so many runs at once share them all.

    Runs of one thread never wait for each other, as the threads of one run do.
    """
    return next(n for n in range(1, threads + 1) if threads % n == 0 and threads // n <= _MOST_RUNS)


def usual_workers(threads: int) -> int:
    """One more than there are threads: it may wait for the model, or for the disk."""
    return min(threads + 1, _MOST_WORKERS)


def check_workers(workers: object) -> None:
    """Makes sure that there can be so many.

    Raises:
        InvalidOptionError: It is not an integer in that range.
    """
    if type(workers) is not int or not 1 <= workers <= _MOST_WORKERS:
        raise InvalidOptionError(
            f"workers is {workers!r}; it must be an integer from 1 to {_MOST_WORKERS}"
        )
