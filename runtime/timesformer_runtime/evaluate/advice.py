"""Says what to try where a model is near chance, or its labels look permuted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from timesformer_runtime.errors import named
from timesformer_runtime.evaluate.label_orders import FIX_LABELS, best_order

_LEAST_VIDEOS = 10
_ONE_ANSWER = 0.8  # share of one label among the answers from which it is suspicious
_PERMUTED = 0.5  # share of right answers in another order from which that is the likely cause
_TRIALS = (
    "Try the other channel order (`channel_order=bgr`), the mean and standard deviation that the "
    "checkpoint was trained with (image_mean and image_std in preprocessor_config.json), the "
    "authors' protocol (`protocol=facebook`) and the order of the labels (id2label); "
    "the option `diagnose` tries them on a few videos"
)


def advise(metrics: Mapping[str, Any]) -> list[str]:
    """Says in sentences what to try; empty where the accuracies are above chance.

    Args:
        metrics: The contents of metrics.json, but for the advice.
    """
    return [
        sentence
        for name, values in metrics["evaluated"].items()
        for sentence in _of_model(name, values, metrics["labels"])
    ]


def _of_model(name: str, values: Mapping[str, Any], labels: list[str]) -> Iterator[str]:
    top_1 = values["top_1"]
    videos = top_1["of"]
    if videos < _LEAST_VIDEOS or len(labels) < 2 or "confusion" not in values:
        return
    confusion = values["confusion"]
    needed = max(_PERMUTED * videos, 2 * top_1["count"])
    order = best_order(confusion, labels) if needed <= videos else None
    if order is not None and order.right >= needed:
        yield (
            f"{name} names {top_1['count']} of {videos} videos right, but {order.right} with "
            f"{order.name}: {FIX_LABELS}"
        )
        return
    chance = 1 / len(labels)
    if top_1["interval"][0] > chance:
        return
    yield (
        f"{name} names {100 * top_1['value']:.1f} % right, about as many as by chance "
        f"({100 * chance:.1f} %). {_TRIALS}"
    )
    yield from _same_answers(name, confusion, labels, videos)


def _same_answers(
    name: str, confusion: list[list[int]], labels: list[str], videos: int
) -> Iterator[str]:
    answers: dict[int, int] = {}
    for _, predicted, count in confusion:
        answers[predicted] = answers.get(predicted, 0) + count
    label, count = max(answers.items(), key=lambda item: item[1])
    true = {entry[0] for entry in confusion}
    if count >= _ONE_ANSWER * videos and len(true) > 1:
        yield (
            f"{name} answers {named(labels[label])} for {count} of {videos} videos, as models do "
            "that get wrongly normalised pixels"
        )
