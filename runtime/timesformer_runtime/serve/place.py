"""Place: a request's right to be worked on or to wait, and what to clean up after it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from timesformer_runtime.extras import needs_extra

with needs_extra("serve"):
    from starlette.requests import ClientDisconnect

T = TypeVar("T")


class Place:
    """A request's place in the service.

    Threads call ``check``, ``clean_later`` and ``clean``, in a job for which the place is held; the
    event loop calls the other methods, and ``clean_later``, too.

    Attributes:
        is_gone: Set where the client has left: threads then stop at their next step.
    """

    def __init__(self, release: Callable[[Place], None]) -> None:
        self.is_gone = threading.Event()
        self._leftovers: list[Callable[[], object]] = []
        self._release = release
        self._jobs = 0
        self._is_left = False

    def check(self) -> None:
        """Makes sure, between two steps of the work, that the client is still there.

        Raises:
            ClientDisconnect: The client has left.
        """
        if self.is_gone.is_set():
            raise ClientDisconnect

    def hold_for(self, job: Future[T]) -> asyncio.Future[T]:
        """Holds the place until a job is done or dropped, and gives its answer to the event loop.

        (``asyncio.wrap_future`` would wake the event loop a second time for each job.)

        Returns:
            The answer; to cancel it drops a job that has not begun.
        """
        self._jobs += 1
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def done(_: Future[T]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._job_done, job, answer)

        answer.add_done_callback(lambda answer: answer.cancelled() and job.cancel())
        job.add_done_callback(done)
        return answer

    def clean_later(self, remove: Callable[[], object]) -> None:
        """Makes a thread call a function once nothing works for the request any more."""
        self._leftovers.append(remove)

    @property
    def has_leftovers(self) -> bool:
        """True while there is something to clean."""
        return bool(self._leftovers)

    def clean(self) -> None:
        """Calls these functions, the last first; the last job may do so, in its thread."""
        with contextlib.ExitStack() as calls:  # each is called, even if another one fails
            for remove in self._leftovers:
                calls.callback(remove)
            self._leftovers.clear()

    def leave(self) -> None:
        """Gives the place back, or leaves that to the job that is going on."""
        if not self._is_left:
            self._is_left = True
            self._release_if_idle()

    def _job_done(self, job: Future[T], answer: asyncio.Future[T]) -> None:
        self._jobs -= 1
        self._release_if_idle()
        if answer.done():
            return
        if job.cancelled():
            answer.cancel()
        elif (error := job.exception()) is not None:
            answer.set_exception(error)
        else:
            answer.set_result(job.result())

    def _release_if_idle(self) -> None:
        if self._is_left and not self._jobs:
            self._release(self)
