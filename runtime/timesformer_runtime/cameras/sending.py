"""Sender: the spool, and the deliveries to the receivers of a configuration."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

from timesformer_runtime.cameras.configuration import Configuration
from timesformer_runtime.cameras.delivery import Delivery, Receiver
from timesformer_runtime.cameras.messages import Message
from timesformer_runtime.cameras.spool import Spool

_LAST_SECONDS = 5.0  # for the receivers to take the last events, at the end of the program


class Sender:
    """Sends messages to the receivers; does nothing where a configuration has none.

    Args:
        configuration: The receivers and the spool.
        notify: Called with one sentence about a receiver, from any thread.

    Raises:
        OutputError: The spool cannot be used.
        MissingDependencyError: A library for a receiver is not installed.
    """

    def __init__(self, configuration: Configuration, notify: Callable[[str], None]) -> None:
        self._configuration = configuration
        self._notify = notify
        self._spool: Spool | None = None
        self._deliveries: list[Delivery] = []
        if configuration.spool is None:
            return
        names = [name for name in ("webhook", "mqtt") if getattr(configuration, name)]
        self._spool = Spool(configuration.spool, names, configuration.spool_events)
        try:
            receivers = _receivers(configuration)
        except BaseException:
            self._spool.close()
            raise
        self._deliveries = [Delivery(self._spool, receiver, notify) for receiver in receivers]

    def end_interrupted(self) -> list[Message]:
        """Ends the events that a killed process had begun; gives their ends."""
        return self._spool.end_interrupted() if self._spool else []

    def put(self, messages: Sequence[Message]) -> None:
        """Takes messages: they are on the disk when this returns.

        Raises:
            OutputError: The spool cannot be written.
        """
        if self._spool is None or not messages:
            return
        dropped = self._spool.put(messages)
        if dropped:
            self._notify(
                f"the spool is full ({self._configuration.spool_events} events): {dropped} of the "
                "oldest events were dropped"
            )

    def check(self) -> None:
        """Makes sure that the deliveries go on.

        Raises:
            OutputError: The spool cannot be used any more.
        """
        for delivery in self._deliveries:
            delivery.check()

    def goes_on_with(self, configuration: Configuration) -> bool:
        """True if another configuration has the same receivers and spool."""
        return all(
            getattr(configuration, name) == getattr(self._configuration, name)
            for name in ("webhook", "mqtt", "spool", "spool_events")
        )

    def close(self) -> None:
        """Gives the receivers a few seconds for the last events; the rest stays in the spool."""
        if self._spool is None:
            return
        deadline = time.monotonic() + _LAST_SECONDS

        def close(delivery: Delivery) -> None:
            delivery.close(max(0.0, deadline - time.monotonic()))

        with contextlib.ExitStack() as calls:  # each is called, even if the spool is broken
            calls.callback(self._spool.close)
            for delivery in self._deliveries:
                calls.callback(close, delivery)
            self._spool.wait_until_empty(_LAST_SECONDS)


@contextlib.contextmanager
def sending(configuration: Configuration, notify: Callable[[str], None]) -> Iterator[Sender]:
    """Makes a sender, and closes it at the end."""
    with contextlib.closing(Sender(configuration, notify)) as sender:
        yield sender


def _receivers(configuration: Configuration) -> list[Receiver]:
    """Connects to the receivers; each brings libraries that only its users need."""
    found: list[Receiver] = []
    if configuration.webhook is not None:
        from timesformer_runtime.cameras.webhook import Webhook  # noqa: PLC0415

        found.append(Webhook(configuration.webhook))
    if configuration.mqtt is not None:
        from timesformer_runtime.cameras.mqtt import Mqtt  # noqa: PLC0415

        found.append(Mqtt(configuration.mqtt))
    return found
