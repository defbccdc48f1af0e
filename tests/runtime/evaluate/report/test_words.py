"""Numbers and comparisons in words."""

from __future__ import annotations

import pytest
from timesformer_runtime.evaluate.metrics import compare
from timesformer_runtime.evaluate.report import words

from tests.evaluation_lines import line_of

LABELS = ["cat", "dog", "eel"]
RIGHT, WRONG = [0.8, 0.1, 0.1], [0.1, 0.6, 0.3]


def test_sentences_have_the_pages_signs() -> None:
    text = words.typeset("int8-2 loses 0.2 points of 81.4 % (95 %: -0.3 to 0.7)")
    assert text.replace("\N{NO-BREAK SPACE}", "_") == (
        "int8-2 loses 0.2 points of 81.4_% (95_%: \N{MINUS SIGN}0.3 to 0.7)"
    )


def sentences(
    both: int, only_first: int, only_second: int, neither: int, *, is_share: bool = True
) -> str:
    pairs = [(RIGHT, RIGHT)] * both + [(RIGHT, WRONG)] * only_first
    pairs += [(WRONG, RIGHT)] * only_second + [(WRONG, WRONG)] * neither
    lines = [
        line_of(number, [0], {"fp32": one, "int8": two}, LABELS)
        for number, (one, two) in enumerate(pairs)
    ]
    text = " ".join(words.comparison(compare(lines, "fp32", "int8"), is_share=is_share))
    return text.replace("\N{NO-BREAK SPACE}", " ").replace("\N{MINUS SIGN}", "-")


def test_a_loss_has_the_sign_of_a_loss() -> None:
    text = sentences(90, 8, 2, 0)
    assert "fp32 names 98.0 % of 100 videos rightly, int8 92.0 %: int8 loses 6.0 points" in text
    # Agresti and Min: 6 / 102 +- 1.96 * sqrt((11 / 102 - (6 / 102)**2) / 102)
    assert "(95 %: -0.4 to 12.2)" in text
    assert "Only fp32 is right on 8 of the videos, only int8 on 2. Chance alone can" in text
    assert "Both give the same label to 90.0 % of the videos" in text
    assert "4.2 points lower on average" in text


def test_a_gain_has_the_sign_of_a_gain() -> None:
    text = sentences(70, 2, 28, 0)
    # 26 / 102 +- 1.96 * sqrt((31 / 102 - (26 / 102)**2) / 102)
    assert "int8 gains 26.0 points (95 %: 16.0 to 35.0)" in text
    assert "Chance alone can hardly make this difference (exact McNemar test, p < 0.001)" in text


def test_equal_models_differ_by_nothing() -> None:
    text = sentences(5, 0, 0, 5)
    assert "int8 50.0 %: a difference of 0 points" in text
    assert "Both are right on the same videos." in text
    assert "a score that is equal on average" in text


def test_no_common_video_is_said() -> None:
    assert sentences(0, 0, 0, 0) == "No video was answered by both fp32 and int8."


def test_scores_that_are_not_shares_are_not_points() -> None:
    assert "a score that is 0.042 lower on average" in sentences(90, 8, 2, 0, is_share=False)


def test_logits_may_change_by_thousands() -> None:
    lines = [line_of(0, [0], {"fp32": [9000.0, 1.0], "int8": [1.0, 9.0]}, ["cat", "dog"])]
    text = " ".join(words.comparison(compare(lines, "fp32", "int8"), is_share=False))
    assert "8,999.000 lower on average" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (words.percent(0.8137), "81.4 %"),
        (words.percent(-0.00001), "0.0 %"),
        (words.percent(None), "-"),
        (words.interval([0.0312, 1.0]), "3.1 to 100.0 %"),
        (words.number(-1234.5678, 2), "-1,234.57"),
        (words.count(20_000), "20,000"),
        (words.seconds(0.8444), "0.844 s"),
        (words.megabytes(569_400_000), "569 MB"),
        (words.probability(0.0312), "p = 0.031"),
        (words.probability(1.0), "p = 1"),
    ],
)
def test_numbers(text: str, expected: str) -> None:
    plain = text.replace("\N{NO-BREAK SPACE}", " ")
    assert plain.replace("\N{MINUS SIGN}", "-").replace("\N{EN DASH}", "-") == expected
