"""Computes figures of many rounds: ratios of times, and the agreement of logits with PyTorch."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from timesformer_runtime.model.agreement import Agreement


@dataclasses.dataclass(frozen=True)
class Ratio:
    """The time of one model as a share of another's.

    Attributes:
        middle: Median over the rounds.
        low: First quartile.
        high: Third quartile.
    """

    middle: float
    low: float
    high: float


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Compares times round by round, so that a slow moment of the machine affects both times.

    Args:
        ours: Our seconds in each round.
        theirs: The competitor's seconds in the same rounds.
    """
    quotients = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    if len(quotients) == 1:
        return Ratio(*quotients * 3)
    low, middle, high = statistics.quantiles(quotients, n=4, method="inclusive")
    return Ratio(middle, low, high)


@dataclasses.dataclass(frozen=True)
class LogitsAgreement:
    """How near logits are to PyTorch's.

    Attributes:
        cosine: Mean over the clips of the cosine between the two logits, after the mean of
            PyTorch's logits over the clips is subtracted from both.
        top1: Share of clips with the same first label.
        clips: Number of clips.
    """

    cosine: float
    top1: float
    clips: int


def agreement(expected: npt.ArrayLike, found: npt.ArrayLike) -> LogitsAgreement:
    """Compares logits [clips, labels], or [clips, rows, labels], row by row.

    This cosine differs from the runtime's ``Agreement.centred_cosine``, which subtracts from each
    model's logits their own mean, so that an error that is equal in all clips does not count. The
    export's gate finds such an error by other thresholds. Here the cosine alone has to show it.

    Args:
        expected: PyTorch's logits.
        found: The competitor's logits, of the same shape.

    Raises:
        ValueError: The shapes differ, or there are fewer than two clips.
    """
    a, b = np.asarray(expected, np.float64), np.asarray(found, np.float64)
    if a.shape != b.shape or len(a) < 2:
        raise ValueError(f"logits of shapes {a.shape} and {b.shape} cannot be compared")
    labels = a.shape[-1]
    top1 = Agreement(a.reshape(-1, labels), b.reshape(-1, labels)).same_labels(1)
    centre = a.mean(axis=0)
    a, b = a - centre, b - centre
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    cosine = float(((a * b).sum(-1) / norms).mean())
    return LogitsAgreement(cosine, top1, len(a))
