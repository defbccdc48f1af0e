"""The HR and L variants (random weights): exported by the command, run in int8, within 24 GB."""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from tests.benchmarks.bench import Bench
from tests.benchmarks.competitors import Competitor
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
        export_seconds: The whole command, with its checks.
        export_mb: Its peak resident memory, 10^6 bytes.
        cosine: int8 against PyTorch over the export's clips, from its report.
        file_mb: Size of the int8 file.
        seconds: A clip in int8, several times.
        run_mb: Peak memory of that above the imports.
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
        """Whether export and run stay within 24 GB."""
        return max(self.export_mb, self.run_mb) <= _MOST_MB


def measure(bench: Bench) -> list[Large]:
    """Exports and runs both; the exports are removed again."""
    found = []
    for name, (frames, side) in _VARIANTS.items():
        checkpoint = bench.checkpoint(num_frames=frames, side=side)
        loaded = bench.work / "large" / name
        bench.announce(f"Exporting {name}: this takes a quarter of an hour")
        remove(loaded)
        loaded.parent.mkdir(parents=True, exist_ok=True)
        try:
            found.append(_measure(name, checkpoint, loaded, bench, frames, side))
        finally:
            remove(loaded)
    return found


def _measure(
    name: str, checkpoint: Path, loaded: Path, bench: Bench, frames: int, side: int
) -> Large:
    command = [
        *(sys.executable, "-m", "timesformer_exporter", "--model", str(checkpoint)),
        *("--output", str(loaded), "--dtype", "int8", "--no-gate"),
    ]
    seconds, megabytes = cost(command, bench.threads, bench.logs / f"export-{name}.log")
    report = json.loads((loaded / "export_report.json").read_text(encoding="utf-8"))
    one = Competitor(f"{name} int8", "ours", loaded / "onnx" / "model_int8.onnx")
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
    """For the results file."""
    return [dataclasses.asdict(variant) | {"fits": variant.fits} for variant in variants]


def table(variants: Sequence[Large]) -> Table:
    """One line a variant."""
    result = Table(title="Large variants, int8, divided", title_justify="left")
    result.add_column("")
    for column in ("export", "its memory", "cosine", "file", "clip", "its memory", "in 24 GB"):
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
