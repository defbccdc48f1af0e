"""The gate of variants in reduced precision, by value."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from timesformer_exporter.proof.checks import Proof
from timesformer_exporter.proof.fidelity import Comparison, Fidelity
from timesformer_runtime.model.gate import THRESHOLDS, Threshold, VariantFidelity, measure

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
    """A variant that gives all clips equal logits is useless, however small its differences are."""
    shared = LOGITS * 0.01 + 100 * np.arange(7)
    plain = float((shared * (100 * np.arange(7))).sum()) / float(
        np.linalg.norm(shared) * np.linalg.norm(np.tile(100 * np.arange(7), (16, 1)))
    )
    assert plain > 0.999999
    found = _measure(np.tile(100.0 * np.arange(7), (16, 1)), shared)
    assert found.cosine < 0.5
    assert not found.passed


def test_a_changed_first_label_counts_where_the_margin_exceeds_the_error() -> None:
    """With a typical error of 0.1, the first label may change at a lead of 0.18, not at 0.3."""
    expected = np.array([[1.0, 0.0, -1.0]] * 14 + [[1.0, 0.82, -1.0], [1.0, 0.7, -1.0]])
    noise = np.tile([-0.1, 0.09, 0.0], (16, 1))
    found = _measure(expected + noise, expected)
    assert found.typical_error == pytest.approx(0.1)
    assert (found.top1, found.decided_top1) == (15 / 16, 1.0)
    assert found.passed
    noise[15] = [-0.2, 0.2, 0.0]
    found = _measure(expected + noise, expected)
    assert found.typical_error == pytest.approx(0.1)
    assert (found.top1, found.decided_top1) == (14 / 16, 14 / 15)


def test_a_clip_that_went_wrong_does_not_excuse_itself() -> None:
    """The error of such a clip exceeds every margin; the typical error of all clips decides."""
    expected = np.tile([3.0, 0.0, -1.0], (16, 1))
    expected += RANDOM.normal(size=expected.shape) / 10
    found = expected.copy()
    found[:2] = found[:2, ::-1]
    measured = _measure(found, expected)
    assert measured.max_abs > 3
    assert measured.typical_error == 0.0
    assert measured.decided_top1 == 14 / 16
    assert any("first labels" in text for text in measured.missed)


def test_the_first_five_labels_are_judged_alike() -> None:
    expected = np.tile([9.0, 8, 7, 6, 5, 4, 0], (16, 1)) + 1e-3 * RANDOM.normal(size=(16, 7))
    expected[0, 5] = expected[0, 4] - 0.05
    error = 0.1 * np.array([1, -1] * 3 + [1])
    found = expected + error
    found[1, [0, 6]] = found[1, [6, 0]]
    found[0, [4, 5]] = found[0, [5, 4]]
    found[2, [0, 1]] = found[2, [1, 0]]  # another order of the same five
    measured = _measure(found, expected)
    assert measured.typical_error == pytest.approx(0.1)
    assert (measured.top5, measured.decided_top5) == (14 / 16, 14 / 15)
    assert measured.top1 == 14 / 16


def test_differences_are_measured_against_the_range_of_the_logits() -> None:
    expected = np.array([[1.0, 0.0], [0.0, 3.0]] * 8)  # from 0 to 3
    found = expected.copy()
    found[3, 0] += 0.6
    measured = _measure(found, expected)
    assert measured.max_abs == pytest.approx(0.6)
    assert measured.relative == pytest.approx(0.2)


def test_one_loud_clip_does_not_carry_the_others() -> None:
    expected = LOGITS.copy()
    expected[0] *= 1000
    found = RANDOM.normal(size=(16, 7))
    found[0] = expected[0]
    measured = _measure(found, expected)
    assert measured.cosine < 0.99
    assert not measured.passed


def test_wrong_answers_do_not_pass() -> None:
    for wrong in (-LOGITS, 50 * RANDOM.normal(size=(16, 7)), np.zeros((16, 7)), LOGITS[::-1]):
        measured = _measure(wrong)
        assert not measured.passed
        assert measured.cosine < 0.5
    assert _measure(-LOGITS).top1 == 0.0


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
@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Threshold)])
def test_each_dtype_has_its_thresholds(dtype: str, name: str) -> None:
    needed = THRESHOLDS[dtype]
    at = VariantFidelity(
        dtype,
        16,
        cosine=needed.cosine,
        max_abs=9.0,
        relative=needed.relative,
        typical_error=1.0,
        top1=0.0,
        decided_top1=needed.top1,
        top5=0.0,
        decided_top5=needed.top5,
        score_change=needed.score_change,
        rollout=needed.rollout,
    )
    assert at.passed
    measured = f"decided_{name}" if name.startswith("top") else name
    worse = 1e-6 if name in ("relative", "score_change") else -1e-6
    beyond = dataclasses.replace(at, **{measured: getattr(at, measured) + worse})
    assert len(beyond.missed) == 1
    assert json.loads(json.dumps(beyond.to_dict()))["passed"] is False


def test_fp16_is_held_to_more_than_int8_and_int8_to_more_than_q4() -> None:
    for strict, loose in (("fp16", "int8"), ("int8", "q4")):
        for field, wanted in dataclasses.asdict(THRESHOLDS[strict]).items():
            allowed = getattr(THRESHOLDS[loose], field)
            assert (wanted < allowed) == (field in ("relative", "score_change")), field


def test_without_the_gate_only_float32_counts() -> None:
    good = Fidelity((Comparison("logits", "native", 1, 0.0, 0.0, 1.0, 1e-5),))
    bad = Fidelity((Comparison("logits", "native", 1, 1.0, 1.0, 0.5, 1e-5),))
    variant = VariantFidelity("int8", 16, 0.1, 1.0, 0.5, 0.5)
    assert not Proof(good, (variant,)).passed
    assert Proof(good, (variant,), gated=False).passed
    assert not Proof(bad, gated=False).passed
