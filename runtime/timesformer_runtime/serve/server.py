"""Runs the application in uvicorn until a signal ends it."""

from __future__ import annotations

import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from timesformer_runtime.classifier import VideoClassifier
from timesformer_runtime.errors import InvalidOptionError
from timesformer_runtime.extras import needs_extra
from timesformer_runtime.serve.app import make_app
from timesformer_runtime.serve.connections import ImpatientProtocol
from timesformer_runtime.serve.engine import Engine
from timesformer_runtime.serve.metrics import Metrics
from timesformer_runtime.serve.query import Queries
from timesformer_runtime.serve.service import Service
from timesformer_runtime.serve.settings import ServiceSettings

with needs_extra("serve"):
    import uvicorn

_BACKLOG = 128
# How long a thread that computes may keep the interpreter while the event loop waits for it, as it
# does some thirty times for a request. With Python's 5 ms, four clients get 5 % fewer answers.
_SWITCH_SECONDS = 0.0005


def listen(host: str, port: int) -> socket.socket:
    """Opens the socket of the service.

    Raises:
        InvalidOptionError: The address is not available.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        listening = socket.create_server(address, family=family, backlog=_BACKLOG)
        # Connections inherit it. Without it the body of an answer waits 40 ms, until the client
        # acknowledges the head. asyncio sets it only for sockets whose `proto` is IPPROTO_TCP; that
        # of `create_server` is 0.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidOptionError(
            f"{host}:{port} cannot be listened on: {reason}; choose another `host` or `port`"
        ) from error
    return listening


def run(
    listening: socket.socket,
    models: list[VideoClassifier],
    cores: int,
    settings: ServiceSettings,
    *,
    queries: Queries,
    drain_seconds: float,
    ready: Callable[[], None],
) -> None:
    """Serves until SIGTERM or SIGINT, then answers the requests that are there.

    Args:
        listening: The socket, from ``listen``.
        models: The loaded models.
        cores: Threads for all runs of the models together.
        settings: Limits and access.
        queries: Read the options of requests.
        drain_seconds: How long the last requests may take.
        ready: Called once requests are answered.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    engine = Engine(_named(models), cores, settings.limits, settings.queue, Metrics())
    with tempfile.TemporaryDirectory(prefix="timesformer-serve-") as folder:
        service = Service(engine, settings, Path(folder))
        app = make_app(service, queries)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nothing here depends on the client's address
            ws="none",
            http=ImpatientProtocol,
            timeout_graceful_shutdown=max(1, round(drain_seconds)),
        )
        _Server(config, ready).run([listening])


def _named(models: list[VideoClassifier]) -> dict[str, VideoClassifier]:
    """Names models by the last part of their path or Hub id.

    Raises:
        InvalidOptionError: Two models have one name.
    """
    named: dict[str, VideoClassifier] = {}
    for classifier in models:
        name = classifier.name.rstrip("/\\").replace("\\", "/").rpartition("/")[2]
        name = name.removesuffix(".onnx")
        if name in named:
            raise InvalidOptionError(
                f"two models have the name {name}: {named[name].name} and {classifier.name}; "
                "rename a folder, or serve them by two commands"
            )
        named[name] = classifier
    return named


class _Server(uvicorn.Server):
    """Says when it is ready; after SIGTERM the program ends as usual, not by the signal.

    Raises:
        KeyboardInterrupt: By ``run``, after the end that SIGINT asked for.
    """

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def main_loop(self) -> None:
        self._ready()
        await super().main_loop()

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        # After its end uvicorn raises the signals again that ended it. With handlers that only
        # note them, nothing is interrupted while asyncio cleans up.
        noted: list[int] = []
        before = {
            number: signal.signal(number, lambda number, _: noted.append(number))
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            super().run(sockets)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if signal.SIGINT in noted:
            raise KeyboardInterrupt
