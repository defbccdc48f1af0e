"""What many rounds say together: medians, ratios of neighbours, agreement of logits."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


@dataclasses.dataclass(frozen=True)
class Ratio:
    """How long one takes in units of the other.

    Attributes:
        middle: Median over the rounds.
        low: First quartile.
        high: Third quartile.
    """

    middle: float
    low: float
    high: float


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Compares times round by round, so that what slows a whole round down does not count.

    Args:
        ours: Seconds in each round.
        theirs: Seconds in the same rounds.
    """
    quotients = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    if len(quotients) == 1:
        return Ratio(*quotients * 3)
    low, middle, high = statistics.quantiles(quotients, n=4, method="inclusive")
    return Ratio(middle, low, high)


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How close logits are to PyTorch's.

    Attributes:
        cosine: Mean over the clips, after the clips' mean is taken away from each.
        top1: Share of clips with the same first label.
        clips: Number of clips.
    """

    cosine: float
    top1: float
    clips: int


def agreement(expected: npt.ArrayLike, found: npt.ArrayLike) -> Agreement:
    """Compares logits [clips, labels], or [clips, rows, labels], row by row.

    Args:
        expected: PyTorch's.
        found: The competitor's, of the same shape.

    Raises:
        ValueError: The shapes differ, or the clips are fewer than two.
    """
    a, b = np.asarray(expected, np.float64), np.asarray(found, np.float64)
    if a.shape != b.shape or len(a) < 2:
        raise ValueError(f"logits of shapes {a.shape} and {b.shape} cannot be compared")
    top1 = float((a.argmax(-1) == b.argmax(-1)).mean())
    centre = a.mean(axis=0)
    a, b = a - centre, b - centre
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    cosine = float(((a * b).sum(-1) / norms).mean())
    return Agreement(cosine, top1, len(a))
