"""Webhook: posts each event to a server."""

from __future__ import annotations

import base64
import http.client
import threading
import urllib.error
import urllib.request
from email.message import Message as Headers
from typing import IO
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
        self._opener = urllib.request.build_opener(_NoRedirects())
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
        del stopped  # the timeout ends the request
        request = urllib.request.Request(  # noqa: S310  # the settings take http and https only
            self._url,
            message.body.encode(),
            {**self._headers, "Idempotency-Key": message.id},
            method="POST",
        )
        try:
            with self._opener.open(request, timeout=self._settings.timeout) as answer:
                status = answer.status
        except urllib.error.HTTPError as error:
            error.close()
            status = error.code
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise UnreachableError(getattr(reason, "strerror", None) or str(reason)) from None
        except http.client.HTTPException:  # its text is whatever the server sent
            raise UnreachableError("its answer is not HTTP") from None
        if status in _REFUSALS:
            raise RefusedError(f"it answers {status}")
        if not 200 <= status < 300:
            raise UnreachableError(f"it answers {status}")

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


def _without_credentials(url: str) -> tuple[str, dict[str, str]]:
    """Moves user and password from a URL to a header, as urllib does not."""
    parts = urlsplit(url)
    if parts.username is None:
        return url, {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    encoded = base64.b64encode(pair.encode()).decode()
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host).geturl(), {"Authorization": f"Basic {encoded}"}
