"""The lines of the result tables: ours against another, with what is wanted."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tests.benchmarks.contest import Entry
from tests.benchmarks.figures import Ratio, ratio


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        measure: What is compared, as ``time of a clip``.
        ours: Our side's name.
        against: The other's name; empty where a number is to be kept without one.
        value: The ratio, or our number.
        unit: ``x`` for a ratio, else the number's unit.
        wanted: The most that is wanted; None where nothing was promised.
        low: First quartile of the ratio over the rounds; None for numbers.
        high: Third quartile.
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
        """Whether the value is as wanted; None where nothing is."""
        return None if self.wanted is None else self.value <= self.wanted

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Row:
        """Reads what ``dataclasses.asdict`` gave."""
        return cls(**values)


def ratio_row(
    measure: str,
    ours: tuple[str, Sequence[float]],
    theirs: tuple[str, Sequence[float]],
    wanted: float | None,
) -> Row:
    """Compares two series of measurements, each a name and its numbers, round by round."""
    result: Ratio = ratio(ours[1], theirs[1])
    return Row(measure, ours[0], theirs[0], result.middle, "x", wanted, result.low, result.high)


def time_rows(
    entries: Mapping[str, Entry], ours: str, wanted: Mapping[str, float | None]
) -> list[Row]:
    """Time of one clip against each of the competitors named in ``wanted`` that were measured."""
    if ours not in entries or not entries[ours].seconds:
        return []
    return [
        ratio_row(
            "time of a clip", (ours, entries[ours].seconds), (name, entries[name].seconds), limit
        )
        for name, limit in wanted.items()
        if name in entries and entries[name].seconds
    ]


def fastest(entries: Mapping[str, Entry], names: Sequence[str]) -> str | None:
    """The one with the lowest median among those that were measured."""
    measured = [name for name in names if name in entries and entries[name].seconds]
    return min(measured, key=lambda name: entries[name].median, default=None)


def number_row(
    measure: str, ours: str, values: Sequence[float], unit: str, wanted: float | None
) -> Row:
    """One of our own numbers, the median of several measurements."""
    return Row(measure, ours, "", statistics.median(values), unit, wanted)
