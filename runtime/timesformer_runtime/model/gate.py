"""The gate: measures how far a variant in reduced precision is from PyTorch in float32.

The outputs of a variant always differ from PyTorch's. The gate judges the differences that users
see: in how the outputs of several clips differ from each other, and in the first labels.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from timesformer_runtime.json_object import json_fields
from timesformer_runtime.model.agreement import Agreement, Array


@dataclasses.dataclass(frozen=True)
class Threshold:
    """The thresholds that a dtype must reach.

    Attributes:
        cosine: Least cosine of the centred outputs.
        relative: Largest difference, as a share of the range of PyTorch's outputs.
        top1: Least share for ``VariantFidelity.decided_top1``.
        top5: Least share for ``VariantFidelity.decided_top5``.
        score_change: Largest mean change of the first label's score.
        rollout: Least correlation of the attention rollouts. A picture of the shares shows where
            they are large and where small, so a variant may change all of them a little.
    """

    cosine: float
    relative: float
    top1: float
    top5: float
    score_change: float
    rollout: float = 0.9


THRESHOLDS = {
    "fp16": Threshold(
        cosine=0.9999, relative=0.02, top1=1.0, top5=0.9, score_change=0.005, rollout=0.999
    ),
    "int8": Threshold(
        cosine=0.99, relative=0.2, top1=0.9, top5=0.8, score_change=0.05, rollout=0.95
    ),
    "q4": Threshold(cosine=0.97, relative=0.4, top1=0.8, top5=0.7, score_change=0.1),
}


@dataclasses.dataclass(frozen=True)
class VariantFidelity:
    """A variant against PyTorch in float32, over at least 16 different clips.

    Attributes:
        dtype: ``int8``, ``fp16`` or ``q4``.
        clips: Number of clips.
        cosine: Mean over the clips of the cosine between the two outputs, centred.
        max_abs: Largest absolute difference.
        relative: Largest absolute difference, as a share of the range of PyTorch's outputs over
            all clips.
        typical_error: Median over the clips of a clip's largest difference.
        top1: Share of clips with the same first label; None for features.
        decided_top1: Share of clips with the same first label, among the clips that PyTorch decides
            clearly: its first label leads the second by more than twice the typical error. 1 if
            PyTorch decides no clip clearly; None for features. (Twice the largest error would be a
            bad limit: it would leave out the very clips whose labels a large error changes.)
        top5: Share of clips with the same five first labels, in any order; None for features.
        decided_top5: Share of clips with the same five first labels, among the clips where
            PyTorch's fifth label leads the sixth by more than twice the typical error. 1 if
            PyTorch decides no clip clearly; None for features.
        score_change: Mean absolute change of the first label's softmax score; None for features.
        rollout: Mean over the clips of the correlation between the two attention rollouts; None for
            a model without that output.
        name: The variant's name, as in its file's name; of several int8 files each has its own.
    """

    dtype: str
    clips: int
    cosine: float
    max_abs: float
    relative: float
    typical_error: float
    top1: float | None = None
    decided_top1: float | None = None
    top5: float | None = None
    decided_top5: float | None = None
    score_change: float | None = None
    rollout: float | None = None
    name: str = ""

    @property
    def threshold(self) -> Threshold:
        """The thresholds of this dtype."""
        return THRESHOLDS[self.dtype]

    @property
    def missed(self) -> tuple[str, ...]:
        """One phrase for each threshold that the variant misses."""
        needed = self.threshold
        # `not value >= limit` instead of `value < limit`, so that NaN misses every threshold.
        at_least = [
            ("cosine", self.cosine, needed.cosine),
            ("share of clear first labels kept", self.decided_top1, needed.top1),
            ("share of clear first five labels kept", self.decided_top5, needed.top5),
            ("correlation of attention rollout", self.rollout, needed.rollout),
        ]
        at_most = [
            ("largest difference, as a share of the range,", self.relative, needed.relative),
            ("mean change of the first score", self.score_change, needed.score_change),
        ]
        return tuple(
            f"{name} is {value:.4g} (at least {limit:g})"
            for name, value, limit in at_least
            if value is not None and not value >= limit
        ) + tuple(
            f"{name} is {value:.4g} (at most {limit:g})"
            for name, value, limit in at_most
            if value is not None and not value <= limit
        )

    @property
    def passed(self) -> bool:
        """True where the variant reaches all thresholds of its dtype."""
        return not self.missed

    def to_dict(self) -> dict[str, Any]:
        """The measurements, thresholds and verdict, for export_report.json."""
        return json_fields(self) | {
            "thresholds": dataclasses.asdict(self.threshold),
            "passed": self.passed,
        }


def measure(dtype: str, expected: Array, found: Array, *, logits: bool) -> VariantFidelity:
    """Compares a variant's outputs with PyTorch's.

    Args:
        dtype: The variant's precision.
        expected: PyTorch's outputs, float32 [clips, labels] or [clips, hidden].
        found: The variant's outputs, of the same shape.
        logits: True for logits, False for features.
    """
    agreement = Agreement(expected, found)
    fidelity = VariantFidelity(
        dtype=dtype,
        clips=len(expected),
        cosine=agreement.centred_cosine,
        max_abs=agreement.max_abs,
        relative=agreement.of_range,
        typical_error=agreement.typical_error,
    )
    if not logits:
        return fidelity
    lead = 2 * agreement.typical_error
    return dataclasses.replace(
        fidelity,
        top1=agreement.same_labels(1),
        decided_top1=agreement.same_labels(1, lead),
        top5=agreement.same_labels(5),
        decided_top5=agreement.same_labels(5, lead),
        score_change=agreement.score_change,
    )
