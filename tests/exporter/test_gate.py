"""The gate of variants in reduced precision, by value."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from timesformer_exporter.checks import Proof
from timesformer_exporter.fidelity import Comparison, Fidelity
from timesformer_exporter.gate import THRESHOLDS, VariantFidelity, measure

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(16, 7))


def _measure(found: Any, expected: Any = LOGITS, dtype: str = "int8") -> VariantFidelity:
    return measure(dtype, np.asarray(expected), np.asarray(found), logits=True)


def test_the_same_outputs_pass() -> None:
    found = _measure(LOGITS)
    assert (found.clips, found.max_abs, found.top1, found.top5) == (16, 0.0, 1.0, 1.0)
    assert found.cosine == pytest.approx(1.0)
    assert found.score_change == 0.0
    assert found.passed


def test_what_all_clips_share_does_not_count() -> None:
    """A variant that answers every clip alike is worthless, however near that answer is."""
    shared = LOGITS * 0.01 + 100 * np.arange(7)
    plain = float((shared * (100 * np.arange(7))).sum()) / float(
        np.linalg.norm(shared) * np.linalg.norm(np.tile(100 * np.arange(7), (16, 1)))
    )
    assert plain > 0.999999
    found = _measure(np.tile(100.0 * np.arange(7), (16, 1)), shared)
    assert found.cosine < 0.5
    assert not found.passed


def test_a_changed_first_label_counts_where_pytorch_was_decided() -> None:
    expected = np.array([[1.0, 0.0, -1.0]] * 14 + [[1.0, 0.99, -1.0]] * 2)
    undecided = expected.copy()
    undecided[15] = [0.98, 1.0, -1.0]
    found = _measure(undecided, expected)
    assert found.top1 == pytest.approx(15 / 16)
    assert found.decided_top1 == 1.0
    decided = expected.copy()
    decided[0] = [0.4, 0.5, -1.0]
    found = _measure(decided, expected)
    assert found.top1 == pytest.approx(15 / 16)
    assert found.decided_top1 == pytest.approx(13 / 14)


def test_one_loud_clip_does_not_carry_the_others() -> None:
    expected = LOGITS.copy()
    expected[0] *= 1000
    found = RANDOM.normal(size=(16, 7))
    found[0] = expected[0]
    measured = _measure(found, expected)
    assert measured.cosine < 0.99
    assert not measured.passed


def test_the_worse_a_variant_the_lower_its_agreement() -> None:
    assert _measure(-LOGITS).top1 == 0.0
    noise = _measure(50 * RANDOM.normal(size=(16, 7)))
    assert noise.decided_top1 is not None
    assert noise.decided_top1 < 0.5


def test_scores_of_the_first_label() -> None:
    expected = np.array([[2.0, 0.0], [0.0, 2.0]])
    found = np.array([[2.0, 0.0], [0.0, 0.0]])
    sure = np.exp(2) / (np.exp(2) + 1)
    assert _measure(found, expected).score_change == pytest.approx((sure - 0.5) / 2)


def test_features_have_no_labels() -> None:
    found = measure("fp16", LOGITS, LOGITS + 1e-5, logits=False)
    assert (found.top1, found.top5, found.score_change) == (None, None, None)
    assert found.passed


def test_values_that_are_not_finite_do_not_pass() -> None:
    found = _measure(LOGITS * np.nan)
    assert not found.passed
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["cosine"] is None


@pytest.mark.parametrize("dtype", THRESHOLDS)
def test_each_dtype_has_its_threshold(dtype: str) -> None:
    needed = THRESHOLDS[dtype]

    def variant(cosine: float, decided_top1: float) -> VariantFidelity:
        return VariantFidelity(dtype, 16, cosine, 0.1, top1=1.0, decided_top1=decided_top1)

    at = variant(needed.cosine, needed.top1)
    below = variant(needed.cosine - 1e-6, needed.top1)
    fewer = variant(needed.cosine, needed.top1 - 1e-6)
    assert (at.passed, below.passed, fewer.passed) == (True, False, False)
    assert json.loads(json.dumps(below.to_dict()))["passed"] is False


def test_without_the_gate_only_float32_counts() -> None:
    good = Fidelity((Comparison("logits", "native", 1, 0.0, 0.0, 1.0, 1e-5),))
    bad = Fidelity((Comparison("logits", "native", 1, 1.0, 1.0, 0.5, 1e-5),))
    variant = VariantFidelity("int8", 16, 0.1, 1.0)
    assert not Proof(good, (variant,)).passed
    assert Proof(good, (variant,), gated=False).passed
    assert not Proof(bad, gated=False).passed
