"""How ``timesformer stream`` prints results for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
from rich.cells import cell_len

from timesformer_runtime.terminal import printable

if TYPE_CHECKING:
    from timesformer_runtime.live import LiveResult

_WIDEST = 64  # columns; a longer label only shifts its own line


class LiveRows:
    """A table that grows: a row per window, and one for each further label.

    Args:
        labels: All labels that may come, for the width of their column.
    """

    def __init__(self, labels: Sequence[str] | None) -> None:
        names = ["label", *map(printable, labels or ())]
        self._width = min(max(map(cell_len, names)), _WIDEST)
        self._is_empty = True

    def add(self, result: LiveResult) -> None:
        """Prints the rows of one window."""
        if self._is_empty:
            self._print(("from", "to"), "label", "score", ("latency", "dropped"), bold=True)
            self._is_empty = False
        times = (f"{result.start:.1f}", f"{result.end:.1f}")
        facts = (f"{result.latency:.2f} s", str(result.dropped_frames))
        for rank, prediction in enumerate(result.predictions):
            score = f"{prediction['score']:.4f}"
            if rank == 0:
                self._print(times, prediction["label"], score, facts, fg="green")
            else:
                self._print(("", ""), prediction["label"], score, ("", ""), dim=True)

    def _print(
        self,
        times: tuple[str, str],
        label: str,
        score: str,
        facts: tuple[str, str],
        **style: Any,
    ) -> None:
        name = printable(label)
        name += " " * (self._width - cell_len(name))
        line = f"{times[0]:>8}  {times[1]:>8}  " + click.style(f"{name}  {score:>7}", **style)
        click.echo(f"{line}  {facts[0]:>8}  {facts[1]:>7}".rstrip())
