"""The numbers of models that give each label a score of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from timesformer_runtime.evaluate.metrics.calibration import calibration_of
from timesformer_runtime.evaluate.metrics.classes import class_rows
from timesformer_runtime.evaluate.metrics.columns import Columns, Floats
from timesformer_runtime.extras import evaluate_extra

with evaluate_extra():
    from sklearn.metrics import average_precision_score

_THRESHOLD = 0.5  # a label counts as given from this score on


def measure_multilabel(columns: Columns, labels: Sequence[str]) -> dict[str, Any]:
    """Computes mAP, the classes' numbers, log loss and calibration over all labels of all videos.

    Args:
        columns: The answers, with all scores.
        labels: The model's labels.
    """
    finite = np.isfinite(columns.scores).all(axis=1)
    scores, is_true = columns.scores[finite], columns.is_true[finite]
    precisions = _average_precisions(scores, is_true)
    given = scores >= _THRESHOLD
    rows = class_rows(
        labels,
        columns.is_true.sum(axis=0, dtype=np.int32),
        given.sum(axis=0, dtype=np.int32),
        (given & is_true).sum(axis=0, dtype=np.int32),
        columns.unreadable,
    )
    for row, precision in zip(rows, precisions, strict=True):
        row["average_precision"] = precision
    known = [precision for precision in precisions if precision is not None]
    return {
        "mean_average_precision": {
            "value": sum(known) / len(known) if known else None,
            "classes": len(known),
            "classes_without_videos": len(labels) - len(known),
        },
        "log_loss": _binary_log_loss(scores, is_true),
        "calibration": calibration_of(scores.ravel(), is_true.ravel()),
        "classes": rows,
    }


def _average_precisions(scores: Floats, is_true: npt.NDArray[np.bool_]) -> list[float | None]:
    """Computes each class's average precision; None for classes that no video has."""
    return [
        float(average_precision_score(wanted, column)) if wanted.any() else None
        for wanted, column in zip(is_true.T, scores.T, strict=True)
    ]


def _binary_log_loss(scores: Floats, is_true: npt.NDArray[np.bool_]) -> float | None:
    if not scores.size:
        return None
    chance = np.where(is_true, scores, 1 - scores)
    # A score rounded to 0 or 1 would cost an infinite loss; scikit-learn limits it likewise.
    return float(-np.log(np.maximum(chance, np.finfo(np.float64).eps)).mean())
