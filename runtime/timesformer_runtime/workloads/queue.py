"""BoundedQueue: hands items from one thread to another, and never holds more than a few of them."""

from __future__ import annotations

import atexit
import collections
import contextlib
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class BoundedQueue(Generic[T]):
    """A bounded queue between one producer and one consumer, that either of them can end.

    Args:
        capacity: How much may wait: the sum of the items' sizes. One item may always.
        drop: Whether a full channel gives up its oldest items for a new one. Otherwise the
            producer waits.
        size: The size of an item; by default each counts 1.
    """

    def __init__(
        self, capacity: int, *, drop: bool, size: Callable[[T], int] = lambda _: 1
    ) -> None:
        self._capacity = capacity
        self._drop = drop
        self._size = size
        self._items: collections.deque[T] = collections.deque()
        self._waiting = 0  # the sum of their sizes
        self._changed = threading.Condition()
        self._ended = False
        self._closed = threading.Event()
        self._error: BaseException | None = None
        self._interpreter_ends = False

    @property
    def closed(self) -> threading.Event:
        """Set when nobody wants further items."""
        return self._closed

    def fill(self, items: Generator[T, None, None], name: str) -> threading.Thread:
        """Starts a thread of that name that puts the items, and their error, into the channel.

        It does not keep the interpreter from ending, which closes the channel and waits for it.
        """

        def end() -> None:
            # A thread that is still in FFmpeg when the interpreter is gone takes the process down.
            self._interpreter_ends = True
            self.close()
            if thread.ident is not None:  # it was started
                thread.join()

        def fill() -> None:
            if not self._closed.is_set():
                self._fill(items)
            atexit.unregister(end)

        thread = threading.Thread(target=fill, name=name, daemon=True)
        atexit.register(end)
        thread.start()
        return thread

    def put(self, item: T) -> bool:
        """Adds an item. False where nobody wants it any more: the producer should stop."""
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
            return True

    def end(self, error: BaseException | None = None) -> None:
        """Says that nothing follows: the consumer gets what is there, and then the error."""
        with self._changed:
            self._ended = True
            self._error = error
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        """Gives the items, waiting for them, to the end or until the channel is closed.

        Raises:
            BaseException: What ``end`` was given.
            SystemExit: The interpreter ends, and this is a thread that it does not wait for.
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
        """Wants no more items; both sides stop waiting."""
        with self._changed:
            self._closed.set()
            self._items.clear()
            self._waiting = 0
            self._changed.notify_all()

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
