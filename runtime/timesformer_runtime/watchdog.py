"""Stops calls that take too long, such as a run of a graph with a loop that never ends.

One thread watches all calls of the process: starting a thread for each run would take longer than
a run of some models.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator


class Alarm:
    """Calls a function at a certain moment, unless the alarm is cancelled before.

    Attributes:
        rang: True once the function was called.
    """

    def __init__(self, seconds: float, ring: Callable[[], None]) -> None:
        self.time = time.monotonic() + seconds
        self.rang = False
        self._ring = ring

    def ring(self) -> None:
        """Calls the function."""
        self.rang = True
        self._ring()


class _Watchdog:
    """Rings alarms when their time has come, from a thread of its own."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._alarms: set[Alarm] = set()
        self._wakes = 0.0  # when the thread wakes without being notified
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def set(self, alarm: Alarm) -> None:
        with self._changed:
            self._alarms.add(alarm)
            if alarm.time < self._wakes:
                self._changed.notify()

    def cancel(self, alarm: Alarm) -> None:
        with self._changed:
            self._alarms.discard(alarm)

    def _watch(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                for alarm in [alarm for alarm in self._alarms if alarm.time <= now]:
                    self._alarms.discard(alarm)
                    alarm.ring()
                self._wakes = min(
                    (alarm.time for alarm in self._alarms), default=now + threading.TIMEOUT_MAX
                )
                self._changed.wait(min(self._wakes - now, threading.TIMEOUT_MAX))


class _Process:
    """The watchdog of this process. A forked process starts its own: threads are not inherited."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self._lock = threading.Lock()
        self._watchdog: _Watchdog | None = None

    def watchdog(self) -> _Watchdog:
        with self._lock:
            if self._watchdog is None:
                self._watchdog = _Watchdog()
            return self._watchdog


_process = _Process()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process.begin)


@contextlib.contextmanager
def time_limit(seconds: float, stop: Callable[[], None]) -> Iterator[Alarm]:
    """Calls ``stop`` from another thread if the ``with`` block takes longer than ``seconds``.

    Args:
        seconds: How long the block may take.
        stop: Makes the block end soon; must itself return at once.

    Yields:
        The alarm, which tells whether ``stop`` was called.
    """
    watchdog = _process.watchdog()
    alarm = Alarm(seconds, stop)
    watchdog.set(alarm)
    try:
        yield alarm
    finally:
        watchdog.cancel(alarm)
