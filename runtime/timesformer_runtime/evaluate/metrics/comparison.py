"""Two evaluated models on the same videos."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np

from timesformer_runtime.evaluate.metrics.columns import Line, answer_of, videos_of
from timesformer_runtime.evaluate.metrics.intervals import Z, paired_difference, share_of
from timesformer_runtime.extras import evaluate_extra

with evaluate_extra():
    import scipy  # which imports scipy.special, 0.2 s of work, at its first use


def compare(lines: Iterable[Line], first: str, second: str) -> dict[str, Any]:
    """Compares two evaluated models on the labelled videos that both answered, as JSON types.

    ``difference`` is the accuracy of the second minus that of the first, with the interval of
    Agresti and Min (2005). ``mcnemar`` is the exact test: the two-sided binomial test of the videos
    that only one of the two names rightly. ``true_label_score`` is the score that the second gives
    the true label minus that of the first.

    Args:
        lines: The lines of ``results.jsonl``.
        first: One of the evaluated models, such as the reference.
        second: The other one.
    """
    outcomes = {(right, other): 0 for right in (True, False) for other in (True, False)}
    agreed = left_out = 0
    changes = array("d")
    for line in videos_of(lines):
        one, two = answer_of(line, first), answer_of(line, second)
        if one is None or two is None or not line["true_labels"]:
            left_out += 1
            continue
        outcomes[one.is_right, two.is_right] += 1
        agreed += one.label is not None and one.label == two.label
        change = two.true_score - one.true_score
        if math.isfinite(change):
            changes.append(change)
    pairs = sum(outcomes.values())
    only_first, only_second = outcomes[True, False], outcomes[False, True]
    differing = only_first + only_second
    both = outcomes[True, True]
    # Each of the videos is as likely to be either model's, so both tails are alike.
    tail = float(scipy.special.bdtr(min(only_first, only_second), differing, 0.5))
    return {
        "first": first,
        "second": second,
        "videos": pairs,
        "left_out": left_out,
        "agreement": share_of(agreed, pairs),
        "both_right": both,
        "only_first_right": only_first,
        "only_second_right": only_second,
        "both_wrong": outcomes[False, False],
        "first_accuracy": share_of(both + only_first, pairs),
        "second_accuracy": share_of(both + only_second, pairs),
        "difference": paired_difference(only_first, only_second, pairs),
        "mcnemar": {"p_value": min(1.0, 2 * tail)},
        "true_label_score": _change(changes),
    }


def _change(values: array[float]) -> dict[str, Any]:
    """Describes changes: their mean with a normal interval, and their percentiles."""
    if not values:
        return {"mean": None, "interval": None, "percentiles": None}
    changes = np.array(values, np.float64)
    mean = float(changes.mean())
    half = Z * float(changes.std(ddof=1)) / math.sqrt(len(changes)) if len(changes) > 1 else None
    marks = (0, 5, 50, 95, 100)
    return {
        "mean": mean,
        "interval": None if half is None else [mean - half, mean + half],
        "percentiles": dict(
            zip(map(str, marks), np.percentile(changes, marks).tolist(), strict=True)
        ),
    }
