"""A broker of MQTT 3.1.1 on the loopback interface: enough of it to see what a client publishes.

    broker = Broker(); broker.start(); ...; broker.stop()

It confirms each message, keeps retained ones, tells the last will of a client that goes away
without a word, and has no subscribers: tests look at ``messages`` and ``retained``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import socketserver
import struct
import threading
from typing import Any

_CONNECT, _PUBLISH, _PING, _DISCONNECT = 1, 3, 12, 14
_HAS_USER, _HAS_PASSWORD, _WILL_RETAINED, _HAS_WILL = 0x80, 0x40, 0x20, 0x04


@dataclasses.dataclass(frozen=True)
class Published:
    """A message that a client, or its last will, published."""

    topic: str
    body: str
    retained: bool
    quality: int
    again: bool = False


class _Handler(socketserver.StreamRequestHandler):
    server: Broker

    def handle(self) -> None:
        self.server.connections.add(self.request)
        will: Published | None = None
        try:
            while first := self.rfile.read(1):
                kind, flags = first[0] >> 4, first[0] & 15
                packet = self.rfile.read(self._length())
                if kind == _CONNECT:
                    will = self._connect(packet)
                elif kind == _PUBLISH:
                    self._publish(packet, flags)
                elif kind == _PING:
                    self.wfile.write(b"\xd0\x00")
                elif kind == _DISCONNECT:
                    will = None
                    break
        except (OSError, IndexError, struct.error):
            pass
        finally:
            self.server.connections.discard(self.request)
            if will is not None:
                self.server.take(will)

    def _length(self) -> int:
        length, shift = 0, 0
        while True:
            byte = self.rfile.read(1)[0]
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return length

    def _connect(self, packet: bytes) -> Published | None:
        texts, rest = [], packet
        protocol, rest = _text(rest)
        assert protocol == "MQTT"
        flags = rest[1]
        _, rest = _text(rest[4:])
        while rest:
            text, rest = _text(rest)
            texts.append(text)
        will = None
        if flags & _HAS_WILL:
            quality = flags >> 3 & 3
            will = Published(texts.pop(0), texts.pop(0), bool(flags & _WILL_RETAINED), quality)
        user = texts.pop(0) if flags & _HAS_USER else None
        password = texts.pop(0) if flags & _HAS_PASSWORD else None
        self.server.logins.append((user, password))
        self.wfile.write(bytes([0x20, 2, 0, self.server.refusal]))
        if self.server.refusal:
            self.server.refuse()
        return will

    def _publish(self, packet: bytes, flags: int) -> None:
        quality = flags >> 1 & 3
        topic, rest = _text(packet)
        number, body = (rest[:2], rest[2:]) if quality else (b"", rest)
        self.server.take(Published(topic, body.decode(), bool(flags & 1), quality, bool(flags & 8)))
        if quality and self.server.confirms:
            self.wfile.write(b"\x40\x02" + number)


def _text(packet: bytes) -> tuple[str, bytes]:
    (length,) = struct.unpack(">H", packet[:2])
    return packet[2 : 2 + length].decode(), packet[2 + length :]


class Broker(socketserver.ThreadingTCPServer):
    """The broker; ``port`` 0 takes a free port."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.messages: list[Published] = []
        self.retained: dict[str, str] = {}
        self.logins: list[tuple[str | None, str | None]] = []
        self.connections: set[Any] = set()
        self.confirms = True
        self.refused = 0  # number of connections
        self.refusal = 0  # the code with which it answers a client that connects; 0 takes it
        self.changed = threading.Condition()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def take(self, message: Published) -> None:
        with self.changed:
            self.messages.append(message)
            if message.retained:
                self.retained[message.topic] = message.body
            self.changed.notify_all()

    def refuse(self) -> None:
        with self.changed:
            self.refused += 1
            self.changed.notify_all()

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
