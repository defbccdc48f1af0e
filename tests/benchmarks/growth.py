"""Measures how time and memory of our int8 model grow with batch, frames and resolution.

The logits of each file are also compared with PyTorch's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import statistics
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from tests.benchmarks.bench import Bench
from tests.benchmarks.competitors import Competitor, int8_file
from tests.benchmarks.figures import LogitsAgreement, agreement, ratio
from tests.benchmarks.processes import Worker
from tests.benchmarks.turns import take_turns

_CLIPS = 4  # of each size, for the comparison with PyTorch
_BATCHES, _FRAMES, _SIDES = (1, 2, 4, 8), (8, 16, 32, 96), (224, 448)


@dataclasses.dataclass(frozen=True)
class Size:
    """The size of a model's input in one run."""

    batch: int = 1
    frames: int = 8
    side: int = 224

    @property
    def name(self) -> str:
        """A name such as ``2 x 8x224x224``: clips, frames, height, width."""
        return f"{self.batch} x {self.frames}x{self.side}x{self.side}"


@dataclasses.dataclass(frozen=True)
class Point:
    """All figures of one size.

    Attributes:
        size: The size.
        seconds: The time of a run in each round.
        growth: Median ratio of the time to that of the smallest size.
        peak_mb: Peak memory above the memory after the imports, in 10^6 bytes.
        agreement: Agreement of the file's logits with PyTorch's.
    """

    size: Size
    seconds: Sequence[float]
    growth: float
    peak_mb: float
    agreement: LogitsAgreement


def sizes() -> list[Size]:
    """Lists the smallest size first, then larger ones that differ from it in one respect."""
    return [
        *(Size(batch=batch) for batch in _BATCHES),
        *(Size(frames=frames) for frames in _FRAMES[1:]),
        *(Size(side=side) for side in _SIDES[1:]),
    ]


def measure(bench: Bench) -> list[Point]:
    """Runs all sizes in turn, each in its own process."""
    points = sizes()
    with contextlib.ExitStack() as stack:
        workers = []
        for size in points:
            exported = bench.quick_export(bench.checkpoint(num_frames=size.frames, side=size.side))
            one = Competitor(size.name, "ours", int8_file(exported))
            clips = bench.clip_file(size.frames, size.side, count=_CLIPS)
            workers.append(stack.enter_context(Worker(one, clips, bench.threads, bench.logs)))
        runs = [
            functools.partial(worker.seconds, size.batch)
            for worker, size in zip(workers, points, strict=True)
        ]
        take_turns(runs, 1)  # a first run allocates
        seconds = take_turns(
            runs,
            max(1, bench.rounds // 3),  # large sizes take long, and few rounds tell them apart
            lambda number: bench.announce(f"Growth, round {number}"),
        )
        peaks = [worker.peak_mb() for worker in workers]
        logits = {
            (size.frames, size.side): worker.logits()
            for worker, size in zip(workers, points, strict=True)
            if size.batch == 1
        }
    agreements = {shape: _agreement(bench, *shape, found) for shape, found in logits.items()}
    return [
        Point(
            size,
            times,
            ratio(times, seconds[0]).middle,
            peak,
            agreements[size.frames, size.side],
        )
        for size, times, peak in zip(points, seconds, peaks, strict=True)
    ]


def _agreement(bench: Bench, frames: int, side: int, found: Any) -> LogitsAgreement:
    """Compares our logits with those of PyTorch for the same checkpoint."""
    bench.announce(f"PyTorch on {_CLIPS} clips of {frames}x{side}x{side}")
    checkpoint = bench.checkpoint(num_frames=frames, side=side)
    reference = Competitor(f"PyTorch {frames}x{side}", "pytorch_ours", checkpoint, timed=False)
    clips = bench.clip_file(frames, side, count=_CLIPS)
    with Worker(reference, clips, bench.threads, bench.logs) as worker:
        return agreement(worker.logits(), found)


def as_dict(points: Sequence[Point]) -> list[dict[str, Any]]:
    """The values for the results file."""
    return [dataclasses.asdict(point) for point in points]


def table(points: Sequence[Point]) -> Table:
    """One line a size."""
    result = Table(title="int8, growth", title_justify="left")
    columns = (
        "clips x frames x height x width",
        "time",
        "against one clip",
        "peak memory",
        "cosine",
    )
    for column in columns:
        result.add_column(column, justify="right")
    for point in points:
        result.add_row(
            point.size.name,
            f"{statistics.median(point.seconds):.2f} s",
            f"{point.growth:.2f} times as long",
            f"{point.peak_mb:.0f} MB",
            f"{point.agreement.cosine:.5f}",
        )
    return result
