"""Starts a process for each competitor, sends it commands, and ends it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.benchmarks.competitors import Competitor

ROOT = Path(__file__).parents[2]
_LONGEST_ANSWER = 1800.0  # seconds; compiling a large model takes minutes


class WorkerError(RuntimeError):
    """A competitor did not start, or stopped; the message has the last line of its log."""


class Worker:
    """A competitor in its own process. Use it in a ``with`` statement.

    Attributes:
        load_seconds: The time of loading the model.
        load_mb: Peak resident memory while loading, above the memory after the imports, in 10^6
            bytes.
    """

    def __init__(self, competitor: Competitor, clips: Path, threads: int, logs: Path) -> None:
        """Starts the process and waits until it has loaded the model.

        Args:
            competitor: The competitor to load.
            clips: A ``.npy`` file, float32 [clips, T, C, H, W].
            threads: CPU threads for one run.
            logs: The folder of the process's log.

        Raises:
            WorkerError: The model does not load.
        """
        self.competitor = competitor
        self._log = logs / f"{competitor.name.replace(' ', '-').replace('/', '-')}.log"
        logs.mkdir(parents=True, exist_ok=True)
        request = {
            "engine": competitor.engine,
            "model": str(competitor.model.resolve()),
            "options": dict(competitor.options),
            "clips": str(clips.resolve()),
            "threads": threads,
        }
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [competitor.python, "-m", "tests.benchmarks.worker", json.dumps(request)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=ROOT,
                env=environment(threads),
            )
        try:
            loaded = self._read()
        except BaseException:
            self.stop()
            raise
        self.load_seconds: float = loaded["load_seconds"]
        self.load_mb: float = loaded["load_mb"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def seconds(self, batch: int = 1) -> float:
        """Runs once on a batch of so many clips; returns the seconds that the run took."""
        return float(self._ask(do="run", batch=batch)["seconds"])

    def logits(self) -> Any:
        """The logits for every clip, nested lists [clips, rows of the output, labels]."""
        return self._ask(do="logits")["logits"]

    def peak_mb(self) -> float:
        """Peak resident memory above the memory after the imports, in 10^6 bytes."""
        return float(self._ask(do="usage")["peak_mb"])

    def cpu_seconds(self) -> float:
        """Processor time of all threads since the start."""
        return float(self._ask(do="usage")["cpu_seconds"])

    def stop(self) -> None:
        """Ends the process."""
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _ask(self, **command: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # _read raises an error with the log's end
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        watchdog = threading.Timer(_LONGEST_ANSWER, self._process.kill)
        watchdog.start()
        try:
            line = self._process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            raise WorkerError(f"{self.competitor.name} stopped: {last_words(self._log)}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def environment(threads: int) -> dict[str, str]:
    """Environment variables for a measured process; they set the threads of all libraries."""
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    return kept | {
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "PYTHONWARNINGS": "ignore",
    }


def last_words(log: Path) -> str:
    """The last line of a log, and the path of the log."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"{lines[-1][:300]} (all of it: {log})" if lines else f"it left no word in {log}"
