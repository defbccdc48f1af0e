"""Runs many cases, each within a time limit, and collects what should not be."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.fuzz.seeds import make_seeds
from tests.fuzz.worker import LIMITS

_PATIENCE = 30.0  # seconds for a case; its own limit is far lower, but machines can be busy
_MOST_MIB = 400  # of memory above that of a worker which has read one sound file
_EXPECTED = ("read", "marked", "refused")
_ROOT = Path(__file__).parents[2]


@dataclasses.dataclass
class Report:
    """What came out of a campaign.

    Attributes:
        outcomes: How often files were read, read but marked as damaged, or refused.
        by_seed: The same for each seed.
        findings: What should not be, with the case: ``seed number: what``.
        slowest: Seconds of the slowest case, and which.
        peak_mib: Largest memory of a worker.
    """

    outcomes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    by_seed: dict[str, collections.Counter[str]] = dataclasses.field(default_factory=dict)
    findings: list[str] = dataclasses.field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")
    peak_mib: int = 0

    def add(self, case: str, answer: dict[str, Any], base_mib: int) -> None:
        """Judges the answer of a worker."""
        outcome, seconds = answer["outcome"], answer["seconds"]
        seed = case.split(maxsplit=1)[0]
        self.slowest = max(self.slowest, (seconds, case))
        self.peak_mib = max(self.peak_mib, answer["peak_mib"])
        if outcome not in _EXPECTED:
            self.findings.append(f"{case}: {outcome}")
            outcome = "finding"
        self.outcomes[outcome] += 1
        self.by_seed.setdefault(seed, collections.Counter())[outcome] += 1
        if seconds > 2 * LIMITS.time:
            self.findings.append(f"{case}: took {seconds:.1f} s")
        if answer["peak_mib"] > base_mib + _MOST_MIB:
            self.findings.append(f"{case}: took {answer['peak_mib'] - base_mib} MiB")
        if any(left > 0 for left in answer["left_open"]):
            self.findings.append(f"{case}: left open {answer['left_open']}")

    @property
    def cases(self) -> int:
        """Number of cases that ran to their end."""
        return self.outcomes.total()

    @property
    def decoded_share(self) -> float:
        """Share of the cases in which frames came out."""
        return (self.outcomes["read"] + self.outcomes["marked"]) / max(self.cases, 1)


def run(first: int, *, cases: int | None = None, seconds: float | None = None) -> Report:
    """Damages and reads files, as many as wanted or for as long as wanted.

    Args:
        first: Number of the first case; the same numbers give the same files.
        cases: How many; None for no limit.
        seconds: For how long; None for no limit.
    """
    report = Report()
    with tempfile.TemporaryDirectory() as name:
        seeds, scratch = Path(name) / "seeds", Path(name) / "scratch"
        seeds.mkdir()
        scratch.mkdir()
        names = [path.name for path in make_seeds(seeds)]
        numbers = itertools.count(first) if cases is None else range(first, first + cases)
        pending = _until(seconds, (f"{names[n % len(names)]} {n}" for n in numbers))
        command = [sys.executable, "-m", "tests.fuzz.worker", str(seeds), str(scratch)]
        while case := next(pending, None):
            run_worker(itertools.chain([case], pending), report, command)
    return report


def _until(seconds: float | None, cases: Iterator[str]) -> Iterator[str]:
    end = None if seconds is None else time.monotonic() + seconds
    for case in cases:
        if end is not None and time.monotonic() > end:
            return
        yield case


def run_worker(
    cases: Iterable[str], report: Report, command: Sequence[str], patience: float = _PATIENCE
) -> None:
    """Lets one process read files until one of them is its end.

    Args:
        cases: Lines for the process.
        report: Gets its answers.
        command: Starts it.
        patience: Seconds that a case may take before the process is ended.
    """
    worker = subprocess.Popen(
        command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    base_mib = None
    with worker:
        for case in cases:
            worker.stdin.write(f"{case}\n")
            worker.stdin.flush()
            if not select.select([worker.stdout], [], [], patience)[0]:
                worker.kill()
                report.findings.append(f"{case}: no end within {patience:g} s")
                return
            line = worker.stdout.readline()
            if not line:
                report.findings.append(f"{case}: the process ended with code {worker.wait()}")
                return
            answer = json.loads(line)
            base_mib = base_mib or answer["peak_mib"]
            report.add(case, answer, base_mib)
