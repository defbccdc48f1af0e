"""A server on the loopback interface that takes the events of a webhook."""

from __future__ import annotations

import http.server
import json
import threading
from typing import Any


class _Handler(http.server.BaseHTTPRequestHandler):
    server: WebhookServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = self.server.answer(body, dict(self.headers))
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", f"http://127.0.0.1:{self.server.port}/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.server.gets += 1
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


class WebhookServer(http.server.ThreadingHTTPServer):
    """Takes what is posted; ``statuses`` are its next answers, and then 204."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.taken: list[dict[str, Any]] = []
        self.seen: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.statuses: list[int] = []
        self.gets = 0
        self.changed = threading.Condition()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/events"

    def answer(self, body: dict[str, Any], headers: dict[str, str]) -> int:
        with self.changed:
            status = self.statuses.pop(0) if self.statuses else 204
            self.seen.append(body)
            self.headers.append(headers)
            if status < 300:
                self.taken.append(body)
            self.changed.notify_all()
        return status

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
