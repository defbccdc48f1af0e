"""The numbers of one model, against scikit-learn and formulas written out by hand."""

from __future__ import annotations

import json
import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics
from timesformer_runtime.errors import InvalidOptionError
from timesformer_runtime.evaluate.metrics import measure
from timesformer_runtime.evaluate.metrics.intervals import wilson

from tests.evaluation_lines import DESCRIPTION, line_of, random_lines, result_of, unreadable

LABELS = ["cat", "dog", "eel"]
# Three readable videos, one of them wrong and one of them right at the second place.
SCORES = [[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7]]
TRUE = [0, 1, 2]


def lines_of(scores: list[list[float]], true: list[int]) -> list[dict[str, Any]]:
    pairs = zip(scores, true, strict=True)
    return [
        DESCRIPTION,
        *(line_of(number, [t], {"int8": s}, LABELS) for number, (s, t) in enumerate(pairs)),
    ]


def measured(scores: list[list[float]], true: list[int]) -> dict[str, Any]:
    return measure(lines_of(scores, true), "int8", LABELS, "softmax")


def test_a_small_example_by_hand() -> None:
    found = measured(SCORES, TRUE)
    assert found["videos"] == {"total": 3, "readable": 3, "unreadable": 0, "not_finite": 0}
    assert found["top_1"]["value"] == 2 / 3
    assert found["top_1"]["interval"] == wilson(2 / 3, 3)
    assert found["top_5"]["value"] == 1  # the five best of three labels are all of them
    assert found["mean_class_accuracy"]["value"] == pytest.approx(2 / 3)
    assert found["log_loss"] == pytest.approx(-(2 * math.log(0.7) + math.log(0.3)) / 3)
    assert found["confusion"] == [[0, 0, 1], [1, 0, 1], [2, 2, 1]]
    assert found["most_confused"] == [{"true": "dog", "predicted": "cat", "count": 1, "share": 1}]
    cat, dog, eel = found["classes"]
    assert (cat["precision"], cat["recall"], cat["f1"]) == (1 / 2, 1, 2 / 3)
    assert (dog["precision"], dog["recall"], dog["f1"]) == (None, 0, 0)
    assert (eel["precision"], eel["recall"], eel["f1"]) == (1, 1, 1)
    # Two scores of 0.7, both right, and one of 0.6, which is wrong: bins of 1/15.
    assert found["calibration"]["error"] == pytest.approx((2 * 0.3 + 0.6) / 3)


def test_many_videos_give_scikit_learns_numbers() -> None:
    labels = [f"class {number}" for number in range(12)]
    lines = list(random_lines(700, labels))
    found = measure(lines, "int8", labels, "softmax")
    true = [line["true_labels"][0] for line in lines]
    best = [line["results"]["int8"]["top"][0][0] for line in lines]
    five = [{label for label, _ in line["results"]["int8"]["top"]} for line in lines]
    assert found["top_1"]["value"] == pytest.approx(sklearn_metrics.accuracy_score(true, best))
    assert found["top_5"]["value"] == pytest.approx(
        sum(t in top for t, top in zip(true, five, strict=True)) / 700
    )
    assert found["mean_class_accuracy"]["value"] == pytest.approx(
        sklearn_metrics.balanced_accuracy_score(true, best)
    )
    report = sklearn_metrics.precision_recall_fscore_support(
        true, best, labels=labels, zero_division=np.nan
    )
    for row, precision, recall, f1, count in zip(found["classes"], *report, strict=True):
        assert [row["precision"], row["recall"], row["f1"]] == pytest.approx(
            [precision, recall, f1]
        )
        assert row["count"] == count
    matrix = np.zeros((12, 12), int)
    for place, other, count in found["confusion"]:
        matrix[place, other] = count
    expected = sklearn_metrics.confusion_matrix(true, best, labels=labels)
    assert (matrix == expected).all()
    np.fill_diagonal(expected, 0)
    assert found["most_confused"][0]["count"] == expected.max()
    counts = [pair["count"] for pair in found["most_confused"]]
    assert counts == sorted(counts, reverse=True)


