"""Which videos a report lists."""

from __future__ import annotations

import math
from typing import Any

import pytest
from timesformer_runtime.evaluate.report import mistakes
from timesformer_runtime.evaluate.report.mistakes import read_videos

from tests.evaluation_lines import DESCRIPTION, line_of, unreadable

LABELS = ["cat", "dog", "eel"]


def lines_of(*scores: list[float], name: str = "int8") -> list[dict[str, Any]]:
    """Lines of cats."""
    return [line_of(number, [0], {name: values}, LABELS) for number, values in enumerate(scores)]


def test_mistakes_are_the_wrong_answers_the_surest_first() -> None:
    lines = lines_of([0.9, 0.1, 0.0], [0.3, 0.5, 0.2], [0.1, 0.1, 0.8])
    found = read_videos([DESCRIPTION, *lines], ["int8"], LABELS)
    rows = [
        (row.file, row.true, row.best, row.score, row.true_score, row.rank)
        for row in found.mistakes["int8"]
    ]
    assert rows == [("2.mp4", [0], 2, 0.8, 0.1, 3), ("1.mp4", [0], 1, 0.5, 0.3, 2)]
    assert found.mistakes_count == {"int8": 2}
    assert [line["file"] for line in found.worst] == ["2.mp4", "1.mp4"]


def test_a_video_that_any_model_names_wrongly_is_among_the_worst_once() -> None:
    right, wrong, worse = [0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.0, 0.9, 0.1]
    lines = [
        line_of(0, [0], {"a": right, "b": wrong}, LABELS),
        line_of(1, [0], {"a": worse, "b": wrong}, LABELS),
        line_of(2, [0], {"a": right, "b": right}, LABELS),
    ]
    found = read_videos(lines, ["a", "b"], LABELS)
    assert [line["file"] for line in found.worst] == ["1.mp4", "0.mp4"]
    assert found.mistakes_count == {"a": 1, "b": 2}


def test_mistakes_as_sure_as_each_other_keep_the_order_of_the_lines() -> None:
    lines = lines_of(*[[0.2, 0.7, 0.1]] * 20)
    found = read_videos(lines, ["int8"], LABELS)
    assert [line["file"] for line in found.worst] == [f"{number}.mp4" for number in range(16)]
    assert [row.file for row in found.mistakes["int8"]] == [line["file"] for line in lines]


def test_long_lists_keep_the_surest_and_count_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mistakes, "_MOST_MISTAKES", 4)
    monkeypatch.setattr(mistakes, "_MOST_SHOWN", 3)
    scores = [0.51, 0.95, 0.6, 0.9, 0.7, 0.8]
    lines = [
        line_of(number, [0], {"a": values, "b": values}, LABELS)
        for number, values in enumerate([1 - score, score, 0.0] for score in scores)
    ]
    found = read_videos(lines, ["a", "b"], LABELS)
    assert [row.score for row in found.mistakes["a"]] == [0.95, 0.9]
    assert found.mistakes_count["a"] == 6
    assert [line["file"] for line in found.worst] == ["1.mp4", "3.mp4", "5.mp4"]


def test_scores_that_are_not_numbers_are_mistakes_without_a_label() -> None:
    lines = lines_of([0.3, 0.5, 0.2], [0.9, 0.1, 0.0])
    lines[1]["results"]["int8"] = {"top": [["cat", math.nan]], "true": [[math.nan, 1]]}
    found = read_videos(lines, ["int8"], LABELS)
    assert [(row.best, row.rank) for row in found.mistakes["int8"]] == [(1, 2), (None, None)]


def test_a_label_that_ties_with_the_true_one_is_the_mistake() -> None:
    (row,) = read_videos(lines_of([0.4, 0.4, 0.2]), ["int8"], LABELS).mistakes["int8"]
    assert (row.best, row.rank) == (1, 2)


def test_unreadable_and_damaged_files_are_listed_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mistakes, "_MOST_NOTED", 1)
    lines = [*lines_of([1.0, 0.0, 0.0], [1.0, 0.0, 0.0]), unreadable(2, [0], LABELS)]
    lines += [unreadable(3, [1], LABELS)]
    for line in lines[:2]:
        line["problems"] = ["cut off", "noise"]
    found = read_videos(lines, ["int8"], LABELS)
    assert found.unreadable == [("2.mp4", "/videos/2.mp4 is empty")]
    assert found.unreadable_count == 2
    assert found.damaged == [("0.mp4", "cut off; noise")]
    assert found.damaged_count == 2
    assert found.worst == []


def test_a_video_without_labels_is_not_a_mistake() -> None:
    lines = [line_of(0, [], {"m": [0.9, 0.1, 0.2]}, LABELS, sigmoid=True)]
    assert read_videos(lines, ["m"], LABELS).mistakes == {"m": []}
