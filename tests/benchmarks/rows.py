"""The rows of the result tables: our figure, a competitor's, and the goal."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tests.benchmarks.contest import Entry
from tests.benchmarks.figures import Ratio, ratio

CPU_TIME = "processor time of a clip"


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        measure: The name of the figure, such as ``time of a clip``.
        ours: The name of our model.
        against: The competitor's name; empty for a number that is compared with a goal only.
        value: Our figure divided by the competitor's, or our number.
        unit: ``x`` for a ratio, else the number's unit.
        wanted: The largest ``value`` that reaches the goal; None without a goal.
        low: First quartile of the ratio over the rounds; None for numbers.
        high: Third quartile of the ratio over the rounds; None for numbers.
    """

    measure: str
    ours: str
    against: str
    value: float
    unit: str
    wanted: float | None
    low: float | None = None
    high: float | None = None

    @property
    def reached(self) -> bool | None:
        """True where the value reaches the goal; None without a goal."""
        return None if self.wanted is None else self.value <= self.wanted

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Row:
        """Makes a row of the values that ``dataclasses.asdict`` gave."""
        return cls(**values)


def ratio_row(
    measure: str,
    ours: tuple[str, Sequence[float]],
    theirs: tuple[str, Sequence[float]],
    wanted: float | None,
) -> Row:
    """Compares our measurements with a competitor's, round by round.

    Args:
        measure: The name of the figure.
        ours: Our model's name, and its number in each round.
        theirs: The competitor's name, and its number in each round.
        wanted: The largest ratio that reaches the goal; None without a goal.
    """
    result: Ratio = ratio(ours[1], theirs[1])
    return Row(measure, ours[0], theirs[0], result.middle, "x", wanted, result.low, result.high)


def time_rows(
    entries: Mapping[str, Entry], ours: str, wanted: Mapping[str, float | None]
) -> list[Row]:
    """Compares the time of a clip with each competitor of ``wanted`` that was measured."""
    seconds = {name: entry.seconds for name, entry in entries.items()}
    return _ratio_rows("time of a clip", seconds, ours, wanted)


def cpu_time_rows(
    entries: Mapping[str, Entry], ours: str, wanted: Mapping[str, float | None]
) -> list[Row]:
    """Compares the processor time of a clip with each measured competitor of ``wanted``."""
    seconds = {name: entry.cpu_seconds for name, entry in entries.items()}
    return _ratio_rows(CPU_TIME, seconds, ours, wanted)


def _ratio_rows(
    measure: str,
    costs: Mapping[str, Sequence[float]],
    ours: str,
    wanted: Mapping[str, float | None],
) -> list[Row]:
    return [
        ratio_row(measure, (ours, costs[ours]), (name, costs[name]), limit)
        for name, limit in wanted.items()
        if costs.get(ours) and costs.get(name)
    ]


def without_goals(table: Sequence[Row]) -> list[Row]:
    """Rows without their goals, for processors for which the goals were not set."""
    return [dataclasses.replace(row, wanted=None) for row in table]


def fastest(entries: Mapping[str, Entry], names: Sequence[str]) -> str | None:
    """The name of the measured competitor with the lowest median time; None without any."""
    measured = [name for name in names if name in entries and entries[name].seconds]
    return min(measured, key=lambda name: entries[name].median, default=None)


def number_row(
    measure: str, ours: str, values: Sequence[float], unit: str, wanted: float | None
) -> Row:
    """Makes a row of one of our own numbers, the median of several measurements."""
    return Row(measure, ours, "", statistics.median(values), unit, wanted)
