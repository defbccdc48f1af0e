"""SharedGenerator: a generator that several threads may use, and a forked process may drop."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Generator
from types import TracebackType
from typing import Any, TypeVar, overload

from timesformer_runtime.errors import ClosedError
from timesformer_runtime.forks import call_in_forks, keep_forever

T = TypeVar("T")


class SharedGenerator(Generator[T, None, None]):
    """Wraps a generator that has threads of its own, so that any thread may use it.

    One thread at a time runs the generator, and the others wait for it. So a thread may close the
    generator while another one waits for its next item, as services do when a client leaves.

    A forked process does not have the generator's threads. There asking for an item raises
    ``ClosedError``, and closing or deleting the generator ends nothing that belongs to the parent.

    Args:
        items: The generator.
        name: A word for the generator, for the error.
    """

    def __init__(self, items: Generator[T, None, None], name: str) -> None:
        self._items = items
        self._name = name
        self._lock = threading.RLock()
        call_in_forks(self, SharedGenerator._leave_to_parent)

    def send(self, value: None, /) -> T:
        """Gives the next item."""
        with self._lock:
            return self._items.send(value)

    @overload
    def throw(
        self,
        typ: type[BaseException],
        val: BaseException | object = None,
        tb: TracebackType | None = None,
        /,
    ) -> T: ...

    @overload
    def throw(
        self, typ: BaseException, val: None = None, tb: TracebackType | None = None, /
    ) -> T: ...

    def throw(self, *error: Any) -> T:
        """Raises an error where the generator waits, and gives the next item."""
        with self._lock:
            return self._items.throw(*error)

    def close(self) -> None:
        """Ends the generator and its threads; waits for another thread that runs it."""
        with self._lock:
            self._items.close()

    def _leave_to_parent(self) -> None:
        """Gives up a generator that has begun, in a forked process."""
        self._lock = threading.RLock()
        if inspect.getgeneratorstate(self._items) in {inspect.GEN_SUSPENDED, inspect.GEN_RUNNING}:
            keep_forever(self._items)
            self._items = _refusal(self._name)


def _refusal(name: str) -> Generator[Any, None, None]:
    raise ClosedError(
        f"the {name} began before this process was forked, and its threads are those of the "
        f"parent; begin a {name} in this process"
    )
    yield  # makes this function a generator
