"""Says what to try where a model is near chance, or its labels look permuted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from timesformer_runtime.errors import named
from timesformer_runtime.evaluate.label_orders import FIX_LABELS, best_order
from timesformer_runtime.input.views import Views

_LEAST_VIDEOS = 10
_ONE_ANSWER = 0.8  # share of one label among the answers from which it is suspicious
_PERMUTED = 0.5  # share of right answers in another order from which that is the likely cause
_NEAR_CHANCE = 0.1  # of the way from chance to perfect
_NEAR_CHANCE_PRECISION = 0.15  # of classes with few videos, chance has more than their share


def advise(metrics: Mapping[str, Any], views: Views | None = None) -> list[str]:
    """Says in sentences what to try; empty where the accuracies are above chance.

    Args:
        metrics: The contents of metrics.json, but for the advice.
        views: The options that were given, which are not recommended; None for the usual ones.
    """
    return [
        sentence
        for name, values in metrics["evaluated"].items()
        for sentence in _of_model(name, values, metrics["labels"], views or Views())
    ]


def _of_model(
    name: str, values: Mapping[str, Any], labels: list[str], views: Views
) -> Iterator[str]:
    if len(labels) < 2:
        return
    if "confusion" in values:
        yield from _of_one_label(name, values, labels, views)
    elif "mean_average_precision" in values:
        yield from _of_several_labels(name, values, views)


def _of_one_label(
    name: str, values: Mapping[str, Any], labels: list[str], views: Views
) -> Iterator[str]:
    top_1, confusion = values["top_1"], values["confusion"]
    videos = top_1["of"]
    if videos < _LEAST_VIDEOS:
        return
    order = best_order(confusion, labels)
    if order is not None and order.right >= _PERMUTED * videos:
        yield (
            f"{name} names {top_1['count']} of {videos} videos right, but {order.right} with "
            f"{order.name}: {FIX_LABELS}"
        )
        return
    chance = 1 / len(labels)
    low, high = top_1["interval"]
    if low - chance >= _NEAR_CHANCE * (1 - chance):
        return
    yield (
        f"{name} names {100 * top_1['value']:.1f} % right (95 %: {100 * low:.1f} to "
        f"{100 * high:.1f}), perhaps little more than by chance ({100 * chance:.1f} %). "
        f"{_trials(views, '; the order of the labels (id2label)')}"
    )
    yield from _same_answers(name, confusion, labels, videos)


def _of_several_labels(name: str, values: Mapping[str, Any], views: Views) -> Iterator[str]:
    """Advises on a model of several labels, whose answers have no order that could be another."""
    videos, precision = values["videos"]["readable"], values["mean_average_precision"]["value"]
    if videos < _LEAST_VIDEOS or precision is None:
        return
    shares = [row["count"] / videos for row in values["classes"] if row["count"]]
    chance = sum(shares) / len(shares)  # the precision of scores that know nothing
    if precision - chance < _NEAR_CHANCE_PRECISION * (1 - chance):
        yield (
            f"{name} has a mAP of {100 * precision:.1f} %, little more than by chance "
            f"({100 * chance:.1f} %). {_trials(views)}"
        )


def _trials(views: Views, more: str = "") -> str:
    order = "rgb" if views.channel_order == "bgr" else "bgr"
    protocol = "" if views.protocol == "facebook" else "; the authors' protocol (facebook)"
    return (
        f"Try the other channel order ({order}){protocol}; the mean and standard deviation of the "
        "training (image_mean and image_std in the checkpoint's preprocessor_config.json; then "
        f"export again){more}. The command timesformer evaluate --diagnose tries them on a few "
        "videos"
    )


def _same_answers(
    name: str, confusion: list[list[int]], labels: list[str], videos: int
) -> Iterator[str]:
    answers: dict[int, int] = {}
    for _, predicted, count in confusion:
        answers[predicted] = answers.get(predicted, 0) + count
    label, count = max(answers.items(), key=lambda item: item[1])
    if count >= _ONE_ANSWER * videos:
        yield (
            f"{name} answers {named(labels[label])} for {count} of {videos} videos, as models do "
            "that get wrongly normalised pixels"
        )
