"""Connections: how many there may be, when they end, and what they answer that is not HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from timesformer_runtime.extras import needs_extra

with needs_extra("serve"):
    import h11
    from fastapi.responses import JSONResponse
    from starlette.types import Receive, Scope, Send
    from uvicorn.protocols.http.h11_impl import H11Protocol

_MOST_CONNECTIONS = 512  # fewer than files that a process may usually open
_HEAD_SECONDS = 10.0  # in which the head of a request has to arrive; at most twice as long

_CROWDED = JSONResponse(
    {"error": f"all {_MOST_CONNECTIONS} connections are taken; try again later"},
    503,
    {"Retry-After": "1", "Connection": "close"},
)


class ImpatientProtocol(H11Protocol):
    """Closes connections on which no request begins, or whose client takes nothing of an answer.

    uvicorn would wait without end: also a connection that is closed first sends what it holds. What
    it refuses before the application sees it gets one line of JSON here, as all errors.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._application = self.app
        self.app = self._answer

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_crowded = len(self.connections) > _MOST_CONNECTIONS
        answer: Any = _CROWDED if is_crowded else self._application
        await answer(scope, receive, send)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to look at the connection from time to time."""
        super().connection_made(transport)
        self._look(object(), 0)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # uvicorn's name for it
        """Answers bytes that are not HTTP, unless the request has its answer; then closes."""
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            line = "the request is not valid HTTP/1.1, or its head is too long; correct it"
            body = json.dumps({"error": line}).encode()
            headers = [
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(body))),
                ("Connection", "close"),
            ]
            response = h11.Response(status_code=400, headers=headers, reason="Bad Request")
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Keeps quiet: uvicorn would advise to install what this service does not use."""

    def _look(self, cycle_before: object, unsent_before: int) -> None:
        """Looks at the connection every few seconds, and compares with the look before."""
        if self not in self.connections:  # it is lost
            return
        unsent = self.transport.get_write_buffer_size()
        is_idle = self.cycle is None or self.cycle.response_complete
        is_over = self.transport.is_closing() or (is_idle and self.cycle is cycle_before)
        if is_over and unsent == unsent_before:
            self.transport.abort()  # drops what is unsent
        else:
            self.loop.call_later(_HEAD_SECONDS, self._look, self.cycle, unsent)
