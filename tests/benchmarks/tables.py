"""The tables that a benchmark prints."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from rich.table import Table

from tests.benchmarks.contest import Entry
from tests.benchmarks.rows import Row


def comparison(rows: Sequence[Row], title: str) -> Table:
    """Ours against the others, with what is wanted."""
    table = Table(title=title, title_justify="left")
    for column in ("", "ours", "against"):
        table.add_column(column)
    for column in ("ratio or value", "quartiles", "wanted"):
        table.add_column(column, justify="right")
    table.add_column("reached")
    for row in rows:
        table.add_row(
            row.measure,
            row.ours,
            row.against,
            amount(row.value, row.unit),
            "" if row.low is None or row.high is None else f"{row.low:.2f} to {row.high:.2f}",
            "" if row.wanted is None else f"<= {amount(row.wanted, row.unit)}",
            {True: "yes", False: "NO", None: ""}[row.reached],
        )
    return table


def measurements(entries: Mapping[str, Entry], title: str) -> Table:
    """What was measured of each competitor."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for column in (
        "clip",
        "CPU time",
        "load",
        "memory: loaded",
        "after a run",
        "file",
        "cosine",
        "top-1",
    ):
        table.add_column(column, justify="right")
    for name, entry in entries.items():
        if entry.problem:
            table.add_row(name, f"not measured: {entry.problem}")
            continue
        if not entry.seconds:
            continue  # only a reference
        close = entry.agreement
        table.add_row(
            name,
            _median(entry.seconds, "{:.3f} s"),
            f"{entry.cpu_seconds:.2f} s",
            _median(entry.load_seconds, "{:.2f} s"),
            _median(entry.load_mb, "{:.0f} MB"),
            _median(entry.run_mb, "{:.0f} MB"),
            f"{entry.file_mb:.0f} MB",
            "reference" if close is None else f"{close.cosine:.5f}",
            "" if close is None else f"{close.top1:.0%}",
        )
    return table


def amount(value: float, unit: str) -> str:
    """A number with its unit: ``0.61x``, ``123 MB``."""
    return f"{value:.2f}x" if unit == "x" else f"{value:.0f} {unit}"


def _median(values: Sequence[float], form: str) -> str:
    return form.format(statistics.median(values)) if values else ""
