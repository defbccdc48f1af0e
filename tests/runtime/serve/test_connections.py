"""Connections, without a model: when the server ends them."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from timesformer_runtime.serve import connections, server

from tests.patience import PATIENCE

LARGE = 50 << 20  # bytes: more than the system's buffers of a connection hold


async def large_answer(scope: Scope, receive: Receive, send: Send) -> None:
    await Response(bytes(LARGE))(scope, receive, send)


async def broken_off_answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Ends without the last byte, as an answer does whose client takes too long for a part."""
    headers = [(b"content-length", str(LARGE + 1).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": bytes(LARGE), "more_body": True})


@pytest.fixture
def connection(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[socket.socket, uvicorn.Server]]:
    """A client's connection with a request, and the server, which begins after the request."""
    monkeypatch.setattr(connections, "_HEAD_SECONDS", 0.1)
    config = uvicorn.Config(
        request.param, http=connections.ImpatientProtocol, log_config=None, lifespan="off"
    )
    running = uvicorn.Server(config)
    with (
        server.listen("127.0.0.1", 0) as listening,
        socket.create_connection(listening.getsockname(), PATIENCE) as client,
    ):
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        thread = threading.Thread(target=lambda: asyncio.run(running.serve([listening])))
        thread.start()
        yield client, running
        running.should_exit = running.force_exit = True
        thread.join(PATIENCE)


@pytest.mark.parametrize("connection", [large_answer, broken_off_answer], indirect=True)
def test_a_client_that_takes_no_answer_loses_its_connection(
    connection: tuple[socket.socket, uvicorn.Server],
) -> None:
    client, running = connection
    assert client.recv(12) == b"HTTP/1.1 200"
    end = time.monotonic() + PATIENCE
    while running.server_state.connections:
        assert time.monotonic() < end
        time.sleep(0.05)
