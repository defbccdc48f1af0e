"""Starts ``timesformer serve`` as a process of its own, on a free port of this machine."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx

from tests.patience import PATIENCE

_TOKEN = "TIMESFORMER_SERVE_TOKEN"


class ServiceProcess:
    """A running service.

    Attributes:
        address: Its URL.
        lines: What it has said on standard error.
        process: The process.
        seconds: How long it took until it was ready.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        start = time.perf_counter()
        self.process = process
        self.lines: list[str] = []
        self._is_ready = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        if not self._is_ready.wait(PATIENCE):
            process.kill()
        self.seconds = time.perf_counter() - start
        found = re.search(r"serving at (\S+)", self.lines[-1])
        assert found is not None, self.lines
        self.address = found[1].replace("0.0.0.0", "127.0.0.1")

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def client(self, **options: object) -> httpx.Client:
        """A client that waits as long as a busy machine needs, and asks no proxy."""
        return httpx.Client(
            base_url=self.address,
            timeout=PATIENCE,
            trust_env=False,
            **options,  # type: ignore[arg-type]
        )

    def metric(self, name: str) -> float:
        """The value of a metric without labels, or the sum over its labels."""
        with self.client() as client:
            text = client.get("/metrics").text
        found = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, found))

    def connect(self) -> socket.socket:
        """A connection for bytes that no client library would send."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def wait_for(self, name: str, value: float) -> None:
        """Waits until a metric has a value."""
        end = time.monotonic() + PATIENCE
        while self.metric(name) != value:
            assert time.monotonic() < end, f"{name} is {self.metric(name)}, not {value}"
            time.sleep(0.05)

    def end(self) -> int:
        """Sends SIGTERM; returns the exit code."""
        self.process.terminate()
        code = self.process.wait(PATIENCE)
        self._thread.join(PATIENCE)
        return code

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))
            if "serving at" in line:
                self._is_ready.set()
        self._is_ready.set()


@contextlib.contextmanager
def served(
    *arguments: str | Path, environment: Mapping[str, str] | None = None
) -> Iterator[ServiceProcess]:
    """Runs ``timesformer serve`` with these arguments while the context lasts."""
    process = subprocess.Popen(
        [sys.executable, "-m", "timesformer_runtime", "serve", *map(str, arguments), "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env={
            **{name: value for name, value in os.environ.items() if name != _TOKEN},
            **(environment or {}),
        },
    )
    try:
        yield ServiceProcess(process)
    finally:
        process.kill()
        process.wait()
