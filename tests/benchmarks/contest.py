"""Measures competitors: the time of a clip, in turn; memory; loading; agreement with PyTorch."""

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
from tests.benchmarks.figures import LogitsAgreement, agreement
from tests.benchmarks.processes import Worker, WorkerError
from tests.benchmarks.turns import take_turns, warm_turn


@dataclasses.dataclass
class Entry:
    """All figures of one competitor.

    Attributes:
        file_mb: Size on disk, 10^6 bytes.
        seconds: The time of one clip in each round.
        cpu_seconds: Processor time of all threads for one clip in each round. Threads that spin
            while they wait use more of it than they need.
        load_seconds: The time of loading the model in each fresh process.
        load_mb: Peak memory until the model is loaded, above the memory after the imports, in 10^6
            bytes.
        run_mb: Peak memory until the first run has ended, above the memory after the imports, in
            10^6 bytes.
        agreement: Agreement with PyTorch's logits; None for the reference itself.
        problem: The reason why the competitor was not measured; empty where it was.
    """

    file_mb: float
    seconds: list[float] = dataclasses.field(default_factory=list)
    cpu_seconds: list[float] = dataclasses.field(default_factory=list)
    load_seconds: list[float] = dataclasses.field(default_factory=list)
    load_mb: list[float] = dataclasses.field(default_factory=list)
    run_mb: list[float] = dataclasses.field(default_factory=list)
    agreement: LogitsAgreement | None = None
    problem: str = ""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Entry:
        """Makes an entry of the values that ``dataclasses.asdict`` gave."""
        found = values["agreement"]
        return cls(**values | {"agreement": LogitsAgreement(**found) if found else None})

    @property
    def median(self) -> float:
        """The median time of one clip in seconds."""
        return statistics.median(self.seconds)


def contest(competitors: Sequence[Competitor], bench: Bench, clips: Path) -> dict[str, Entry]:
    """Measures competitors, each in its own process; those that fail have a ``problem``.

    Args:
        competitors: The competitors; a reference stands before those that name it.
        bench: Rounds, threads and folders.
        clips: A ``.npy`` file with the clips; the first clip is timed.
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
                found = agreement(logits[one.reference], logits[one.name])
                entries[one.name].agreement = found
        for worker in workers:
            worker.seconds()  # before timing: a compiler may work in the second run, too
        turns = take_turns(
            [functools.partial(warm_turn, worker) for worker in workers],
            bench.rounds,
            lambda number: bench.announce(f"Round {number} of {bench.rounds}"),
        )
    for worker, costs in zip(workers, turns, strict=True):
        entry = entries[worker.competitor.name]
        entry.seconds = [turn.seconds for turn in costs]
        entry.cpu_seconds = [turn.cpu_seconds for turn in costs]
    _measure_starts([worker.competitor for worker in workers], bench, clips, entries)
    return entries


def _measure_starts(
    competitors: Sequence[Competitor], bench: Bench, clips: Path, entries: dict[str, Entry]
) -> None:
    """Measures loading and memory in fresh processes, in turn."""
    for number in range(1, bench.starts + 1):
        bench.announce(f"Start {number} of {bench.starts}")
        for one in competitors:
            if one.options.get("compiled"):
                continue  # torch.compile takes a minute at the first run
            with Worker(one, clips, bench.threads, bench.logs) as worker:
                worker.seconds()
                entry = entries[one.name]
                entry.load_seconds.append(worker.load_seconds)
                entry.load_mb.append(worker.load_mb)
                entry.run_mb.append(worker.peak_mb())
