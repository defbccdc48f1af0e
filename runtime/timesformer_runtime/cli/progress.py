"""A progress bar below the lines that a command prints, where stderr is a terminal."""

from __future__ import annotations

import sys
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from timesformer_runtime.cli.output import echo, safe_to_print, say
from timesformer_runtime.errors import printable


class ProgressBar:
    """Shows how far a command is and how long the rest will take; a context manager.

    Args:
        total: The amount of work; None where that is not known yet.
        unit: The unit of the work, shown after the numbers, such as ``videos``.
    """

    def __init__(self, total: float | None, unit: str) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            BarColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
            redirect_stdout=False,
        )
        self._shares_terminal = (
            console.is_terminal and sys.stdout is not None and sys.stdout.isatty()
        )
        self._unit = unit
        self._task = self._progress.add_task("", total=total, facts="")

    def __enter__(self) -> Self:
        if not self._progress.disable:  # rich 13.0 prints an empty line even when disabled
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._progress.disable:
            self._progress.stop()

    def advance_to(self, done: float, total: float | None, doing: str = "") -> None:
        """Moves the bar to ``done`` of ``total`` units, and says what the command is doing."""
        task = self._progress.tasks[0]
        if done < task.completed:  # another pass begins
            self._progress.reset(self._task)
        of = "" if total is None else f" of {total:.0f}"
        speed = f", {task.speed:.2f} a second" if task.speed else ""
        facts = f"{done:.0f}{of} {self._unit}{speed}{f': {printable(doing)}' if doing else ''}"
        self._progress.update(self._task, completed=done, total=total, facts=facts)

    def echo(self, line: str) -> None:
        """Prints a line on stdout, above the bar where both share a terminal."""
        if self._shares_terminal:
            self._progress.console.print(
                line, markup=False, highlight=False, soft_wrap=True, emoji=False
            )
        else:
            echo(line)

    def say(self, line: str) -> None:
        """Prints a line on stderr, above the bar."""
        if self._progress.disable:
            say(line)
        else:
            self._progress.console.print(
                safe_to_print(line), markup=False, highlight=False, soft_wrap=True, emoji=False
            )
