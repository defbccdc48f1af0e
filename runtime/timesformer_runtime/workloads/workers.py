"""A thread pool for the runs of the model, and the number of threads that suits a machine."""

from __future__ import annotations

import atexit
import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from timesformer_runtime.errors import InvalidOptionError, quoted
from timesformer_runtime.forks import call_in_forks

T = TypeVar("T")
R = TypeVar("R")

_MOST_RUNS = 8  # of the model at once: each takes memory
_MOST_WORKERS = 256


class Workers:
    """A pool of threads that accepts jobs even after the main thread has ended.

    ``concurrent.futures.ThreadPoolExecutor`` refuses jobs once the main thread has ended, although
    another thread may still need results. That pool also keeps the interpreter from ending before
    all jobs are done, even if only a daemon thread wants the results. When the interpreter ends,
    this pool drops the jobs that have not begun, and the interpreter waits for the others.

    Args:
        count: Largest number of threads.
        name: Beginning of the threads' names.
    """

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._is_closed = False
        self._lock = threading.Lock()
        call_in_forks(self, Workers._leave_to_parent)

    def start(self, function: Callable[[T], R], item: T) -> Future[R]:
        """Calls a function with an item as soon as a thread is free.

        Returns:
            A future with the result or error of the call; cancelled if the pool is closed.
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
        """Drops the jobs that have not begun, and ends the threads.

        Args:
            wait: True to wait for the jobs that have begun.
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

    def _leave_to_parent(self) -> None:
        """Forgets the threads, in a forked process, which does not have them."""
        atexit.unregister(self.close)

    def _add_thread(self) -> None:
        """Starts one more thread, unless the system allows no more."""
        thread = threading.Thread(
            target=_work, args=(self._jobs,), name=f"{self._name} {len(self._threads)}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # the system allows no more threads
            if not self._threads:
                raise
            return
        if not self._threads:
            # A thread that still runs FFmpeg after the interpreter has ended crashes the process.
            atexit.register(self.close)
        self._threads.append(thread)


_Job = tuple[Future[Any], Callable[[Any], Any], Any]


def _work(jobs: queue.SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        _do(*job)
        del job  # the item may be large


def _drop(future: Future[Any]) -> None:
    future.cancel()
    future.set_running_or_notify_cancel()  # wakes the threads that wait for the future


def _do(future: Future[R], function: Callable[[T], R], item: T) -> None:
    future.set_running_or_notify_cancel()
    try:
        result = function(item)
    except BaseException as error:  # raised where the result is used
        future.set_exception(error)
    else:
        future.set_result(result)


def shared_threads(threads: int) -> int:
    """Divides threads among as many runs at once as are useful; returns the threads of one run.

    Many runs of few threads do more work in a second than few runs of many: the threads of one run
    wait for each other, those of different runs do not.
    """
    return next(n for n in range(1, threads + 1) if threads % n == 0 and threads // n <= _MOST_RUNS)


def usual_workers(threads: int) -> int:
    """The default number of workers: one more than threads, as a worker may wait for the disk."""
    return min(threads + 1, _MOST_WORKERS)


def check_workers(workers: object) -> None:
    """Makes sure that a number of workers is possible.

    Raises:
        InvalidOptionError: The number is not an integer in the allowed range.
    """
    if type(workers) is not int or not 1 <= workers <= _MOST_WORKERS:
        raise InvalidOptionError(
            f"`workers` is {quoted(workers)}; it must be an integer from 1 to {_MOST_WORKERS}"
        )
