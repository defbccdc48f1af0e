"""Runs many cases, each within a time limit, and collects what goes wrong."""

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
from typing import IO, Any

from tests.fuzz.process import REFUSED

# Seconds that a case and the start of a process may take on a busy machine. A campaign's own limit
# for a case is far lower.
_PATIENCE, _START = 30.0, 120.0
_ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Campaign:
    """Defines which files a run damages and uses, and which outcomes are allowed.

    Attributes:
        worker: The module that uses damaged files in a process of its own.
        make_seeds: Writes the intact files into a folder, and returns their names.
        successes: Outcomes of files that could be used. A refusal is allowed, too; any other
            outcome is a finding.
        success: The successes in words.
        most_seconds: Seconds that a case may take.
        most_mib: Memory that a case may take, above that of a worker after one intact file.
    """

    worker: str
    make_seeds: Callable[[Path], Sequence[str]]
    successes: tuple[str, ...]
    success: str
    most_seconds: float
    most_mib: int


@dataclasses.dataclass
class Report:
    """The results of a campaign.

    Attributes:
        campaign: The campaign.
        outcomes: Counts each outcome.
        by_seed: Counts each outcome of each seed.
        findings: The cases that went wrong: ``seed number: what happened``.
        slowest: Seconds of the slowest case, and the case.
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
        """Share of the cases in which the damaged file could still be used."""
        used = sum(self.outcomes[outcome] for outcome in self.campaign.successes)
        return used / max(self.cases, 1)


def run(
    campaign: Campaign, first: int, *, cases: int | None = None, seconds: float | None = None
) -> Report:
    """Runs a campaign.

    Args:
        campaign: The campaign.
        first: Number of the first case; equal numbers give equal damage.
        cases: How many cases to run; None for no limit.
        seconds: How long to run; None for no limit.
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
    """Yields cases until so many seconds have passed; None for no limit."""
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
    """Lets one process use damaged files until a file ends the process.

    Args:
        cases: Lines for the process.
        report: Receives the answers of the process.
        command: Starts the process.
        patience: Seconds that a case may take before the process is killed.
        start: Additional seconds for the first case.
    """
    # Not a pipe: nobody reads the worker's errors until it has ended.
    errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
    worker = subprocess.Popen(
        command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    base_mib = None
    with errors, worker:
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
                code = worker.wait()
                report.findings.append(
                    f"{case}: the process ended with code {code}{_last_words(errors)}"
                )
                return
            answer = json.loads(line)
            base_mib = base_mib or answer["peak_mib"]
            report.add(case, answer, base_mib)


def _last_words(errors: IO[str]) -> str:
    """Shows what a process wrote to standard error; returns the last line, for a finding."""
    errors.seek(0)
    text = errors.read().strip()
    sys.stderr.write(text and f"{text}\n")
    return text and f" ({text.splitlines()[-1]})"
