"""The sentence and the table that an evaluation ends with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def sentence(metrics: Mapping[str, Any]) -> str:
    """Sums up an evaluation in one sentence.

    Args:
        metrics: The contents of metrics.json, but for the sentence.
    """
    evaluated: Mapping[str, Any] = metrics["evaluated"]
    first = next(iter(evaluated.values()))
    if not first["videos"]["readable"]:
        return f"none of the {_number(first['videos']['total'], 'video')} can be read"
    parts = [_difference(comparison, metrics["function"]) for comparison in metrics["comparisons"]]
    if not parts:
        parts = [
            f"{name} {_accuracy(values, metrics['function'])}" for name, values in evaluated.items()
        ]
    return f"{'; '.join(parts)}, {_videos(first, metrics['comparisons'])}"


def table(metrics: Mapping[str, Any]) -> list[list[str]]:
    """Makes the rows of a table with a line for each evaluated model."""
    is_sigmoid = metrics["function"] == "sigmoid"
    head = ["model", *(["mAP"] if is_sigmoid else []), "top-1", "95 %", "top-5"]
    if not is_sigmoid:
        head.append("mean class")
    rows = [[*head, "log loss", "calibration", "s/video", "MB"]]
    for name, values in metrics["evaluated"].items():
        row = [name]
        if is_sigmoid:
            row.append(_percent(values["mean_average_precision"]["value"]))
        row += [
            _percent(values["top_1"]["value"]),
            _interval(values["top_1"]["interval"]),
            _percent(values["top_5"]["value"]),
        ]
        if not is_sigmoid:
            row.append(_percent(values["mean_class_accuracy"]["value"]))
        calibration = values["calibration"]
        row += [
            _decimal(values["log_loss"], 3),
            _decimal(calibration["error"] if calibration else None, 3),
            _decimal(values["seconds_per_video"], 3),
            _decimal(None if values["memory_bytes"] is None else values["memory_bytes"] / 1e6, 0),
        ]
        rows.append(row)
    return rows


def _accuracy(values: Mapping[str, Any], function: str) -> str:
    if function == "sigmoid":
        precision = values["mean_average_precision"]
        return f"has a mAP of {_percent(precision['value'])}"
    share = values["top_1"]
    if share["value"] is None:
        return "has no answer"
    return f"names {_percent(share['value'])} right (95 %: {_interval(share['interval'])})"


def _difference(comparison: Mapping[str, Any], function: str) -> str:
    """Says what the second model of a comparison loses to the first one."""
    first, second = comparison["first"], comparison["second"]
    difference = comparison["difference"]
    if difference["value"] is None:
        return f"{second} and {first} have no video in common"
    reference = _percent(comparison["first_accuracy"]["value"])
    what = " top-1" if function == "sigmoid" else ""
    low, high = (100 * end for end in difference["interval"])
    points = 100 * difference["value"]
    if round(points, 1) == 0:
        return (
            f"{second} is as accurate as {first}, {reference}{what} "
            f"(95 % interval of the difference: {_limits(-high, -low)} points)"
        )
    if points > 0:
        share = _percent(comparison["second_accuracy"]["value"])
        names = f"has {share}{what}" if what else f"names {share} right"
        return (
            f"{second} {names}, {points:.1f} points more than {first} (95 %: {_limits(low, high)})"
        )
    return (
        f"{second} loses {-points:.1f} points of {_of(first, comparison)}{reference}{what} "
        f"(95 %: {_limits(-high, -low)})"
    )


def _limits(low: float, high: float) -> str:
    return f"{_signed(low)} to {_signed(high)}"


def _of(first: str, comparison: Mapping[str, Any]) -> str:
    """Names the reference where it is not the usual one, fp32."""
    return "" if first == "fp32" and " " not in comparison["second"] else f"{first}'s "


def _videos(values: Mapping[str, Any], comparisons: Sequence[Mapping[str, Any]]) -> str:
    """Says on how many videos the numbers are: of comparisons, on those that both answered."""
    videos = values["videos"]
    answered = min([videos["readable"], *(comparison["videos"] for comparison in comparisons)])
    unreadable = f", {videos['unreadable']:,} unreadable" if videos["unreadable"] else ""
    of = f"{answered:,} of " if answered < videos["total"] else ""
    return f"on {of}{_number(videos['total'], 'video')}{unreadable}"


def _number(count: int, of: str) -> str:
    return f"{count:,} {of}{'' if count == 1 else 's'}"


def _signed(value: float) -> str:
    text = f"{value:.1f}"
    return "0.0" if text == "-0.0" else text


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _interval(interval: Sequence[float] | None) -> str:
    return "-" if interval is None else " to ".join(f"{100 * end:.1f}" for end in interval)


def _decimal(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
