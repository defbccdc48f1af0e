"""The tables that a benchmark prints, and the words for its figures."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from rich.table import Table

from tests.benchmarks.contest import Entry
from tests.benchmarks.rows import CPU_TIME, Row

MEMORY = "its peak memory"
_SHARES = (MEMORY, CPU_TIME)  # ratios that are not ones of speed


def comparison(rows: Sequence[Row], title: str) -> Table:
    """Makes a table of our model against the competitors, with the goals."""
    table = Table(title=title, title_justify="left")
    for column in ("", "ours", "against"):
        table.add_column(column)
    for column in ("measured", "quartiles", "wanted"):
        table.add_column(column, justify="right")
    table.add_column("reached")
    for row in rows:
        table.add_row(
            row.measure,
            row.ours,
            row.against,
            figure(row, row.value),
            _quartiles(row),
            goal(row),
            {True: "yes", False: "NO", None: ""}[row.reached],
        )
    return table


def measurements(entries: Mapping[str, Entry], title: str) -> Table:
    """Makes a table of all figures of each competitor."""
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
            continue  # this competitor is only a reference for the logits of others
        close = entry.agreement
        table.add_row(
            name,
            _median(entry.seconds, "{:.3f} s"),
            _median(entry.cpu_seconds, "{:.2f} s"),
            _median(entry.load_seconds, "{:.2f} s"),
            _median(entry.load_mb, "{:.0f} MB"),
            _median(entry.run_mb, "{:.0f} MB"),
            f"{entry.file_mb:.0f} MB",
            "reference" if close is None else f"{close.cosine:.5f}",
            "" if close is None else f"{close.top1:.0%}",
        )
    return table


def figure(row: Row, value: float) -> str:
    """A value of a row in words, such as ``1.64 times as fast``, ``31% of it`` or ``123 MB``."""
    if row.unit != "x":
        return f"{value:.0f} {row.unit}"
    return f"{value:.0%} of it" if row.measure in _SHARES else times_as_fast(value)


def goal(row: Row) -> str:
    """The goal of a row in words: ``at least 1.33 times as fast``; empty without one."""
    if row.wanted is None:
        return ""
    limit = "at most" if row.unit != "x" or row.measure in _SHARES else "at least"
    return f"{limit} {figure(row, row.wanted)}"


def times_as_fast(share: float) -> str:
    """The speed of a program that takes this share of another's time."""
    speed = 1 / share
    return f"{speed:.2f} times as fast" if speed < 2 else f"{speed:.1f} times as fast"


def _quartiles(row: Row) -> str:
    """The quartiles in the words of ``figure``, the smaller number first."""
    if row.low is None or row.high is None:
        return ""
    if row.measure in _SHARES:
        return f"{row.low:.0%} to {row.high:.0%}"
    return f"{1 / row.high:.2f} to {1 / row.low:.2f}"


def _median(values: Sequence[float], form: str) -> str:
    return form.format(statistics.median(values)) if values else ""
