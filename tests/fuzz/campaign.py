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
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.fuzz.process import REFUSED

# Seconds for a case, whose own limit is far lower, and for a process to start before its first one:
# machines can be busy.
_PATIENCE, _START = 30.0, 120.0
_ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Campaign:
    """What is damaged and then used, and what may come of it.

    Attributes:
        worker: The module that uses damaged things in a process of its own.
        make_seeds: Writes the sound things into a folder, and returns their names.
        successes: Outcomes of what could be used; all others but a refusal should not be.
        success: The same in words.
        most_seconds: How long a case may take.
        most_mib: How much memory, above that of a worker that has used one sound thing.
    """

    worker: str
    make_seeds: Callable[[Path], Sequence[str]]
    successes: tuple[str, ...]
    success: str
    most_seconds: float
    most_mib: int


@dataclasses.dataclass
class Report:
    """What came out of a campaign.

    Attributes:
        campaign: Which one.
        outcomes: How often things were used in one way or the other, or refused.
        by_seed: The same for each seed.
        findings: What should not be, with the case: ``seed number: what``.
        slowest: Seconds of the slowest case, and which.
        peak_mib: Largest memory of a worker.
    """

    campaign: Campaign
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
        if outcome not in (*self.campaign.successes, REFUSED):
            self.findings.append(f"{case}: {outcome}")
            outcome = "finding"
        self.outcomes[outcome] += 1
        self.by_seed.setdefault(seed, collections.Counter())[outcome] += 1
        if seconds > self.campaign.most_seconds:
            self.findings.append(f"{case}: took {seconds:.1f} s")
        if answer["peak_mib"] > base_mib + self.campaign.most_mib:
            self.findings.append(f"{case}: took {answer['peak_mib'] - base_mib} MiB")
        if any(left > 0 for left in answer["left_open"]):
            self.findings.append(f"{case}: left open {answer['left_open']}")

    @property
    def cases(self) -> int:
        """Number of cases that ran to their end."""
        return self.outcomes.total()

    @property
    def success_share(self) -> float:
        """Share of the cases in which the damaged thing could be used all the same."""
        used = sum(self.outcomes[outcome] for outcome in self.campaign.successes)
        return used / max(self.cases, 1)


def run(
    campaign: Campaign, first: int, *, cases: int | None = None, seconds: float | None = None
) -> Report:
    """Damages and uses things, as many as wanted or for as long as wanted.

    Args:
        campaign: What things.
        first: Number of the first case; the same numbers give the same damage.
        cases: How many; None for no limit.
        seconds: For how long; None for no limit.
    """
    report = Report(campaign)
    with tempfile.TemporaryDirectory() as name:
        seeds, scratch = Path(name) / "seeds", Path(name) / "scratch"
        seeds.mkdir()
        scratch.mkdir()
        names = campaign.make_seeds(seeds)
        numbers = itertools.count(first) if cases is None else range(first, first + cases)
        pending = _until(seconds, (f"{names[n % len(names)]} {n}" for n in numbers))
        command = [sys.executable, "-m", campaign.worker, str(seeds), str(scratch)]
        while case := next(pending, None):
            run_worker(itertools.chain([case], pending), report, command, start=_START)
    return report


def _until(seconds: float | None, cases: Iterator[str]) -> Iterator[str]:
    end = None if seconds is None else time.monotonic() + seconds
    for case in cases:
        if end is not None and time.monotonic() > end:
            return
        yield case


def run_worker(
    cases: Iterable[str],
    report: Report,
    command: Sequence[str],
    patience: float = _PATIENCE,
    start: float = 0.0,
) -> None:
    """Lets one process use damaged things until one of them is its end.

    Args:
        cases: Lines for the process.
        report: Gets its answers.
        command: Starts it.
        patience: Seconds that a case may take before the process is ended.
        start: Seconds that the first one may take more.
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
            if not select.select([worker.stdout], [], [], patience + start)[0]:
                worker.kill()
                report.findings.append(f"{case}: no end within {patience + start:g} s")
                return
            start = 0.0
            line = worker.stdout.readline()
            if not line:
                report.findings.append(f"{case}: the process ended with code {worker.wait()}")
                return
            answer = json.loads(line)
            base_mib = base_mib or answer["peak_mib"]
            report.add(case, answer, base_mib)
