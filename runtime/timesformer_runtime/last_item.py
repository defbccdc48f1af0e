"""Items of which the last one is told apart."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import TypeVar

T = TypeVar("T")


def change_last(
    items: Generator[T, None, None], change: Callable[[T], T]
) -> Generator[T, None, None]:
    """Gives each item once the next one is there, and the last one changed.

    Where an error ends the items, the one that waited comes before it, as it was.
    """
    waiting: list[T] = []
    with contextlib.closing(items):
        try:
            for item in items:
                yield from waiting
                waiting = [item]
        except Exception:
            yield from waiting
            raise
        yield from map(change, waiting)
