"""Timed: how long the calls of a function take."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Timed(Generic[P, R]):
    """Calls a function, in one thread, and adds up the wall time that it takes.

    Args:
        function: The function.

    Attributes:
        seconds: What all calls so far took.
    """

    def __init__(self, function: Callable[P, R]) -> None:
        self.seconds = 0.0
        self._function = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls the function."""
        start = time.perf_counter()
        try:
            return self._function(*args, **kwargs)
        finally:
            self.seconds += time.perf_counter() - start
