"""Prints the table of docs/benchmarks.md from a results file; the README has some of its rows.

python -m tests.benchmarks.markdown tests/benchmarks/results/MACHINE.json
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from tests.benchmarks import results_file
from tests.benchmarks.rows import Row
from tests.benchmarks.tables import figure, goal

_PARTS = ("peers", "whole", "attention")


def lines(results: dict[str, Any]) -> Iterator[str]:
    """Yields a Markdown table of the rows that have a goal, and a line about the machine."""
    parts = results["parts"]
    chosen = [name if name in parts else "speed" for name in _PARTS]
    yield "| ours | against | measured | wanted |"
    yield "|---|---|---|---|"
    for name in dict.fromkeys(chosen):
        for values in parts.get(name, {}).get("rows", []):
            row = Row.from_dict(values)
            if row.wanted is not None:
                yield _line(row)
    yield ""
    yield _where(results, chosen[0])


def _line(row: Row) -> str:
    measure = "" if row.measure == "time of a clip" else f", {row.measure}"
    found = figure(row, row.value)
    if not row.reached:
        found = f"**{found}**"
    return f"| {row.ours}{measure} | {row.against or '-'} | {found} | {goal(row)} |"


def _where(results: dict[str, Any], part: str) -> str:
    hardware, measured = results["hardware"], results["parts"].get(part, {})
    versions = measured.get("versions", {}) | measured.get("peer_versions", {})
    sets = ", ".join(hardware["instruction_sets"] or ())
    note = f", {hardware['note']}" if "note" in hardware else ""
    libraries = ", ".join(f"{name} {versions[name]}" for name in versions)
    return (
        f"{hardware['cpu']}{note} ({sets}), {hardware['threads']} threads, "
        f"{hardware['memory_gb']:.0f} GB; {libraries}."
    )


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(file: Path) -> None:
    """Prints the table; figures that miss their goal are bold."""
    for line in lines(results_file.read(file)):
        click.echo(line)


if __name__ == "__main__":
    main()
