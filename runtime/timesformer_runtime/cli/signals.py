"""Signals as notes: a command with work to end looks at them between two steps."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any


@dataclasses.dataclass
class Signals:
    """Signals that came and were not seen to yet.

    Attributes:
        stop: The signal that asks the program to end; None while none came.
        reload: True if a signal asks the program to read its configuration again.
        wake: Called after each signal. While it is None, SIGINT and SIGTERM end the program as
            usual, because nobody looks at the notes yet.
    """

    stop: int | None = None
    reload: bool = False
    wake: Callable[[], None] | None = None


@contextlib.contextmanager
def caught_signals() -> Iterator[Signals]:
    """Notes SIGINT, SIGTERM and SIGHUP; a second SIGINT or SIGTERM ends the program as usual."""
    signals = Signals()

    def stop(number: int, _: FrameType | None) -> None:
        signal.signal(number, before[number])
        if signals.wake is None:
            signal.raise_signal(number)
            return
        signals.stop = number
        signals.wake()

    def reload(_number: int, _: FrameType | None) -> None:
        signals.reload = True
        if signals.wake is not None:
            signals.wake()

    before: dict[int, Any] = {
        number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)
    }
    if hasattr(signal, "SIGHUP"):
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, reload)
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
