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
    assert found.cosine == 0.0
    assert not found.passed


def test_a_changed_first_label_counts_only_beyond_the_error() -> None:
    expected = np.array([[1.0, 0.0, -1.0]] * 16)
    undecided = expected.copy()
    undecided[0] = [0.0, 1.1, -1.0]  # wrong by 1.1, more than the margin of 1
    assert _measure(undecided, expected).top1 == 1.0
    decided = expected.copy()
    decided[0] = [0.4, 0.5, -1.0]  # wrong by 0.6, less than the margin of 1
    assert _measure(decided, expected).top1 == pytest.approx(15 / 16)


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
    assert not _measure(LOGITS * np.nan).passed


@pytest.mark.parametrize("dtype", THRESHOLDS)
def test_each_dtype_has_its_threshold(dtype: str) -> None:
    threshold = THRESHOLDS[dtype]
    at = VariantFidelity(dtype, 16, threshold.cosine, 0.1, threshold.top1, 1.0, 0.0)
    below = VariantFidelity(dtype, 16, threshold.cosine - 1e-6, 0.1, threshold.top1, 1.0, 0.0)
    fewer = VariantFidelity(dtype, 16, threshold.cosine, 0.1, threshold.top1 - 1e-6, 1.0, 0.0)
    assert (at.passed, below.passed, fewer.passed) == (True, False, False)
    assert json.loads(json.dumps(below.to_dict()))["passed"] is False


def test_without_the_gate_only_float32_counts() -> None:
    good = Fidelity((Comparison("logits", "native", 1, 0.0, 0.0, 1.0, 1e-5),))
    bad = Fidelity((Comparison("logits", "native", 1, 1.0, 1.0, 0.5, 1e-5),))
    variant = VariantFidelity("int8", 16, 0.1, 1.0)
    assert not Proof(good, (variant,)).passed
    assert Proof(good, (variant,), gated=False).passed
    assert not Proof(bad, gated=False).passed
