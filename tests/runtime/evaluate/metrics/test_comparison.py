"""Two models on the same videos, against published values and formulas written out by hand."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from timesformer_runtime.evaluate.metrics import compare
from timesformer_runtime.evaluate.metrics.intervals import wilson

from tests.evaluation_lines import DESCRIPTION, line_of, random_lines, unreadable

LABELS = ["cat", "dog", "eel"]
RIGHT, WRONG = [0.8, 0.1, 0.1], [0.1, 0.6, 0.3]


def table(both: int, only_first: int, only_second: int, neither: int) -> list[dict[str, Any]]:
    """Lines of two models with so many videos of each outcome."""
    outcomes = (
        [(RIGHT, RIGHT)] * both
        + [(RIGHT, WRONG)] * only_first
        + [(WRONG, RIGHT)] * only_second
        + [(WRONG, WRONG)] * neither
    )
    return [
        line_of(number, [0], {"fp32": first, "int8": second}, LABELS)
        for number, (first, second) in enumerate(outcomes)
    ]


@pytest.mark.parametrize(
    ("cells", "p_value"),
    [  # statsmodels 0.15, mcnemar(table, exact=True); the first is Agresti's approval of ministers
        ((794, 86, 150, 570), 3.7159361395713866e-05),
        ((101, 121, 59, 33), 4.4344492637551645e-06),
        ((5, 0, 3, 2), 0.25),
        ((10, 1, 6, 3), 0.125),
        ((4, 0, 0, 4), 1.0),
    ],
)
def test_mcnemar_gives_the_published_values(
    cells: tuple[int, int, int, int], p_value: float
) -> None:
    found = compare(table(*cells), "fp32", "int8")
    assert found["mcnemar"]["p_value"] == pytest.approx(p_value, rel=1e-9)
    differing = cells[1] + cells[2]
    by_hand = sum(math.comb(differing, k) for k in range(min(cells[1:3]) + 1)) / 2**differing
    assert found["mcnemar"]["p_value"] == pytest.approx(min(1, 2 * by_hand))
    names = ("both_right", "only_first_right", "only_second_right", "both_wrong")
    assert tuple(found[name] for name in names) == cells


def test_a_difference_is_that_of_the_accuracies() -> None:
    found = compare(table(794, 86, 150, 570), "fp32", "int8")
    assert found["first_accuracy"]["value"] == pytest.approx(880 / 1600)
    assert found["second_accuracy"]["value"] == pytest.approx(944 / 1600)
    assert found["difference"]["value"] == pytest.approx(0.04)
    # Agresti, Categorical Data Analysis, prints Wald's interval as (0.02, 0.06).
    assert found["difference"]["interval"] == pytest.approx([0.02, 0.06], abs=0.005)


def test_the_first_and_the_second_change_places() -> None:
    lines = list(random_lines(200, LABELS))
    one, two = compare(lines, "fp32", "int8"), compare(lines, "int8", "fp32")
    assert one["difference"]["value"] == -two["difference"]["value"]
    assert one["mcnemar"] == two["mcnemar"]
    assert one["agreement"] == two["agreement"]
    assert one["true_label_score"]["mean"] == pytest.approx(-two["true_label_score"]["mean"])


def test_agreement_and_changed_scores_by_hand() -> None:
    pairs = [([0.8, 0.1, 0.1], [0.6, 0.3, 0.1]), ([0.3, 0.6, 0.1], [0.2, 0.1, 0.7])]
    lines = [
        DESCRIPTION,
        *(line_of(n, [0], {"a": one, "b": two}, LABELS) for n, (one, two) in enumerate(pairs)),
        unreadable(2, [0], LABELS),
    ]
    found = compare(lines, "a", "b")
    assert found["videos"] == 2
    assert found["left_out"] == 1
    assert found["agreement"] == {"value": 0.5, "interval": wilson(0.5, 2), "count": 1, "of": 2}
    change = found["true_label_score"]
    assert change["mean"] == pytest.approx(-0.15)
    assert change["percentiles"]["0"] == pytest.approx(-0.2)
    assert change["percentiles"]["50"] == pytest.approx(-0.15)
    deviation = math.sqrt((0.05**2 + 0.05**2) / 1)  # of -0.2 and -0.1
    half = 1.959963984540054 * deviation / math.sqrt(2)
    assert change["interval"] == pytest.approx([-0.15 - half, -0.15 + half])


def test_wrong_labels_that_differ_do_not_agree() -> None:
    lines = [line_of(0, [0], {"a": [0.1, 0.6, 0.3], "b": [0.1, 0.3, 0.6]}, LABELS)]
    found = compare(lines, "a", "b")
    assert (found["both_wrong"], found["agreement"]["value"]) == (1, 0)


def test_a_video_that_one_model_did_not_answer_is_left_out_and_counted() -> None:
    lines = table(1, 1, 0, 0)
    del lines[0]["results"]["int8"]
    found = compare(lines, "fp32", "int8")
    assert (found["videos"], found["left_out"]) == (1, 1)


def test_scores_that_are_not_numbers_are_wrong_and_agree_with_nothing() -> None:
    lines = [line_of(0, [0], {"a": RIGHT, "b": RIGHT}, LABELS)]
    for name in ("a", "b"):
        lines[0]["results"][name] = {"top": [["cat", math.nan]], "true": [[math.nan, 1]]}
    found = compare(lines, "a", "b")
    assert (found["both_wrong"], found["agreement"]["value"]) == (1, 0)
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("lines", [[], [DESCRIPTION], [unreadable(0, [0], LABELS)]])
def test_nothing_in_common_gives_no_numbers(lines: list[dict[str, Any]]) -> None:
    found = compare(lines, "a", "b")
    assert found["videos"] == 0
    assert found["difference"]["value"] is None
    assert found["true_label_score"]["mean"] is None
    json.dumps(found, allow_nan=False)


def test_several_true_labels_change_by_their_mean() -> None:
    lines = [line_of(0, [0, 1], {"a": [0.9, 0.1, 0.3], "b": [0.8, 0.4, 0.3]}, LABELS, sigmoid=True)]
    found = compare(lines, "a", "b")
    assert found["true_label_score"]["mean"] == pytest.approx((-0.1 + 0.3) / 2)
    assert found["true_label_score"]["interval"] is None  # of a single video
    assert np.isfinite(found["true_label_score"]["percentiles"]["95"])
