"""The steps of an export: their titles, and how long each takes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator


class Steps:
    """Announces the steps of an export, and measures how many seconds each takes.

    Args:
        announce: Gets the title of each step when the step begins.

    Attributes:
        announce: As given; for steps of several parts.
        seconds: The time of each finished step, by its name.
    """

    def __init__(self, announce: Callable[[str], None]) -> None:
        self.announce = announce
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def step(self, name: str, text: str | None = None) -> Iterator[None]:
        """Measures the block as one step; without a text, the block announces its parts itself."""
        if text is not None:
            self.announce(text)
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 3)
