"""The gate for reduced precision: how far a variant is from PyTorch in float32, and a verdict.

A variant is not equal to PyTorch, so what counts is what users see: whether clips keep their
order against each other and their first labels.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from timesformer_exporter.fidelity import Array


@dataclasses.dataclass(frozen=True)
class Threshold:
    """What a dtype must reach.

    Attributes:
        cosine: Least cosine of the centred outputs.
        top1: Least share of clips that keep their first label.
    """

    cosine: float
    top1: float


THRESHOLDS = {
    "fp16": Threshold(cosine=0.9999, top1=1.0),
    "int8": Threshold(cosine=0.99, top1=0.9),
    "q4": Threshold(cosine=0.95, top1=0.8),
}


@dataclasses.dataclass(frozen=True)
class VariantFidelity:
    """A variant against PyTorch in float32, over at least 16 different clips.

    Attributes:
        dtype: ``int8``, ``fp16`` or ``q4``.
        clips: Number of clips.
        cosine: Between the outputs of all clips, after the mean over the clips is taken away
            from each: what all clips share would hide how they differ.
        max_abs: Largest absolute difference.
        top1: Share of clips with the same first label. A change does not count where PyTorch's
            own margin between its two first labels is within the clip's error: such a clip was
            undecided. None for features.
        top5: Share of clips with the same five first labels, in any order; None for features.
        score_change: Mean absolute change of the first label's softmax score; None for features.
    """

    dtype: str
    clips: int
    cosine: float
    max_abs: float
    top1: float | None = None
    top5: float | None = None
    score_change: float | None = None

    @property
    def threshold(self) -> Threshold:
        """What this dtype must reach."""
        return THRESHOLDS[self.dtype]

    @property
    def passed(self) -> bool:
        """Whether the dtype's thresholds are reached."""
        threshold = THRESHOLDS[self.dtype]
        # Written so that a NaN does not pass.
        return self.cosine >= threshold.cosine and (
            self.top1 is None or self.top1 >= threshold.top1
        )

    def to_dict(self) -> dict[str, Any]:
        """For export_report.json."""
        values = dataclasses.asdict(self)
        return values | {
            "thresholds": dataclasses.asdict(self.threshold),
            "passed": self.passed,
        }


def measure(dtype: str, expected: Array, found: Array, *, logits: bool) -> VariantFidelity:
    """Compares a variant's outputs with PyTorch's.

    Args:
        dtype: The variant.
        expected: PyTorch's outputs, float32 [clips, labels] or [clips, hidden].
        found: The variant's.
        logits: Whether these are logits; else they are features.
    """
    expected, found = expected.astype(np.float64), found.astype(np.float64)
    difference = np.abs(found - expected)
    fidelity = VariantFidelity(
        dtype=dtype,
        clips=len(expected),
        cosine=_cosine(expected - expected.mean(axis=0), found - found.mean(axis=0)),
        max_abs=float(difference.max()),
    )
    if not logits:
        return fidelity
    order, other = np.argsort(-expected, axis=1), np.argsort(-found, axis=1)
    rows = np.arange(len(expected))
    first = order[:, 0]
    margin = _margin(expected, order)
    kept = (first == other[:, 0]) | (margin <= difference.max(axis=1))
    five = min(5, expected.shape[1])
    same_five = (np.sort(order[:, :five]) == np.sort(other[:, :five])).all(axis=1)
    change = np.abs(_softmax(found)[rows, first] - _softmax(expected)[rows, first])
    return dataclasses.replace(
        fidelity,
        top1=float(kept.mean()),
        top5=float(same_five.mean()),
        score_change=float(change.mean()),
    )


def _margin(logits: Array, order: Array) -> Array:
    """How far the first label is ahead of the second, [clips]; infinite with one label."""
    if logits.shape[1] == 1:
        return np.full(len(logits), np.inf)
    rows = np.arange(len(logits))
    return logits[rows, order[:, 0]] - logits[rows, order[:, 1]]


def _softmax(logits: Array) -> Array:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores: Array = exponentials / exponentials.sum(axis=1, keepdims=True)
    return scores


def _cosine(a: Array, b: Array) -> float:
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float((a * b).sum()) / norm if norm else float(np.array_equal(a, b))