def test_log_loss_is_scikit_learns() -> None:
    random = np.random.default_rng(1)
    scores = random.dirichlet(np.ones(3), size=200)
    true = random.integers(3, size=200)
    found = measured(scores.tolist(), true.tolist())
    assert found["log_loss"] == pytest.approx(sklearn_metrics.log_loss(true, scores))


def test_calibration_by_a_plain_loop() -> None:
    random = np.random.default_rng(2)
    scores = random.dirichlet(np.full(3, 0.5), size=500)
    true = random.integers(3, size=500)
    found = measured(scores.tolist(), true.tolist())["calibration"]
    error = 0.0
    for number in range(15):
        low, high = number / 15, (number + 1) / 15
        best = [(max(s), s.argmax() == t) for s, t in zip(scores, true, strict=True)]
        inside = [(score, right) for score, right in best if low < score <= high]
        if not inside:
            continue
        confidence = sum(score for score, _ in inside) / len(inside)
        accuracy = sum(right for _, right in inside) / len(inside)
        error += len(inside) / 500 * abs(confidence - accuracy)
        (row,) = [row for row in found["bins"] if math.isclose(row["to"], high)]
        assert row["count"] == len(inside)
        assert [row["score"], row["accuracy"]] == pytest.approx([confidence, accuracy])
        assert row["interval"] == pytest.approx(wilson(accuracy, len(inside)))
    assert found["error"] == pytest.approx(error)
    assert sum(row["count"] for row in found["bins"]) == 500


def test_a_score_at_the_end_of_a_bin_belongs_to_the_lower_bin() -> None:
    scores = [[1.0, 0.0, 0.0], [0.6, 0.4, 0.0]]  # 15/15 and 9/15
    bins = measured(scores, [0, 0])["calibration"]["bins"]
    assert [row["to"] for row in bins] == [pytest.approx(0.6), 1]


def test_of_pairs_as_frequent_the_larger_share_comes_first() -> None:
    # One of two dogs and one of four cats are named "eel".
    scores = [[0.0, 0.1, 0.9], [0.9, 0.1, 0.0], [0.9, 0.1, 0.0], [0.9, 0.1, 0.0]]
    scores += [[0.0, 0.1, 0.9], [0.1, 0.9, 0.0]]
    pairs = measured(scores, [0, 0, 0, 0, 1, 1])["most_confused"]
    assert [(pair["true"], pair["share"]) for pair in pairs] == [("dog", 0.5), ("cat", 0.25)]


