"""Delivery: takes messages from the spool to one receiver, in order, until it has them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from timesformer_runtime.cameras.spool import Spool, Waiting

_FIRST_DELAY, _LONGEST_DELAY = 0.5, 60.0  # seconds between two attempts
_MOST_DOUBLINGS = 7  # of the delay


class UnreachableError(Exception):
    """The receiver does not take a message now; the message says why."""


class RefusedError(Exception):
    """The receiver will never take this message; the message says why."""


class Receiver(Protocol):
    """Where messages go."""

    @property
    def name(self) -> str:
        """The receiver's name in the spool."""

    @property
    def address(self) -> str:
        """The receiver's address without secrets, for messages to people."""

    def send(self, message: Waiting, stopped: threading.Event) -> None:
        """Sends a message, and returns when the receiver has it.

        Raises:
            UnreachableError: The receiver does not take it now, or ``stopped`` was set.
            RefusedError: The receiver will never take it.
        """

    def close(self) -> None:
        """Ends the connection."""


class Delivery:
    """A thread that sends the messages of a spool to one receiver.

    A receiver gets each message at least once: a kill between the receiver's answer and the note of
    it in the spool makes the next process send that message again, with the same id.

    Args:
        spool: Has the messages.
        receiver: Gets them.
        notify: Called with one sentence when the receiver is away, is back, or refuses a message.
    """

    def __init__(self, spool: Spool, receiver: Receiver, notify: Callable[[str], None]) -> None:
        self._spool = spool
        self._receiver = receiver
        self._notify = notify
        self._stopped = threading.Event()
        self._error: Exception | None = None
        name = f"delivery: {receiver.name}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Makes sure that the thread goes on.

        Raises:
            OutputError: The spool cannot be used any more.
            Exception: The receiver failed in another way than ``send`` may.
        """
        if self._error is not None:
            raise self._error

    def close(self, seconds: float) -> None:
        """Ends the thread, and waits for so long at most; messages that wait stay in the spool."""
        self._stopped.set()
        self._spool.wake()
        self._thread.join(seconds)
        self._receiver.close()

    def _run(self) -> None:
        try:
            while (message := self._spool.next(self._receiver.name, self._stopped)) is not None:
                if self._deliver(message):
                    self._spool.done(message.number)
        except Exception as error:  # raised by ``check``: nobody would see the end of a thread
            if not self._stopped.is_set():
                self._error = error

    def _deliver(self, message: Waiting) -> bool:
        """Sends a message until the receiver has it or refuses it; False where stopped before."""
        failures = 0
        while not self._stopped.is_set():
            try:
                self._receiver.send(message, self._stopped)
            except RefusedError as error:
                self._tell(f"{error}, so it will never get the event {message.id}")
                return True
            except UnreachableError as error:
                if failures == 0 and not self._stopped.is_set():
                    self._tell(f"{error}; events wait in the spool")
                delay = _FIRST_DELAY * 2 ** min(failures, _MOST_DOUBLINGS)
                failures += 1
                self._stopped.wait(min(delay, _LONGEST_DELAY))
            else:
                if failures:
                    self._tell("it takes events again")
                return True
        return False

    def _tell(self, sentence: str) -> None:
        self._notify(f"{self._receiver.name} {self._receiver.address}: {sentence}")
