"""Precision, recall and F1 of each class, and which classes are confused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from timesformer_runtime.evaluate.metrics.columns import NO_LABEL, Columns, Ints

_MOST_PAIRS = 50


def counts_of(columns: Columns, labels: int) -> tuple[Ints, Ints, Ints]:
    """Counts for each class the videos of it, those named so, and those named so rightly."""
    true = columns.true[columns.true != NO_LABEL]
    best = columns.best[columns.is_finite]
    right = columns.true[columns.is_right]
    count, predicted, correct = (
        np.bincount(places, minlength=labels).astype(np.int32) for places in (true, best, right)
    )
    return count, predicted, correct


def class_rows(
    labels: Sequence[str], count: Ints, predicted: Ints, correct: Ints, unreadable: Ints
) -> list[dict[str, Any]]:
    """Describes each class, in the model's order; a share of nothing is None.

    Args:
        labels: The names of the classes.
        count: Readable videos of each class.
        predicted: Videos that the model gave each class.
        correct: Videos that it gave the class rightly.
        unreadable: Videos of the class that could not be read.
    """
    columns = (labels, count.tolist(), predicted.tolist(), correct.tolist(), unreadable.tolist())
    return [
        {
            "label": label,
            "count": there,
            "unreadable": missing,
            "predicted": given,
            "correct": right,
            "precision": right / given if given else None,
            "recall": right / there if there else None,
            "f1": 2 * right / (there + given) if there + given else None,
        }
        for label, there, given, right, missing in zip(*columns, strict=True)
    ]


def confusion_of(columns: Columns, labels: int) -> list[list[int]]:
    """Lists the confusion matrix's entries that are not 0, as [true, predicted, videos].

    Most entries of a matrix of 400 classes are 0.
    """
    there = columns.is_finite & (columns.true != NO_LABEL)
    keys = columns.true[there].astype(np.int64) * labels + columns.best[there]
    found, count = np.unique(keys, return_counts=True)
    return np.stack([found // labels, found % labels, count], axis=1).tolist() if labels else []


def most_confused(
    confusion: Sequence[Sequence[int]], labels: Sequence[str], count: Ints
) -> list[dict[str, Any]]:
    """Lists the pairs of classes that are confused most often, the most frequent first.

    Args:
        confusion: The entries of the confusion matrix.
        labels: The names of the classes.
        count: Readable videos of each class.
    """
    wrong = [entry for entry in confusion if entry[0] != entry[1]]
    wrong.sort(key=lambda entry: (-entry[2], -entry[2] / int(count[entry[0]]), entry))
    return [
        {
            "true": labels[true],
            "predicted": labels[predicted],
            "count": videos,
            "share": videos / int(count[true]),
        }
        for true, predicted, videos in wrong[:_MOST_PAIRS]
    ]