def test_a_sure_and_right_model_is_calibrated() -> None:
    found = measured([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [0, 1])
    assert found["calibration"]["error"] == 0
    assert found["log_loss"] == 0
    assert found["top_1"]["value"] == found["mean_class_accuracy"]["value"] == 1
    assert found["most_confused"] == []


def test_all_wrong() -> None:
    found = measured([[0.9, 0.05, 0.05]] * 4, [1, 1, 2, 2])
    assert found["top_1"]["value"] == found["mean_class_accuracy"]["value"] == 0
    assert found["top_1"]["interval"][0] == 0
    assert [row["recall"] for row in found["classes"]] == [None, 0, 0]


def test_unreadable_videos_are_counted_and_can_count_as_wrong() -> None:
    lines = [*lines_of(SCORES, TRUE), unreadable(3, [1], LABELS), unreadable(4, [2], LABELS)]
    found = measure(lines, "int8", LABELS, "softmax")
    assert found["videos"]["total"] == 5
    assert found["videos"]["unreadable"] == 2
    assert found["top_1"]["value"] == 2 / 3
    assert found["top_1"]["unreadable_as_wrong"]["value"] == 2 / 5
    assert found["top_5"]["unreadable_as_wrong"]["value"] == 3 / 5
    means = found["mean_class_accuracy"]
    assert means["unreadable_as_wrong"]["value"] == pytest.approx((1 + 0 + 1 / 2) / 3)
    assert [row["unreadable"] for row in found["classes"]] == [0, 1, 1]


def test_a_video_that_only_the_other_model_answered_counts_as_unreadable() -> None:
    lines = lines_of(SCORES, TRUE)
    lines[1]["results"] = {"fp32": lines[1]["results"]["int8"]}
    assert measure(lines, "int8", LABELS, "softmax")["videos"]["unreadable"] == 1


@pytest.mark.parametrize("function", ["softmax", "sigmoid", "none"])
@pytest.mark.parametrize("lines", [[], [DESCRIPTION], [unreadable(0, [1], LABELS)]])
def test_nothing_readable_gives_no_numbers(lines: list[dict[str, Any]], function: str) -> None:
    found = measure(lines, "int8", LABELS, function)
    assert found["videos"]["readable"] == 0
    assert found["top_1"]["value"] is None
    assert found["log_loss"] is None
    json.dumps(found, allow_nan=False)


def test_one_video_of_one_class() -> None:
    line = line_of(0, [0], {"int8": [1.0]}, ["only"])
    found = measure([line], "int8", ["only"], "softmax")
    assert found["top_1"]["value"] == found["top_5"]["value"] == 1
    assert found["confusion"] == [[0, 0, 1]]
    assert found["top_1"]["interval"] == wilson(1, 1)


def test_two_labels_have_a_top_5_of_two() -> None:
    line = line_of(0, [1], {"int8": [0.9, 0.1]}, ["yes", "no"])
    found = measure([line], "int8", ["yes", "no"], "softmax")
    assert (found["top_1"]["value"], found["top_5"]["value"]) == (0, 1)


def test_a_tie_counts_against_the_model_in_every_number() -> None:
    found = measured([[0.4, 0.4, 0.2]], [0])
    assert found["top_1"]["value"] == 0
    assert found["confusion"] == [[0, 1, 1]]
    assert found["classes"][0]["recall"] == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_scores_that_are_not_numbers_are_wrong_and_counted(value: float | None) -> None:
    lines = lines_of(SCORES, TRUE)
    lines[1]["results"]["int8"] = {"top": [["cat", value]], "true": [[value, 1]]}
    found = measure(lines, "int8", LABELS, "softmax")
    assert found["videos"]["not_finite"] == 1
    assert found["videos"]["readable"] == 3
    assert found["top_1"]["value"] == 1 / 3
    assert found["log_loss"] == pytest.approx(-(math.log(0.7) + math.log(0.3)) / 2)
    assert found["top_5"]["value"] == 2 / 3
    assert sum(row["count"] for row in found["calibration"]["bins"]) == 2
    assert found["classes"][0]["recall"] == 0
    json.dumps(found, allow_nan=False)


def test_scores_without_a_function_have_no_calibration() -> None:
    line = line_of(0, [1], {"m": [3.0, 7.5, -2.0]}, LABELS)
    del line["results"]["m"]["log_probability"]
    found = measure([line], "m", LABELS, "none")
    assert found["calibration"] is None
    assert found["log_loss"] is None
    assert found["top_1"]["value"] == 1


def test_labels_that_the_model_does_not_have_are_an_error() -> None:
    with pytest.raises(InvalidOptionError, match="label owl"):
        measure([line_of(0, [0], {"m": [1.0]}, ["owl"])], "m", LABELS, "softmax")


def sigmoid_lines(scores: list[list[float]], is_true: list[list[int]]) -> list[dict[str, Any]]:
    return [
        line_of(number, np.flatnonzero(row).tolist(), {"m": values}, LABELS, sigmoid=True)
        for number, (values, row) in enumerate(zip(scores, is_true, strict=True))
    ]


def test_average_precision_by_hand() -> None:
    # "cat" is true at the ranks 1 and 3: (1 + 2/3) / 2. "dog" is true at rank 2: 1/2. No "eel".
    scores = [[0.9, 0.8, 0.1], [0.8, 0.7, 0.1], [0.7, 0.1, 0.1]]
    found = measure(
        sigmoid_lines(scores, [[1, 0, 0], [0, 1, 0], [1, 0, 0]]), "m", LABELS, "sigmoid"
    )
    precisions = [row["average_precision"] for row in found["classes"]]
    assert precisions == [pytest.approx(5 / 6), pytest.approx(1 / 2), None]
    assert found["mean_average_precision"] == {
        "value": pytest.approx(2 / 3),
        "classes": 2,
        "classes_without_videos": 1,
    }
    cat = found["classes"][0]
    assert (cat["precision"], cat["recall"], cat["f1"]) == (pytest.approx(2 / 3), 1, 0.8)
    # The best labels are "cat" three times; the second video is only "dog".
    assert found["top_1"]["value"] == pytest.approx(2 / 3)


def test_a_sigmoid_model_gives_scikit_learns_numbers() -> None:
    random = np.random.default_rng(3)
    is_true = random.random((300, 3)) < [0.5, 0.2, 0.05]
    scores = 1 / (1 + np.exp(-random.normal(size=(300, 3)) - is_true))
    lines = sigmoid_lines(scores.tolist(), is_true.astype(int).tolist())
    found = measure([*lines, unreadable(300, [0, 2], LABELS)], "m", LABELS, "sigmoid")
    assert found["mean_average_precision"]["value"] == pytest.approx(
        sklearn_metrics.average_precision_score(is_true, scores, average="macro")
    )
    report = sklearn_metrics.precision_recall_fscore_support(is_true, scores >= 0.5)
    for row, precision, recall, f1, count in zip(found["classes"], *report, strict=True):
        assert [row["precision"], row["recall"], row["f1"]] == pytest.approx(
            [precision, recall, f1]
        )
        assert row["count"] == count
    assert [row["unreadable"] for row in found["classes"]] == [1, 0, 1]
    loss = -np.where(is_true, np.log(scores), np.log(1 - scores)).mean()
    assert found["log_loss"] == pytest.approx(loss)
    assert sum(row["count"] for row in found["calibration"]["bins"]) == 900


def test_a_sigmoid_video_without_labels_counts_in_each_class() -> None:
    found = measure(
        sigmoid_lines([[0.9, 0.2, 0.1], [0.8, 0.3, 0.3]], [[1, 0, 0], [0, 0, 0]]),
        "m",
        LABELS,
        "sigmoid",
    )
    assert found["classes"][0]["precision"] == 1 / 2
    assert found["top_1"]["of"] == 1


def test_a_score_of_exactly_zero_has_a_finite_loss() -> None:
    found = measure(sigmoid_lines([[0.0, 1.0, 0.0]], [[1, 0, 0]]), "m", LABELS, "sigmoid")
    assert math.isfinite(found["log_loss"])


def test_a_missing_score_of_a_sigmoid_model_is_an_error() -> None:
    (line,) = sigmoid_lines([[0.9, 0.2, 0.1]], [[1, 0, 0]])
    line["results"]["m"]["scores"].pop()
    with pytest.raises(InvalidOptionError, match=r"2 scores for 0\.mp4"):
        measure([line], "m", LABELS, "sigmoid")


def test_memory_is_a_few_numbers_for_each_video() -> None:
    result = result_of([0.7, 0.2, 0.1], [0], LABELS)
    line = {"file": "a", "true_labels": ["cat"], "results": {"int8": result}}
    videos = 50_000
    measure([line] * 10, "int8", LABELS, "softmax")  # imports
    tracemalloc.start()
    try:
        measure([line] * videos, "int8", LABELS, "softmax")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most / videos < 200
