"""Measures how near a model's outputs are to PyTorch's.

The exporter's fidelity check and gate, and the golden check of this package, measure with it and
each apply limits of their own.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def incomparable(expected: Array, found: Array | None) -> str | None:
    """Says why a model's output cannot be compared with PyTorch's; None where it can."""
    if found is None:
        return "the output is missing"
    if found.shape != expected.shape:
        return f"the shape is {list(found.shape)} instead of {list(expected.shape)}"
    if not np.isfinite(expected).all():
        return "PyTorch's values are not finite"
    if not np.isfinite(found).all():
        return "the values are not finite"
    return None


class Agreement:
    """Compares one output of a model with PyTorch's, for the same clips; computes on demand.

    Args:
        expected: PyTorch's values; the first axis is the clip.
        found: The model's values, of the same shape.
    """

    def __init__(self, expected: Array, found: Array) -> None:
        self._expected = expected.astype(np.float64)
        self._found = found.astype(np.float64)

    @cached_property
    def errors(self) -> Array:
        """The largest absolute difference of each clip, float64 [clips]."""
        differences = np.abs(self._found - self._expected)
        worst: Array = differences.reshape(len(differences), -1).max(axis=1)
        return worst

    @property
    def max_abs(self) -> float:
        """The largest absolute difference."""
        return float(self.errors.max())

    @property
    def typical_error(self) -> float:
        """The median over the clips of a clip's largest absolute difference."""
        return float(np.median(self.errors))

    @property
    def of_largest(self) -> float:
        """The largest difference as a share of PyTorch's largest absolute value."""
        largest = float(np.abs(self._expected).max())
        return self.max_abs / largest if largest else self.max_abs

    @property
    def of_range(self) -> float:
        """The largest difference as a share of the range of PyTorch's values."""
        spread = float(np.ptp(self._expected))
        return self.max_abs / spread if spread else self.max_abs

    @property
    def cosine(self) -> float:
        """The cosine of the angle between the two outputs, flattened."""
        a, b = self._expected.ravel(), self._found.ravel()
        norm = float(np.linalg.norm(a) * np.linalg.norm(b))
        return float(a @ b) / norm if norm else float(np.array_equal(a, b))

    @property
    def centred_cosine(self) -> float:
        """The mean over the clips [clips, values] of the cosine between their centred outputs.

        The mean over the clips is subtracted from each output, because values that all clips share
        would hide how the clips differ. Each clip counts alike, however large its values are.
        """
        spread = self._expected.std(axis=1, keepdims=True)
        scale = np.where(spread > 0, spread, 1.0)
        scaled = self._expected / scale, self._found / scale
        a, b = (values - values.mean(axis=0) for values in scaled)
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        same = np.isclose(a, b).all(axis=1).astype(np.float64)  # the cosine of rows of zeros
        cosines = np.divide((a * b).sum(axis=1), norms, out=same, where=norms != 0)
        return float(cosines.mean())

    @property
    def correlation(self) -> float:
        """The mean over the clips [clips, ...] of the correlation between their two maps.

        1 for two maps that are both even; 0 where only one is.
        """
        a, b = (values.reshape(len(values), -1) for values in (self._expected, self._found))
        a, b = (values - values.mean(axis=1, keepdims=True) for values in (a, b))
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        same = np.isclose(a, b, atol=0).all(axis=1).astype(np.float64)
        found = np.divide((a * b).sum(axis=1), norms, out=same, where=norms != 0)
        return float(found.mean())

    def same_labels(self, count: int, lead: float | None = None) -> float:
        """The share of the clips on whose ``count`` first labels both agree, in any order.

        Args:
            count: Number of labels, best first; the outputs are logits [clips, labels].
            lead: Count only the clips whose ``count``-th largest logit in PyTorch exceeds the next
                one by more than ``lead``. Without such clips the share is 1.0.
        """
        labels = self._expected.shape[1]
        if count >= labels:
            return 1.0
        order, other = (
            np.argsort(-values, axis=1, kind="stable") for values in (self._expected, self._found)
        )
        same = (np.sort(order[:, :count]) == np.sort(other[:, :count])).all(axis=1)
        if lead is not None:
            ranked = np.take_along_axis(self._expected, order, axis=1)
            same = same[ranked[:, count - 1] - ranked[:, count] > lead]
        return float(same.mean()) if same.size else 1.0

    @property
    def score_change(self) -> float:
        """The mean absolute change of the softmax score of PyTorch's first label."""
        rows, first = np.arange(len(self._expected)), self._expected.argmax(axis=1)
        change = _softmax(self._found)[rows, first] - _softmax(self._expected)[rows, first]
        return float(np.abs(change).mean())


def _softmax(logits: Array) -> Array:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores: Array = exponentials / exponentials.sum(axis=1, keepdims=True)
    return scores
