"""The comparison of the fidelity check finds each kind of error."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from timesformer_exporter.proof.fidelity import Fidelity, compare
from timesformer_runtime.model.agreement import Array

CLIPS = np.arange(1, 6, dtype=np.float32).reshape(5, 1)


def _logits(clips: Array) -> Array:
    """Logits that tell the clips apart: [batch, 7]."""
    return np.cos(clips * np.arange(1, 8, dtype=np.float32))


def _compare(change: Any = lambda outputs: outputs, **options: Any) -> Fidelity:
    reference = {"logits": _logits(CLIPS), "tubes": np.repeat(_logits(CLIPS), 2, axis=0)}

    def run(clips: Array) -> dict[str, Array]:
        logits = _logits(clips)
        outputs: dict[str, Array] = change(
            {"logits": logits.copy(), "tubes": np.repeat(logits, 2, axis=0)}
        )
        return outputs

    return compare(reference, run, CLIPS, **({"atol": 1e-5} | options))


def test_equal_outputs_pass_at_every_batch_size() -> None:
    fidelity = _compare()
    assert fidelity.passed
    assert [c.batch for c in fidelity.comparisons if c.output == "logits"] == [1, 2, 3, 5]
    assert {c.max_abs for c in fidelity.comparisons} == {0.0}
    assert all(c.cosine == pytest.approx(1.0) for c in fidelity.comparisons)
    assert {(c.top1, c.top5) for c in fidelity.comparisons} == {(1.0, 1.0), (None, None)}


def test_the_limit_is_absolute_plus_relative() -> None:
    largest = np.abs(_logits(CLIPS)).max()
    limit = 1e-5 + 1e-4 * largest

    def shifted(by: float) -> Any:
        return lambda outputs: {name: value + by for name, value in outputs.items()}

    assert _compare(shifted(0.99 * limit), batches=(5,)).passed
    failed = _compare(shifted(1.02 * limit), batches=(5,))
    assert not failed.passed
    assert failed.worst.max_abs == pytest.approx(1.02 * limit, rel=1e-2)
    assert failed.worst.relative == pytest.approx(1.02 * limit / largest, rel=1e-2)
    assert _compare(shifted(1.02 * limit), batches=(5,), atol=1e-3).passed


def test_one_wrong_row_in_the_largest_batch_is_seen() -> None:
    def spoil(outputs: dict[str, Array]) -> dict[str, Array]:
        if len(outputs["logits"]) == 5:
            outputs["logits"][3] = outputs["logits"][3][::-1]
        return outputs

    fidelity = _compare(spoil)
    assert [c.batch for c in fidelity.comparisons if not c.passed] == [5]
    assert fidelity.worst.top1 == pytest.approx(0.8)


def test_a_baked_batch_size_is_seen() -> None:
    def baked(outputs: dict[str, Array]) -> dict[str, Array]:
        return {name: value[: 2 * len(value) // len(value)] for name, value in outputs.items()}

    fidelity = _compare(baked)
    assert not fidelity.passed
    assert "the shape is [2, 7] instead of [5, 7]" in {c.problem for c in fidelity.comparisons}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda outputs: outputs | {"logits": outputs["logits"] * np.nan}, "not finite"),
        (lambda outputs: {"tubes": outputs["tubes"]}, "missing"),
    ],
)
def test_what_cannot_be_compared_fails(change: Any, problem: str) -> None:
    fidelity = _compare(change)
    assert not fidelity.passed
    assert problem in (fidelity.worst.problem or "")
    rows = json.loads(json.dumps(fidelity.to_dict(), allow_nan=False))["comparisons"]
    assert rows[0]["max_abs"] is None


def test_top5_ignores_the_order_within_the_five() -> None:
    def swap(outputs: dict[str, Array]) -> dict[str, Array]:
        order = np.argsort(-outputs["logits"], axis=1)
        swapped = outputs["logits"].copy()
        rows = np.arange(len(order))
        swapped[rows, order[:, 0]], swapped[rows, order[:, 1]] = (
            outputs["logits"][rows, order[:, 1]],
            outputs["logits"][rows, order[:, 0]],
        )
        return outputs | {"logits": swapped}

    (comparison,) = (c for c in _compare(swap, batches=(5,)).comparisons if c.output == "logits")
    assert (comparison.top1, comparison.top5) == (0.0, 1.0)
