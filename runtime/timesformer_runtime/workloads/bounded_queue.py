"""BoundedQueue: hands items from one thread to another, and never holds more than a few of them."""

from __future__ import annotations

import atexit
import collections
import contextlib
import contextvars
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, Generic, TypeVar

from timesformer_runtime.forks import call_in_forks

T = TypeVar("T")


class BoundedQueue(Generic[T]):
    """A bounded queue between one producer and one consumer; either of them can end it.

    Args:
        capacity: The largest sum of the sizes of waiting items. A single item may be larger.
        drop: True if a full queue drops its oldest items for a new one; False if the producer
            waits.
        size: Gives the size of an item; by default 1.
        on_change: Called after each item and at the end, in the producer's thread: for a consumer
            that waits for several queues.
    """

    def __init__(
        self,
        capacity: int,
        *,
        drop: bool,
        size: Callable[[T], int] = lambda _: 1,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._capacity = capacity
        self._drop = drop
        self._size = size
        self._on_change = on_change
        self._items: collections.deque[T] = collections.deque()
        self._waiting = 0  # the sum of the sizes of the items
        self._changed = threading.Condition()
        self._ended = False
        self._closed = threading.Event()
        self._error: BaseException | None = None
        self._interpreter_ends = False
        call_in_forks(self, BoundedQueue._leave_to_parent)

    @property
    def closed(self) -> threading.Event:
        """The event that ``close`` sets, after which the producer should stop."""
        return self._closed

    def fill(self, items: Generator[T, None, None], name: str) -> threading.Thread:
        """Starts a thread of that name that puts the items, and their error, into the queue.

        The thread is a daemon, and has the context variables of the caller. When the interpreter
        ends, it closes all queues, and then waits until the threads are done.
        """

        def fill() -> None:
            try:
                if not self._closed.is_set():
                    self._fill(items)
            finally:
                _filled.pop(self, None)

        thread = threading.Thread(
            target=contextvars.copy_context().run, args=(fill,), name=name, daemon=True
        )
        _filled[self] = thread
        thread.start()
        return thread

    def interrupt(self) -> None:
        """Ends both sides of the queue, because the interpreter ends."""
        self._interpreter_ends = True
        self.close()

    def put(self, item: T) -> bool:
        """Adds an item. Returns False once the queue is closed: the producer should stop."""
        with self._changed:
            if not self._drop:
                self._changed.wait_for(lambda: self._closed.is_set() or self._has_room(item))
            if self._closed.is_set():
                return False
            while not self._has_room(item):
                self._take()
            self._items.append(item)
            self._waiting += self._size(item)
            self._changed.notify_all()
        self._on_change()
        return True

    def end(self, error: BaseException | None = None) -> None:
        """Ends the producer's side: the consumer gets the waiting items, then the error."""
        with self._changed:
            self._ended = True
            self._error = error
            self._changed.notify_all()
        self._on_change()

    def poll(self) -> T | None:
        """Gives the next item, without waiting; None where no item waits."""
        with self._changed:
            if not self._items:
                return None
            item = self._take()
            self._changed.notify_all()
            return item

    def outcome(self) -> tuple[bool, BaseException | None]:
        """Tells whether the producer has ended and no item waits, and the producer's error."""
        with self._changed:
            return self._ended and not self._items, self._error

    def __iter__(self) -> Iterator[T]:
        """Waits for items and gives them, until the producer ends or the queue is closed.

        Raises:
            BaseException: The error that ``end`` was given.
            SystemExit: The interpreter ends, and the consumer is a daemon thread.
        """
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closed.is_set() or self._ended or bool(self._items)
                )
                if self._interpreter_ends:
                    raise SystemExit  # the thread ends as well, without a traceback
                if self._closed.is_set():
                    return
                if not self._items:
                    if self._error is not None:
                        raise self._error
                    return
                item = self._take()
                self._changed.notify_all()
            yield item

    def close(self) -> None:
        """Ends the consumer's side: drops the waiting items; both sides stop waiting."""
        with self._changed:
            self._closed.set()
            self._items.clear()
            self._waiting = 0
            self._changed.notify_all()

    def _leave_to_parent(self) -> None:
        """Forgets the thread, in a forked process, which does not have it."""
        _filled.pop(self, None)

    def _has_room(self, item: T) -> bool:
        return not self._items or self._waiting + self._size(item) <= self._capacity

    def _take(self) -> T:
        item = self._items.popleft()
        self._waiting -= self._size(item)
        return item

    def _fill(self, items: Generator[T, None, None]) -> None:
        try:
            with contextlib.closing(items):
                for item in items:
                    if not self.put(item):
                        break
        except BaseException as error:  # raised where the items are used
            self.end(error)
        else:
            self.end()


_filled: dict[BoundedQueue[Any], threading.Thread] = {}  # the queues that a thread fills


@atexit.register  # at the import, so that it runs after all that threads register: the last first
def _end_all() -> None:
    """Ends the threads: one that still runs FFmpeg after the interpreter crashes the process.

    A thread may wait for the queue of another one, so all queues are closed before any wait.
    """
    filled = tuple(_filled.items())
    for queue, _ in filled:
        queue.interrupt()
    for _, thread in filled:
        if thread.ident is not None:  # the thread was started
            thread.join()
