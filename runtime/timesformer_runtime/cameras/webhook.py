"""Webhook: posts each event to a server."""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message as Headers
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from timesformer_runtime.cameras.delivery import RefusedError, UnreachableError
from timesformer_runtime.cameras.receivers import WebhookSettings
from timesformer_runtime.cameras.spool import Waiting

# Answers of a server that does not want this message, and will not want it later either.
_REFUSALS = frozenset({400, 409, 410, 411, 413, 414, 415, 422})


class Webhook:
    """Posts each message as JSON; an answer of 200 to 299 means that the server has it.

    The header ``Idempotency-Key`` has the message's id. Redirects are not followed: they would hand
    the headers, which may have a token, to another server.

    Args:
        settings: The server.
    """

    name = "webhook"

    def __init__(self, settings: WebhookSettings) -> None:
        self._settings = settings
        self._url, credentials = _without_credentials(settings.url)
        self._headers = {
            "Content-Type": "application/json",
            "User-Agent": "timesformer-onnx",
            **credentials,
            **settings.headers,
        }

    @property
    def address(self) -> str:
        """Where the messages go, without secrets."""
        return self._settings.name

    def send(self, message: Waiting, stopped: threading.Event) -> None:
        """Posts a message.

        Raises:
            UnreachableError: The server does not answer, or says to try again.
            RefusedError: The server does not want this message.
        """
        del stopped  # the deadline ends the request
        request = urllib.request.Request(  # noqa: S310  # the settings take http and https only
            self._url,
            message.body.encode(),
            {**self._headers, "Idempotency-Key": message.id},
            method="POST",
        )
        status = self._status_of_answer(request)
        if status in _REFUSALS:
            raise RefusedError(f"it answers {status}")
        if not 200 <= status < 300:
            raise UnreachableError(f"it answers {status}")

    def _status_of_answer(self, request: urllib.request.Request) -> int:
        deadline = _Deadline(self._settings.timeout)
        opener = urllib.request.build_opener(_NoRedirects(), _Connections(deadline))
        try:
            with deadline, opener.open(request, timeout=self._settings.timeout) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise UnreachableError(_reason(error, is_late=deadline.is_over)) from None

    def close(self) -> None:
        """Does nothing: each message has a connection of its own."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Headers,
        newurl: str,
    ) -> None:
        """Makes the redirect an ``HTTPError``."""


class _Deadline:
    """Ends the connections of a request that takes too long.

    The timeout of a socket counts for each read: a server that sends its answer byte by byte would
    never reach it.
    """

    def __init__(self, seconds: float) -> None:
        self.is_over = False
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._timer.join()
        for each in self._sockets:
            each.close()

    def watch(self, connected: socket.socket) -> None:
        """Ends this connection too, at once where the time is over."""
        # A copy, because TLS takes the socket itself away.
        self._sockets.append(connected.dup())
        if self.is_over:
            self._end()

    def _end(self) -> None:
        self.is_over = True
        for each in self._sockets:
            with contextlib.suppress(OSError):  # the server was quicker
                each.shutdown(socket.SHUT_RDWR)


class _Connection(http.client.HTTPConnection):
    deadline: _Deadline

    def connect(self) -> None:
        """Connects, and lets the deadline watch the connection."""
        super().connect()
        self.deadline.watch(self.sock)


class _EncryptedConnection(http.client.HTTPSConnection, _Connection):
    """With TLS; the deadline also watches its handshake, which follows ``_Connection.connect``."""


class _Connections(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Makes connections that a deadline watches."""

    def __init__(self, deadline: _Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Sends a request without encryption."""
        return self.do_open(self._connection(_Connection), req)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Sends a request with TLS."""
        return self.do_open(self._connection(_EncryptedConnection), req)

    def _connection(self, kind: type[_Connection]) -> Callable[..., http.client.HTTPConnection]:
        def make(*arguments: Any, **options: Any) -> http.client.HTTPConnection:
            connection = kind(*arguments, **options)
            connection.deadline = self._deadline
            return connection

        return make


def _reason(error: Exception, *, is_late: bool) -> str:
    """Says why a server does not answer."""
    if is_late:  # the error is that of a connection which was ended
        return "timed out"
    if isinstance(error, http.client.HTTPException):  # its text is whatever the server sent
        return "its answer is not HTTP"
    reason = getattr(error, "reason", error)
    return getattr(reason, "strerror", None) or str(reason)


def _without_credentials(url: str) -> tuple[str, dict[str, str]]:
    """Moves user and password from a URL to a header, as urllib does not."""
    parts = urlsplit(url)
    if parts.username is None:
        return url, {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    encoded = base64.b64encode(pair.encode()).decode()
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host).geturl(), {"Authorization": f"Basic {encoded}"}
