"""Other orders of a model's labels, which explain answers that look permuted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from timesformer_runtime.extras import evaluate_extra

_MOST_LABELS = 2000  # of an assignment, whose time grows with the cube
_VIDEOS_FOR_A_LABEL = 3  # from which an assignment of any labels says something


@dataclasses.dataclass(frozen=True)
class LabelOrder:
    """An order of labels, and how many videos are right with it.

    Attributes:
        name: A description of the order.
        places: For each label the place in the model's answer that would be its own.
        right: Number of videos whose best label is right in this order.
    """

    name: str
    places: tuple[int, ...]
    right: int


def best_order(confusion: Iterable[Sequence[int]], labels: Sequence[str]) -> LabelOrder | None:
    """Finds the order of labels that makes most answers right; None where nothing beats today's.

    Orders that come from a usual mistake go first: numbers that count from 1, labels sorted as
    text or by name. Any other order is tried where there are enough videos.

    Args:
        confusion: Entries [true, predicted, videos] of the confusion matrix.
        labels: The labels, in the model's order.
    """
    entries = np.array([*confusion], dtype=np.int64).reshape(-1, 3)
    true, predicted, videos = entries.T
    found = []
    for name, places in _usual_orders(labels):
        right = int(videos[places[true] == predicted].sum())
        found.append(LabelOrder(name, tuple(places.tolist()), right))
    best = max(found, key=lambda order: order.right, default=None)
    today = int(videos[true == predicted].sum())
    if len(labels) <= _MOST_LABELS and videos.sum() >= _VIDEOS_FOR_A_LABEL * len({*true.tolist()}):
        other = _assignment(entries, len(labels))
        if best is None or other.right > 1.1 * best.right:
            best = other
    return best if best is not None and best.right > today else None


def _usual_orders(labels: Sequence[str]) -> list[tuple[str, npt.NDArray[np.int64]]]:
    count = len(labels)
    numbers = np.arange(count)
    by_text = np.array(sorted(range(count), key=str), dtype=np.int64)
    by_name = np.array(sorted(range(count), key=lambda number: labels[number]), dtype=np.int64)
    as_text = "numbers of labels sorted as text (0, 1, 10, 100, 2, ...)"
    alphabetical = "labels in alphabetical order"
    return [
        ("labels counted from 1, not from 0", (numbers - 1) % count),
        ("labels counted from 0, not from 1", (numbers + 1) % count),
        (as_text, by_text),
        (as_text, np.argsort(by_text)),
        (alphabetical, by_name),
        (alphabetical, np.argsort(by_name)),
    ]


def _assignment(entries: npt.NDArray[np.int64], count: int) -> LabelOrder:
    with evaluate_extra():
        from scipy.optimize import linear_sum_assignment  # noqa: PLC0415
    matrix = np.zeros((count, count), dtype=np.int64)
    np.add.at(matrix, (entries[:, 0], entries[:, 1]), entries[:, 2])
    _, places = linear_sum_assignment(matrix, maximize=True)
    right = int(matrix[np.arange(count), places].sum())
    return LabelOrder("labels in another order", tuple(places.tolist()), right)
