"""Other orders of a model's labels, which explain answers that look permuted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from timesformer_runtime.extras import evaluate_extra

FIX_LABELS = (
    "correct id2label in the checkpoint's config.json and export again, or correct the labels of "
    "the data"
)
_MOST_LABELS = 1000  # of an assignment, whose time grows with the cube
_LEAST_SHARE = 0.1  # of the videos, and
_LEAST_GAIN = 3  # videos, from which a gain is worth a change
_DEVIATIONS = 3  # a gain of fewer standard deviations may be noise
_LEAST_EXPLAINED = 0.5  # share of the videos from which an order without a usual cause counts


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


def clearly_better(found: npt.NDArray[np.bool_], today: npt.NDArray[np.bool_]) -> bool:
    """Tells whether one trial names clearly more of the videos right than another.

    The gain must be worth a change: three videos, and a tenth of all. And it must be more than
    noise explains. Only videos that one of the two names right tell them apart. If they were
    equally good, each would win as many of these, and the gain would have their number as its
    variance; it must be three times its standard deviation.

    Args:
        found: For each video whether one trial names it right.
        today: The same of the other, for the same videos.
    """
    gain = int(found.sum()) - int(today.sum())
    return _is_worth_it(gain, len(found)) and gain >= _DEVIATIONS * (found ^ today).sum() ** 0.5


def _is_worth_it(gain: int, videos: int) -> bool:
    return gain >= max(_LEAST_GAIN, _LEAST_SHARE * videos)


def best_order(confusion: Iterable[Sequence[int]], labels: Sequence[str]) -> LabelOrder | None:
    """Finds the order of labels that makes most answers right; None where none is clearly better.

    Orders that come from a usual mistake go first: numbers that count from 1, labels sorted as
    text or by name. Any other order must explain half of the videos, and be clearly better. Each
    must also be clearly better than one answer for all videos could be.

    Args:
        confusion: Entries [true, predicted, videos] of the confusion matrix.
        labels: The labels, in the model's order.
    """
    entries = np.array([*confusion], dtype=np.int64).reshape(-1, 3)
    true, predicted = np.repeat(entries[:, :2], entries[:, 2], axis=0).T
    is_right = true == predicted
    if not _is_worth_it(len(true) - int(is_right.sum()), len(true)):
        return None  # no order can be
    best, as_it_is = None, is_right
    for name, places in _usual_orders(labels):
        found = places[true] == predicted
        if found.sum() > is_right.sum() and _is_better(found, as_it_is, true):
            best, is_right = LabelOrder(name, tuple(places.tolist()), int(found.sum())), found
    if len(labels) <= _MOST_LABELS:
        other = _assigned_order(true, predicted, is_right, len(labels))
        best = other if other is not None else best
    return best


def _is_better(
    found: npt.NDArray[np.bool_], today: npt.NDArray[np.bool_], true: npt.NDArray[np.int64]
) -> bool:
    """Tells whether an order names clearly more videos right than today, and than one answer.

    If most videos have one label, a model that always gives one answer is right for them in the
    order that gives this answer their label.
    """
    gain_on_one_answer = int(found.sum()) - int(np.bincount(true).max())
    return clearly_better(found, today) and _is_worth_it(gain_on_one_answer, len(true))


def _usual_orders(labels: Sequence[str]) -> list[tuple[str, npt.NDArray[np.int64]]]:
    count = len(labels)
    numbers = np.arange(count)
    by_text = np.array(sorted(range(count), key=str), dtype=np.int64)
    by_name = np.array(sorted(range(count), key=lambda number: labels[number]), dtype=np.int64)
    as_text = "numbers of labels sorted as text (0, 1, 10, 100, 2, ...)"
    alphabetical = "labels in alphabetical order"
    return [
        ("labels in reverse order", numbers[::-1]),
        ("labels counted from 1, not from 0", (numbers - 1) % count),
        ("labels counted from 0, not from 1", (numbers + 1) % count),
        (as_text, by_text),
        (as_text, np.argsort(by_text)),
        (alphabetical, by_name),
        (alphabetical, np.argsort(by_name)),
    ]


def _assigned_order(
    true: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    today: npt.NDArray[np.bool_],
    count: int,
) -> LabelOrder | None:
    """Finds the order with most right answers; None where it is not clearly better.

    The best of all orders is right for many of the videos that it was chosen by, even if the
    answers have nothing to do with them. So it is chosen by one half and judged by the other.
    """
    shuffled = np.random.default_rng(0).permutation(len(true))
    by_label = shuffled[np.argsort(true[shuffled], kind="stable")]  # halves have the same labels
    halves = by_label[::2], by_label[1::2]
    found = np.zeros(len(true), dtype=np.bool_)
    for half, other in (halves, halves[::-1]):
        places = _best_places(true[half], predicted[half], count)
        found[other] = places[true[other]] == predicted[other]
    if found.sum() < _LEAST_EXPLAINED * len(true) or not _is_better(found, today, true):
        return None
    places = _best_places(true, predicted, count)
    right = int((places[true] == predicted).sum())
    return LabelOrder("labels in another order", tuple(places.tolist()), right)


def _best_places(
    true: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], count: int
) -> npt.NDArray[np.int64]:
    with evaluate_extra():
        from scipy.optimize import linear_sum_assignment  # noqa: PLC0415
    matrix = np.zeros((count, count), dtype=np.int64)
    np.add.at(matrix, (true, predicted), 1)
    _, places = linear_sum_assignment(matrix, maximize=True)
    return np.asarray(places, dtype=np.int64)
