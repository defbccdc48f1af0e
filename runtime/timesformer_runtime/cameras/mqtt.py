"""Mqtt: publishes each event at a broker, and says whether this program runs.

Topics, below the prefix: ``events/SOURCE`` for the events, and ``availability`` with the retained
message ``online`` or, as the broker's last will too, ``offline``.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import time
from typing import Any
from urllib.parse import quote

from timesformer_runtime.cameras.delivery import UnreachableError
from timesformer_runtime.cameras.receivers import MqttSettings
from timesformer_runtime.cameras.spool import Waiting
from timesformer_runtime.errors import InvalidOptionError
from timesformer_runtime.extras import needs_extra

_AT_LEAST_ONCE = 1  # quality of service
_KEEP_ALIVE = 30  # seconds; the broker tells the last will after 1.5 times as long
_PATIENCE = 30.0  # seconds until a broker that does not confirm counts as away
_CHECK_INTERVAL = 0.5  # seconds between two looks whether the program ends
_SAFE = " -_.~,:()"  # characters of a source's name that a topic has as they are


class Mqtt:
    """A connection to a broker, which paho keeps up in a thread of its own.

    Args:
        settings: The broker.

    Raises:
        MissingDependencyError: paho-mqtt is not installed.
        InvalidOptionError: The file of certificates cannot be used.
    """

    name = "mqtt"

    def __init__(self, settings: MqttSettings) -> None:
        with needs_extra("serve"):
            from paho.mqtt import client  # noqa: PLC0415
            from paho.mqtt.enums import CallbackAPIVersion  # noqa: PLC0415
        self._settings = settings
        self._state = f"{settings.prefix}/availability"
        self._reason = "no broker answers"
        self._is_refused = False
        self._sent: tuple[int, int] | None = None  # numbers of the spool and of paho
        self._confirmed: set[int] = set()  # paho's numbers of messages
        self._changed = threading.Condition()
        self._client = client.Client(CallbackAPIVersion.VERSION2)
        self._client.reconnect_delay_set(1, 60)
        self._client.will_set(self._state, "offline", _AT_LEAST_ONCE, retain=True)
        if settings.credentials is not None:
            self._client.username_pw_set(*settings.credentials)
        if settings.encrypted:
            try:
                context = ssl.create_default_context(cafile=settings.ca_file)
            except (OSError, ssl.SSLError) as error:
                raise InvalidOptionError(
                    f"`ca_file` is {settings.ca_file}, which cannot be used: {error}"
                ) from error
            self._client.tls_set_context(context)
        self._client.on_connect = self._connected
        self._client.on_disconnect = self._disconnected
        self._client.on_publish = self._published
        self._client.connect_async(settings.host, settings.port, _KEEP_ALIVE)
        self._client.loop_start()

    @property
    def address(self) -> str:
        """Where the messages go, without secrets."""
        return self._settings.name

    def send(self, message: Waiting, stopped: threading.Event) -> None:
        """Publishes a message, and waits until the broker confirms it.

        Raises:
            UnreachableError: The broker does not confirm it for half a minute, or ``stopped`` was
                set.
        """
        if self._sent is None or self._sent[0] != message.number:
            source = quote(json.loads(message.body)["source"], safe=_SAFE)
            topic = f"{self._settings.prefix}/events/{source}"
            published = self._client.publish(topic, message.body, _AT_LEAST_ONCE)
            self._sent = message.number, published.mid
        # paho itself publishes the message again after it has connected again.
        number = self._sent[1]
        deadline = time.monotonic() + _PATIENCE
        with self._changed:
            while number not in self._confirmed:
                if stopped.is_set():
                    raise UnreachableError("the program ends")
                if time.monotonic() > deadline:
                    raise UnreachableError(self._reason)
                self._changed.wait(_CHECK_INTERVAL)
            self._confirmed.clear()
        self._sent = None

    def close(self) -> None:
        """Publishes that this program does not run any more, and disconnects."""
        if self._client.is_connected():
            said = self._client.publish(self._state, "offline", _AT_LEAST_ONCE, retain=True)
            with contextlib.suppress(RuntimeError, ValueError):  # the connection was lost meanwhile
                said.wait_for_publish(2.0)
        self._client.disconnect()
        self._client.loop_stop()

    def _connected(self, client: Any, _data: Any, _flags: Any, reason: Any, _: Any) -> None:
        self._is_refused = reason.is_failure
        if self._is_refused:
            self._reason = f"the broker refuses the connection: {reason}"
            return
        self._reason = "the broker does not confirm"
        client.publish(self._state, "online", _AT_LEAST_ONCE, retain=True)

    def _disconnected(self, _client: Any, _data: Any, _flags: Any, reason: Any, _: Any) -> None:
        if not self._is_refused:  # a refusal ends the connection too
            self._reason = f"no broker answers ({reason})"

    def _published(self, _client: Any, _data: Any, number: int, _reason: Any, _: Any) -> None:
        with self._changed:
            self._confirmed.add(number)
            self._changed.notify_all()
