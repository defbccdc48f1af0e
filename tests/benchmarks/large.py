"""Exports TimeSformer HR and L with random weights, runs them in int8, and measures the memory."""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from timesformer_runtime.model.cpu import saturates_int8

from tests.benchmarks.bench import Bench
from tests.benchmarks.competitors import Competitor, int8_file
from tests.benchmarks.made_files import remove
from tests.benchmarks.processes import Worker
from tests.benchmarks.whole_process import cost

_VARIANTS = {"HR": (16, 448), "L": (96, 224)}
_MOST_MB = 24_000
_RUNS = 3


@dataclasses.dataclass(frozen=True)
class Large:
    """A large variant, exported and run.

    Attributes:
        name: ``HR`` or ``L``.
        export_seconds: The time of the whole command, with its checks.
        export_mb: The command's peak resident memory, in 10^6 bytes.
        cosine: int8 against PyTorch over the clips of the export's gate, from its report.
        file_mb: Size of the int8 file, in 10^6 bytes.
        seconds: The times of several runs on one clip in int8.
        run_mb: Peak memory of the runs above the memory after the imports, in 10^6 bytes.
    """

    name: str
    export_seconds: float
    export_mb: float
    cosine: float
    file_mb: float
    seconds: Sequence[float]
    run_mb: float

    @property
    def fits(self) -> bool:
        """True where export and runs stay within 24 GB."""
        return max(self.export_mb, self.run_mb) <= _MOST_MB


def measure(bench: Bench) -> list[Large]:
    """Exports and runs both variants, and removes the exports."""
    found = []
    for name, (frames, side) in _VARIANTS.items():
        checkpoint = bench.checkpoint(num_frames=frames, side=side)
        exported = bench.work / "large" / name
        bench.announce(f"Exporting {name}: this takes a quarter of an hour")
        remove(exported)
        exported.parent.mkdir(parents=True, exist_ok=True)
        try:
            found.append(_measure(name, checkpoint, exported, bench, frames, side))
        finally:
            remove(exported)
    return found


def _measure(
    name: str, checkpoint: Path, exported: Path, bench: Bench, frames: int, side: int
) -> Large:
    command = [
        *(sys.executable, "-m", "timesformer_exporter", "--model", str(checkpoint)),
        *("--output", str(exported), "--dtype", "int8", "--no-gate"),
        *("--int8-target", "avx2" if saturates_int8() else "vnni"),
    ]
    seconds, megabytes = cost(command, bench.threads, bench.logs / f"export-{name}.log")
    report = json.loads((exported / "export_report.json").read_text(encoding="utf-8"))
    one = Competitor(f"{name} int8", "ours", int8_file(exported))
    clips = bench.clip_file(frames, side, count=1)
    with Worker(one, clips, bench.threads, bench.logs) as worker:
        runs = [worker.seconds() for _ in range(_RUNS)]
        peak = worker.peak_mb()
    return Large(
        name,
        seconds,
        megabytes,
        next(variant["cosine"] for variant in report["variants"] if variant["dtype"] == "int8"),
        one.megabytes,
        runs,
        peak,
    )


def as_dict(variants: Sequence[Large]) -> list[dict[str, Any]]:
    """The values for the results file."""
    return [dataclasses.asdict(variant) | {"fits": variant.fits} for variant in variants]


def table(variants: Sequence[Large]) -> Table:
    """One line a variant."""
    result = Table(title="Large variants, int8, divided", title_justify="left")
    result.add_column("")
    for column in ("export", "memory of it", "cosine", "file", "clip", "memory of it", "in 24 GB"):
        result.add_column(column, justify="right")
    for one in variants:
        result.add_row(
            one.name,
            f"{one.export_seconds / 60:.1f} min",
            f"{one.export_mb / 1000:.1f} GB",
            f"{one.cosine:.5f}",
            f"{one.file_mb:.0f} MB",
            f"{statistics.median(one.seconds):.2f} s",
            f"{one.run_mb / 1000:.2f} GB",
            "yes" if one.fits else "NO",
        )
    return result
