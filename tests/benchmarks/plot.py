"""Draws the plot of docs/benchmarks.md from a results file: seconds of each competitor for a clip.

    .venv-bench/bin/python -m tests.benchmarks.plot tests/benchmarks/results/MACHINE.json

writes MACHINE.svg beside it (with ``--png`` also MACHINE.png). ``--cpu-time`` draws the processor
time, for machines on which other programs ran. It needs matplotlib, which the
environment of ``make bench-peers`` has.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
from pathlib import Path
from typing import Any

# Colours that are legible on white and on dark grey, as the background is transparent.
_TEXT, _OURS, _THEIRS = "#808080", "#2a9d5c", "#7a94b8"
_FIGURES = {"seconds": "seconds", "cpu_seconds": "seconds of processor time"}
_OUR_NAMES = ("int8", "fp32", "int8, weights of 8 bits")


def bars(results: dict[str, Any], of: str = "seconds") -> list[tuple[str, float]]:
    """Name and median of everything measured, the fastest first.

    Args:
        results: The contents of a results file.
        of: The figure: ``seconds``, or ``cpu_seconds`` of processor time.

    Raises:
        KeyError: The file has no comparison.
    """
    parts = results["parts"]
    competitors = parts.get("peers", parts.get("speed"))
    if competitors is None:
        raise KeyError("peers")
    found = [
        (name, statistics.median(entry[of]))
        for name, entry in competitors["competitors"].items()
        if entry["seconds"]
    ]
    return sorted(found, key=lambda bar: bar[1])


def draw(results: dict[str, Any], path: Path, of: str = "seconds") -> None:
    """Writes the plot of a figure in the format that the path's suffix names."""
    matplotlib: Any = importlib.import_module("matplotlib")
    figures: Any = importlib.import_module("matplotlib.figure")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "", "font.size": 9})
    found = bars(results, of)
    figure = figures.Figure(figsize=(7, 0.27 * len(found) + 0.7), layout="constrained")
    axes = figure.add_subplot()
    names = [f"{name} (ours)" if name in _OUR_NAMES else name for name, _ in found]
    colours = [_OURS if name in _OUR_NAMES else _THEIRS for name, _ in found]
    drawn = axes.barh(names, [seconds for _, seconds in found], color=colours, height=0.7)
    axes.bar_label(drawn, fmt="%.2f s", padding=4, color=_TEXT)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    figure.suptitle(title(results["hardware"], of), color=_TEXT, fontsize=9, x=0.01, ha="left")
    axes.spines[:].set_visible(False)
    axes.tick_params(axis="y", length=0, colors=_TEXT)
    axes.xaxis.set_visible(False)
    for label, (name, _) in zip(axes.get_yticklabels(), found, strict=True):
        label.set_color(_OURS if name in _OUR_NAMES else _TEXT)
    figure.savefig(
        path, transparent=True, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else {}
    )


def title(hardware: dict[str, Any], of: str = "seconds") -> str:
    """The title of the plot: what is measured, and on which machine."""
    amx = ", AMX" if "amx_int8" in (hardware["instruction_sets"] or ()) else ""
    note = f", {hardware['note']}" if "note" in hardware else ""
    return (
        f"TimeSformer base, 8x224x224: {_FIGURES[of]} for one clip, shorter is better\n"
        f"{hardware['cpu']}{amx}{note}, {hardware['threads']} threads"
    )


def main() -> None:
    """Reads a results file and writes the plot beside it."""
    parser = argparse.ArgumentParser(description="Plot a results file.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--png", action="store_true", help="also as PNG")
    parser.add_argument("--cpu-time", action="store_true", help="processor time, not time")
    arguments = parser.parse_args()
    of = "cpu_seconds" if arguments.cpu_time else "seconds"
    try:
        results = json.loads(arguments.file.read_text(encoding="utf-8"))
        for suffix in (".svg", ".png") if arguments.png else (".svg",):
            draw(results, arguments.file.with_suffix(suffix), of)
            print(arguments.file.with_suffix(suffix))
    except ModuleNotFoundError as error:
        parser.error(f"{error.name} is missing; `make bench-peers` installs it into .venv-bench")
    except (OSError, ValueError, KeyError, TypeError) as error:
        parser.error(f"{arguments.file} is not a results file with a comparison ({error!r})")


if __name__ == "__main__":
    main()
