"""The gate for reduced precision: how far a variant is from PyTorch in float32, and a verdict.

A variant is not equal to PyTorch, so what counts is what users see: whether clips keep their
order against each other and their first labels.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from timesformer_exporter.fidelity import Array, json_fields


@dataclasses.dataclass(frozen=True)
class Threshold:
    """What a dtype must reach.

    Attributes:
        cosine: Least cosine of the centred outputs.
        top1: Least share of decided clips that keep their first label.
    """

    cosine: float
    top1: float


# Of the range of a clip's logits: with a smaller lead, the first label is chance in PyTorch too.
_UNDECIDED = 0.02

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
        cosine: Mean over the clips of the cosine between the two outputs, after the mean over
            the clips is taken away from each: what all clips share would hide how they differ,
            and each clip counts alike, however large its outputs are.
        max_abs: Largest absolute difference.
        top1: Share of clips with the same first label; None for features.
        decided_top1: The same among the clips where PyTorch itself is decided: its first label
            leads the second by more than 2 % of the range of its logits. None for features, 1
            where it is decided on no clip.
        top5: Share of clips with the same five first labels, in any order; None for features.
        score_change: Mean absolute change of the first label's softmax score; None for features.
    """

    dtype: str
    clips: int
    cosine: float
    max_abs: float
    top1: float | None = None
    decided_top1: float | None = None
    top5: float | None = None
    score_change: float | None = None

    @property
    def passed(self) -> bool:
        """Whether the dtype's thresholds are reached."""
        # Written so that a NaN does not pass.
        keeps_labels = self.decided_top1 is None or self.decided_top1 >= self.threshold.top1
        return self.cosine >= self.threshold.cosine and keeps_labels

    @property
    def threshold(self) -> Threshold:
        """What this dtype must reach."""
        return THRESHOLDS[self.dtype]

    def to_dict(self) -> dict[str, Any]:
        """For export_report.json."""
        return json_fields(self) | {
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
        cosine=_mean_cosine(expected, found),
        max_abs=float(difference.max()),
    )
    if not logits:
        return fidelity
    order, other = np.argsort(-expected, axis=1), np.argsort(-found, axis=1)
    rows = np.arange(len(expected))
    first = order[:, 0]
    margin = _margin(expected, order)
    same = first == other[:, 0]
    decided = margin > _UNDECIDED * np.ptp(expected, axis=1)
    five = min(5, expected.shape[1])
    same_five = (np.sort(order[:, :five]) == np.sort(other[:, :five])).all(axis=1)
    change = np.abs(_softmax(found)[rows, first] - _softmax(expected)[rows, first])
    return dataclasses.replace(
        fidelity,
        top1=float(same.mean()),
        decided_top1=float(same[decided].mean()) if decided.any() else 1.0,
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


def _mean_cosine(expected: Array, found: Array) -> float:
    """Mean over the clips of the cosine between their centred outputs, in equal scales."""
    spread = expected.std(axis=1, keepdims=True)
    scale = np.where(spread > 0, spread, 1.0)
    a, b = (values / scale - (values / scale).mean(axis=0) for values in (expected, found))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    same = np.isclose(a, b).all(axis=1).astype(np.float64)  # for rows of zeros
    cosines = np.divide((a * b).sum(axis=1), norms, out=same, where=norms != 0)
    return float(cosines.mean())
