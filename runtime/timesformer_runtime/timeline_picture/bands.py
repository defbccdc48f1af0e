"""Bands: which labels a timeline has, and how sure the model is of each of them at each time."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

MOST_LABELS = 12  # that are shown; more colours are hard to tell apart
_LEAST_LABELS = 2  # that are shown, if the model has them: one band alone says little


class Stretch(NamedTuple):
    """The times and the scores of one segment of a timeline.

    Attributes:
        start: Seconds from the video's first frame.
        end: Seconds from the video's first frame.
        scores: The score of each label, best first.
    """

    start: float
    end: float
    scores: tuple[tuple[str, float], ...]


@dataclasses.dataclass(frozen=True)
class Bands:
    """The scores of the labels that are shown, in columns of equal time.

    Attributes:
        labels: The labels, those that are first for the longest time before the others.
        scores: float64 [labels, columns], 0 to 1: the highest in the column's time. NaN where no
            segment has the time.
        is_first: bool [labels, columns]: True where the label is the first one of a segment.
        shares: For each label, the part of the time in which it is the first one.
        others: Number of labels that are first somewhere and not shown.
        start: Seconds from the video's first frame, at the beginning of the first column.
        end: Seconds from the video's first frame, at the end of the last column.
    """

    labels: tuple[str, ...]
    scores: npt.NDArray[np.float64]
    is_first: npt.NDArray[np.bool_]
    shares: tuple[float, ...]
    others: int
    start: float
    end: float

    def column_time(self, column: int) -> float:
        """The time at which a column begins."""
        return self.start + (self.end - self.start) * column / len(self.scores.T)


def bands_of(stretches: Sequence[Stretch], columns: int) -> Bands:
    """Arranges the segments of a timeline in bands.

    Where segments overlap, each has the time up to the middle of the overlap.

    Args:
        stretches: The segments in order, at least one.
        columns: Number of columns.
    """
    start, end = stretches[0].start, max(stretch.end for stretch in stretches)
    own_times = _own_times(stretches)
    labels, shares = _labels(stretches, own_times)
    shown = labels[:MOST_LABELS]
    rows = {label: row for row, label in enumerate(shown)}
    scores = np.full((len(shown), columns), np.nan)
    is_first = np.zeros((len(shown), columns), dtype=bool)
    for stretch, (own_start, own_end) in zip(stretches, own_times, strict=True):
        first = int((own_start - start) / (end - start) * columns)
        last = int(np.ceil((own_end - start) / (end - start) * columns))
        part = slice(min(first, columns - 1), max(last, first + 1))
        known = dict(stretch.scores)
        for label, row in rows.items():
            scores[row, part] = np.fmax(scores[row, part], known.get(label, 0.0))
        if stretch.scores[0][0] in rows:
            is_first[rows[stretch.scores[0][0]], part] = True
    others = sum(share > 0 for share in shares[MOST_LABELS:])
    return Bands(shown, scores, is_first, shares[:MOST_LABELS], others, start, end)


def _own_times(stretches: Sequence[Stretch]) -> list[tuple[float, float]]:
    """Gives the start and the end of the time that each segment has for itself."""
    starts = [stretches[0].start]
    ends = []
    for before, after in itertools.pairwise(stretches):
        middle = (before.end + after.start) / 2
        overlaps = before.end > after.start
        ends.append(middle if overlaps else before.end)
        starts.append(middle if overlaps else after.start)
    ends.append(stretches[-1].end)
    return list(zip(starts, ends, strict=True))


def _labels(
    stretches: Sequence[Stretch], own_times: Sequence[tuple[float, float]]
) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Sorts the labels that are first somewhere by time, and adds others where they are few."""
    seconds: dict[str, float] = {}
    sums: dict[str, float] = {}
    for stretch, (start, end) in zip(stretches, own_times, strict=True):
        first = stretch.scores[0][0]
        seconds[first] = seconds.get(first, 0.0) + end - start
        for label, score in stretch.scores:
            sums[label] = sums.get(label, 0.0) + score
    # Rounded, so that labels of equal times stay in the order of the video.
    labels = sorted(seconds, key=lambda label: -round(seconds[label], 6))
    rest = sorted(sums.keys() - seconds.keys(), key=lambda label: (-sums[label], label))
    labels += rest[: max(0, _LEAST_LABELS - len(labels))]
    total = max(sum(seconds.values()), 1e-9)
    return tuple(labels), tuple(seconds.get(label, 0.0) / total for label in labels)
