"""How much memory the frames of windows take, which share many of them."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable


@dataclasses.dataclass(slots=True)
class Weight:
    """What one frame takes, in bytes, and how many windows hold it."""

    size: int
    holders: int = 0


class HeldMemory:
    """Counts what frames take together, each once, from its first use on.

    Args:
        check: Is told the sum in bytes at each use; may raise. None where nobody asks.
        in_use: How many complete windows may wait for the model, or be in it.
    """

    def __init__(self, check: Callable[[int], None] | None, in_use: int) -> None:
        self._check = check
        self._in_use = in_use
        self._bytes = 0
        self._complete: collections.deque[list[Weight]] = collections.deque()

    def hold(self, frame: Weight) -> None:
        """A window uses the frame."""
        frame.holders += 1
        if frame.holders == 1:
            self._bytes += frame.size
        if self._check is not None:
            self._check(self._bytes)

    def complete(self, window: Iterable[Weight]) -> None:
        """A window has all its frames, which soon nobody holds for its sake."""
        self._complete.append(list(window))
        if len(self._complete) > self._in_use:
            self.release(self._complete.popleft())

    def release(self, window: Iterable[Weight]) -> None:
        """A window does not use these frames any more."""
        for frame in window:
            frame.holders -= 1
            if frame.holders == 0:
                self._bytes -= frame.size
