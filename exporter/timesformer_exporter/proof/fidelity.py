"""The fidelity check: compares every output of a float32 graph with PyTorch's, value by value."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from timesformer_runtime.json_object import json_fields
from timesformer_runtime.model.agreement import Agreement, Array, incomparable

from timesformer_exporter.model.attention_rollout import ROLLOUT

Outputs = Mapping[str, Array]

BATCHES = (1, 2, 3, 5)
RELATIVE_TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One output of the ONNX file against PyTorch's, for one batch.

    Attributes:
        output: The output's name.
        clips: The kind of clips: ``native`` (of the model's own frame size) or ``resized``.
        batch: Number of clips in the batch.
        max_abs: Largest absolute difference.
        relative: Largest absolute difference, divided by PyTorch's largest absolute value.
        cosine: Cosine of the angle between the two outputs, flattened.
        limit: The largest difference that passes.
        top1: Share of clips with the same first label; None for outputs that are not logits.
        top5: Share of clips with the same five first labels, in any order; None for outputs that
            are not logits.
        problem: The reason why the values cannot be compared; None where they can.
    """

    output: str
    clips: str
    batch: int
    max_abs: float
    relative: float
    cosine: float
    limit: float
    top1: float | None = None
    top5: float | None = None
    problem: str | None = None

    @property
    def title(self) -> str:
        """The output's name, and the kind of clips unless it is ``native``."""
        return self.output if self.clips == "native" else f"{self.output} ({self.clips})"

    @property
    def passed(self) -> bool:
        """True where the outputs agree."""
        return self.problem is None and self.max_abs <= self.limit


@dataclasses.dataclass(frozen=True)
class Fidelity:
    """All comparisons of a graph with PyTorch."""

    comparisons: tuple[Comparison, ...]

    @property
    def passed(self) -> bool:
        """True where every output agrees at every batch size."""
        return all(comparison.passed for comparison in self.comparisons)

    @property
    def worst(self) -> Comparison:
        """The comparison that is furthest beyond its limit; if all pass, nearest to it."""

        def rank(comparison: Comparison) -> tuple[bool, bool, float]:
            ratio = comparison.max_abs / comparison.limit if comparison.limit else 0.0
            return not comparison.passed, comparison.problem is not None, ratio

        return max(self.comparisons, key=rank)

    def to_dict(self) -> dict[str, Any]:
        """The comparisons and the verdict, for export_report.json."""
        rows = [
            json_fields(comparison) | {"passed": comparison.passed}
            for comparison in self.comparisons
        ]
        return {"passed": self.passed, "comparisons": rows}


def compare(
    reference: Outputs,
    run: Callable[[Array], Outputs],
    clips: Array,
    *,
    atol: float,
    rtol: float = RELATIVE_TOLERANCE,
    batches: tuple[int, ...] = BATCHES,
    kind: str = "native",
) -> Fidelity:
    """Runs a graph at several batch sizes and compares each output with PyTorch's.

    Args:
        reference: PyTorch's outputs for all ``clips``; the first axis of an output is the clip,
            or the clip and something within it (frames, patches), clip-major.
        run: Runs the graph on a batch of clips.
        clips: The inputs, clip by clip on the first axis; at least as many as the largest batch.
        atol: Absolute tolerance, added to the relative one; for attention rollout it is relative,
            too.
        rtol: Tolerance relative to PyTorch's largest value.
        batches: The batch sizes; each takes the last clips, so that every batch differs.
        kind: The name of these clips in the result.
    """
    comparisons = []
    for batch in batches:
        start = len(clips) - batch
        outputs = run(clips[start:])
        for name, expected in reference.items():
            rows = len(expected) // len(clips)
            selected = expected[start * rows :]
            limit = _limit(name, float(np.abs(selected).max()), atol, rtol)
            comparisons.append(_compare_one(name, kind, batch, limit, selected, outputs.get(name)))
    return Fidelity(tuple(comparisons))


def _limit(output: str, largest: float, atol: float, rtol: float) -> float:
    """The largest difference that passes; it grows with PyTorch's largest absolute value.

    The shares of attention rollout are the smaller, the more patches there are, so that an absolute
    tolerance would let wrong shares pass.
    """
    return (atol + rtol) * largest if output == ROLLOUT else atol + rtol * largest


def failure(output: str, problem: str) -> Fidelity:
    """Makes the verdict on a graph whose outputs cannot be compared at all."""
    infinite = float("inf")
    return Fidelity(
        (Comparison(output, "native", 1, infinite, infinite, 0.0, 0.0, problem=problem),)
    )


def _compare_one(
    name: str, kind: str, batch: int, limit: float, expected: Array, found: Array | None
) -> Comparison:
    problem = incomparable(expected, found)
    if found is None or problem is not None:
        infinite = float("inf")
        return Comparison(name, kind, batch, infinite, infinite, 0.0, limit, problem=problem)
    agreement = Agreement(expected, found)
    is_logits = name == "logits"
    return Comparison(
        output=name,
        clips=kind,
        batch=batch,
        max_abs=agreement.max_abs,
        relative=agreement.of_largest,
        cosine=agreement.cosine,
        limit=limit,
        top1=agreement.same_labels(1) if is_logits else None,
        top5=agreement.same_labels(5) if is_logits else None,
    )
