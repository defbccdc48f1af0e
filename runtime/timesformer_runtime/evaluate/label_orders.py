"""Other orders of a model's labels, which explain answers that look permuted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from timesformer_runtime.extras import evaluate_extra

_MOST_LABELS = 1000  # of an assignment, whose time grows with the cube
_SHUFFLES = 3
_BEYOND_CHANCE = 1.4  # times as many right answers as with shuffled ones


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
    """Finds the order of labels that makes most answers right; None where the model's own does.

    Orders that come from a usual mistake go first: numbers that count from 1, labels sorted as
    text or by name. Any other order must be right beyond what chance explains.

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
    own = int(videos[true == predicted].sum())
    if len(labels) <= _MOST_LABELS:
        other = _assignment(true.repeat(videos), predicted.repeat(videos), len(labels))
        if other is not None and (best is None or other.right > 1.1 * best.right):
            best = other
    return best if best is not None and best.right > own else None


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


def _assignment(
    true: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], count: int
) -> LabelOrder | None:
    """Finds the order with most right answers; None where chance explains as many.

    Of a few videos a label, the best of all orders is right for many even if the answers have
    nothing to do with the videos. So the order must do better than those of shuffled answers.
    """
    places, right = _best_places(true, predicted, count)
    random = np.random.default_rng(0)
    by_chance = max(
        _best_places(true, random.permutation(predicted), count)[1] for _ in range(_SHUFFLES)
    )
    if right < _BEYOND_CHANCE * by_chance:
        return None
    return LabelOrder("labels in another order", tuple(places.tolist()), right)


def _best_places(
    true: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], count: int
) -> tuple[npt.NDArray[np.int64], int]:
    with evaluate_extra():
        from scipy.optimize import linear_sum_assignment  # noqa: PLC0415
    matrix = np.zeros((count, count), dtype=np.int64)
    np.add.at(matrix, (true, predicted), 1)
    _, places = linear_sum_assignment(matrix, maximize=True)
    return places, int(matrix[np.arange(count), places].sum())
