"""Numbers and comparisons in words, for the page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

NOTHING = "\N{EN DASH}"  # for a number that does not exist
_SPACE = "\N{NO-BREAK SPACE}"
_MINUS = "\N{MINUS SIGN}"
_LIKELY = 0.05  # p-values from here on do not speak against chance


def percent(share: float | None, digits: int = 1) -> str:
    """Writes a share as per cent, such as ``81.4 %``."""
    return NOTHING if share is None else f"{_signed(100 * share, digits)}{_SPACE}%"


def interval(shares: Sequence[float] | None, digits: int = 1) -> str:
    """Writes the interval of a share in per cent, such as ``79.1 to 83.5 %``."""
    if shares is None:
        return NOTHING
    low, high = shares
    return f"{_signed(100 * low, digits)} to {percent(high, digits)}"


def number(value: float | None, digits: int = 3) -> str:
    """Writes a number with so many decimals."""
    return NOTHING if value is None else _signed(value, digits)


def count(value: int) -> str:
    """Writes a whole number with commas."""
    return f"{value:,}"


def seconds(value: float | None) -> str:
    """Writes seconds with three significant digits."""
    return NOTHING if value is None else f"{value:.3g}{_SPACE}s"


def megabytes(value: float | None) -> str:
    """Writes bytes as megabytes."""
    return NOTHING if value is None else f"{value / 1e6:,.0f}{_SPACE}MB"


def typeset(sentence: str) -> str:
    """Writes the minus signs and the spaces of a sentence as the page's numbers have them."""
    return re.sub(r"(?<=\s)-(?=\d)", _MINUS, sentence).replace(" %", f"{_SPACE}%")


def probability(value: float) -> str:
    """Writes a p-value, such as ``p = 0.031``."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def comparison(result: Mapping[str, Any], *, is_share: bool) -> list[str]:
    """Writes a comparison of two models in sentences.

    Args:
        result: The result of ``compare``.
        is_share: True where scores are from 0 to 1.
    """
    first, second, videos = result["first"], result["second"], result["videos"]
    if not videos:
        return [f"No video was answered by both {first} and {second}."]
    sentences = [
        f"{first} names {_accuracy(result, 'first')} of {_videos(videos)} rightly, {second} "
        f"{_accuracy(result, 'second')}: {_loss(result['difference'], second)}.",
        _chance(result),
        f"Both give the same label to {percent(result['agreement']['value'])} of the videos "
        f"(95{_SPACE}%: {interval(result['agreement']['interval'])}).",
    ]
    change = result["true_label_score"]
    if change["mean"] is not None:
        sentences.append(_change(change, second, is_share=is_share))
    if result["left_out"]:
        sentences.append(
            f"Left out: {_videos(result['left_out'])} that have no label, or that one of the "
            "two did not answer."
        )
    return sentences


def _accuracy(result: Mapping[str, Any], which: str) -> str:
    return percent(result[f"{which}_accuracy"]["value"])


def _loss(difference: Mapping[str, Any], second: str) -> str:
    value = 100 * difference["value"]
    low, high = (100 * end for end in difference["interval"])
    verb = "gains" if value > 0 else "loses"
    if value <= 0:
        value, low, high = -value, -high, -low
    digits = 1 if max(abs(low), abs(high)) >= 0.2 else 2
    ends = f"(95{_SPACE}%: {_signed(low, digits)} to {_signed(high, digits)})"
    if not value:
        return f"a difference of 0 points {ends}"
    return f"{second} {verb} {_signed(value, digits)} points {ends}"


def _chance(result: Mapping[str, Any]) -> str:
    first, second = result["only_first_right"], result["only_second_right"]
    if not first and not second:
        return "Both are right on the same videos."
    p_value = result["mcnemar"]["p_value"]
    verdict = "can" if p_value >= _LIKELY else "can hardly"
    return (
        f"Only {result['first']} is right on {count(first)} of the videos, only "
        f"{result['second']} on {count(second)}. Chance alone {verdict} make this difference "
        f"(exact McNemar test, {probability(p_value)})."
    )


def _change(change: Mapping[str, Any], second: str, *, is_share: bool) -> str:
    scale, digits, unit = (100, 1, " points") if is_share else (1, 3, "")
    mean, low, high = (
        scale * value
        for value in (change["mean"], change["percentiles"]["5"], change["percentiles"]["95"])
    )
    amount = round(abs(mean), digits)
    change_of_mean = f"{_signed(amount, digits)}{unit} {'higher' if mean > 0 else 'lower'}"
    return (
        f"{second} gives the true label a score that is "
        f"{change_of_mean if amount else 'equal'} on average; for nine of ten videos the "
        f"change is from {_signed(low, digits)} to {_signed(high, digits)}{unit}."
    )


def _videos(number: int) -> str:
    return f"{count(number)} video{'' if number == 1 else 's'}"


def _signed(value: float, digits: int) -> str:
    text = f"{value:,.{digits}f}"
    if not float(text.replace(",", "")):
        text = text.lstrip("-")  # -0.0
    return text.replace("-", _MINUS)
