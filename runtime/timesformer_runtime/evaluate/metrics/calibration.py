"""Calibration: how often a model is right where it gives a certain score."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from timesformer_runtime.evaluate.metrics.columns import Floats
from timesformer_runtime.evaluate.metrics.intervals import wilson

_BINS = 15  # of equal width, as Guo et al. 2017


def calibration_of(scores: Floats, is_right: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Computes the expected calibration error and its bins.

    A bin holds the scores above its lower and up to its upper end. The error is the mean over all
    answers of the distance between the bin's mean score and its share of right answers.

    Args:
        scores: Scores from 0 to 1.
        is_right: Which of them belong to right answers.

    Returns:
        ``error``, None without scores, and ``bins``, without the empty ones.
    """
    ends = np.linspace(0, 1, _BINS + 1)
    places = np.clip(np.searchsorted(ends, scores, side="left") - 1, 0, _BINS - 1)
    count = np.bincount(places, minlength=_BINS)
    score = np.bincount(places, weights=scores, minlength=_BINS)
    right = np.bincount(places, weights=is_right, minlength=_BINS)
    bins = [
        {
            "from": float(ends[place]),
            "to": float(ends[place + 1]),
            "count": int(count[place]),
            "score": float(score[place] / count[place]),
            "accuracy": float(right[place] / count[place]),
            "interval": wilson(float(right[place] / count[place]), int(count[place])),
        }
        for place in np.flatnonzero(count)
    ]
    error = float(np.abs(score - right).sum() / len(scores)) if len(scores) else None
    return {"error": error, "bins": bins}


def log_loss(log_probabilities: Floats) -> float | None:
    """Computes the mean negative log probability of the true labels; None without any."""
    known = log_probabilities[np.isfinite(log_probabilities)]
    return float(-known.mean()) if len(known) else None
