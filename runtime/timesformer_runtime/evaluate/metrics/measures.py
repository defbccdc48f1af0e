"""All numbers of one evaluated model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from timesformer_runtime.evaluate.metrics.calibration import calibration_of, log_loss
from timesformer_runtime.evaluate.metrics.classes import (
    class_rows,
    confusion_of,
    counts_of,
    most_confused,
)
from timesformer_runtime.evaluate.metrics.columns import (
    NO_LABEL,
    Columns,
    Line,
    read_columns,
)
from timesformer_runtime.evaluate.metrics.intervals import mean_of_classes, share_of


def measure(
    lines: Iterable[Line], name: str, labels: Sequence[str], function: str
) -> dict[str, Any]:
    """Computes the numbers of one evaluated model, as JSON types.

    Accuracies are over the readable videos; ``unreadable_as_wrong`` has each with the unreadable
    ones counted as wrong. Ties count against the model. A video whose scores are not numbers is
    wrong, and is left out of log loss and calibration. A number that does not exist, such as a
    share of no videos, is None.

    Memory is 28 bytes for each video, and for sigmoid models nine more for each of its labels.

    Args:
        lines: The lines of ``results.jsonl``.
        name: The evaluated model.
        labels: The model's labels, in its order.
        function: ``softmax``, ``sigmoid`` or ``none``, which made the scores.

    Raises:
        InvalidOptionError: The lines are not of a model with these labels.
        MissingDependencyError: The extra ``evaluate`` is not installed.
    """
    columns = read_columns(lines, name, labels, all_scores=function == "sigmoid")
    readable, unreadable = len(columns.rank), columns.unreadable_videos
    return {
        "function": function,
        "videos": {
            "total": readable + unreadable,
            "readable": readable,
            "unreadable": unreadable,
            "not_finite": int(np.count_nonzero(~columns.is_finite)),
        },
        "top_1": _top(columns, 1),
        "top_5": _top(columns, 5),
        **_rest(columns, labels, function),
    }


def _top(columns: Columns, most: int) -> dict[str, Any]:
    """Describes the share of the videos with a label whose label is among the ``most`` best."""
    labelled = columns.true != NO_LABEL
    right, videos = int(np.count_nonzero(columns.rank[labelled] <= most)), int(labelled.sum())
    return {
        **share_of(right, videos),
        "unreadable_as_wrong": share_of(right, videos + columns.unreadable_labelled),
    }


def _rest(columns: Columns, labels: Sequence[str], function: str) -> dict[str, Any]:
    if function == "sigmoid":
        # The import is here because scikit-learn takes a second.
        from timesformer_runtime.evaluate.metrics.multilabel import (  # noqa: PLC0415
            measure_multilabel,
        )

        return measure_multilabel(columns, labels)
    count, predicted, correct = counts_of(columns, len(labels))
    confusion = confusion_of(columns, len(labels))
    known = columns.is_finite
    return {
        "mean_class_accuracy": {
            **mean_of_classes(correct, count),
            "unreadable_as_wrong": mean_of_classes(correct, count + columns.unreadable),
        },
        "log_loss": log_loss(columns.log_probability),
        "calibration": calibration_of(columns.score[known], columns.is_right[known])
        if function == "softmax"
        else None,
        "classes": class_rows(labels, count, predicted, correct, columns.unreadable),
        "confusion": confusion,
        "most_confused": most_confused(confusion, labels, count),
    }
