"""Everything that is measured of some competitors: time in turn, memory, loading, agreement."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.bench import Bench
from tests.benchmarks.competitors import Competitor
from tests.benchmarks.figures import Agreement, agreement
from tests.benchmarks.processes import Worker, WorkerError
from tests.benchmarks.turns import RUNS_IN_A_TURN, take_turns, warm_run


@dataclasses.dataclass
class Entry:
    """What was measured of one competitor.

    Attributes:
        file_mb: Size on disk, 10^6 bytes.
        seconds: One clip, in each round.
        cpu_seconds: Processor time for one clip, mean over the rounds, of all threads; more than
            the threads need where they spin while they wait.
        load_seconds: Loading the model, in each fresh process.
        load_mb: Peak memory up to the end of loading, above the imports, in 10^6 bytes.
        run_mb: The same up to the end of the first run.
        agreement: With PyTorch's logits; None for the reference itself.
        problem: Why it could not be measured; empty if it was.
    """

    file_mb: float
    seconds: list[float] = dataclasses.field(default_factory=list)
    cpu_seconds: float = 0.0
    load_seconds: list[float] = dataclasses.field(default_factory=list)
    load_mb: list[float] = dataclasses.field(default_factory=list)
    run_mb: list[float] = dataclasses.field(default_factory=list)
    agreement: Agreement | None = None
    problem: str = ""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Entry:
        """Reads what ``dataclasses.asdict`` gave."""
        close = values["agreement"]
        return cls(**values | {"agreement": Agreement(**close) if close else None})

    @property
    def median(self) -> float:
        """Seconds for one clip."""
        return statistics.median(self.seconds)


def contest(competitors: Sequence[Competitor], bench: Bench, clips: Path) -> dict[str, Entry]:
    """Measures competitors, each in its own process; those that fail have a ``problem``.

    Args:
        competitors: With those first that others name as their reference.
        bench: Rounds, threads and folders.
        clips: A ``.npy`` file with the clips; the first is what is timed.
    """
    entries = {one.name: Entry(one.megabytes) for one in competitors}
    with contextlib.ExitStack() as stack:
        workers = []
        logits: dict[str, Any] = {}
        for one in competitors:
            bench.announce(f"Loading {one.name}")
            try:
                worker = stack.enter_context(Worker(one, clips, bench.threads, bench.logs))
                logits[one.name] = np.array(worker.logits())
            except WorkerError as error:
                entries[one.name].problem = str(error)
                continue
            if one.timed:
                workers.append(worker)
            if one.reference in logits:
                close = agreement(logits[one.reference], logits[one.name])
                entries[one.name].agreement = close
        for worker in workers:
            worker.seconds()  # compilers may start once more
        before = [worker.cpu_seconds() for worker in workers]
        seconds = take_turns(
            [functools.partial(warm_run, worker) for worker in workers],
            bench.rounds,
            lambda number: bench.announce(f"Round {number} of {bench.rounds}"),
        )
        spent = [worker.cpu_seconds() - cpu for worker, cpu in zip(workers, before, strict=True)]
    for worker, times, cpu in zip(workers, seconds, spent, strict=True):
        entry = entries[worker.competitor.name]
        entry.seconds, entry.cpu_seconds = times, cpu / RUNS_IN_A_TURN / bench.rounds
    _start_anew([worker.competitor for worker in workers], bench, clips, entries)
    return entries


def _start_anew(
    competitors: Sequence[Competitor], bench: Bench, clips: Path, entries: dict[str, Entry]
) -> None:
    """Loading and memory, in fresh processes, in turn."""
    for number in range(1, bench.starts + 1):
        bench.announce(f"Start {number} of {bench.starts}")
        for one in competitors:
            if one.options.get("compiled"):
                continue  # compiles for a minute at its first run
            with Worker(one, clips, bench.threads, bench.logs) as worker:
                worker.seconds()
                entry = entries[one.name]
                entry.load_seconds.append(worker.load_seconds)
                entry.load_mb.append(worker.load_mb)
                entry.run_mb.append(worker.peak_mb())
