"""95 % intervals of shares, of their mean over classes, and of paired differences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Z = 1.959963984540054  # the normal distribution's quantile for 95 %, two-sided


def wilson(share: float, count: float) -> list[float]:
    """Computes Wilson's score interval (1927) of a share.

    Args:
        share: The observed share, 0 to 1.
        count: How many independent observations it comes from; need not be whole.
    """
    shrunk = 1 + Z**2 / count
    centre = (share + Z**2 / (2 * count)) / shrunk
    half = Z / shrunk * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    # At the ends, rounding would leave the share itself outside.
    low = 0.0 if share == 0 else max(0.0, centre - half)
    high = 1.0 if share == 1 else min(1.0, centre + half)
    return [low, high]


def share_of(part: int, whole: int) -> dict[str, Any]:
    """Describes a share with its Wilson interval; both are None where ``whole`` is 0."""
    if not whole:
        return {"value": None, "interval": None, "count": 0, "of": 0}
    value = part / whole
    return {"value": value, "interval": wilson(value, whole), "count": part, "of": whole}


def mean_of_classes(
    correct: npt.NDArray[np.integer[Any]], count: npt.NDArray[np.integer[Any]]
) -> dict[str, Any]:
    """Computes the mean of the classes' shares, with a Wilson interval of an effective count.

    The variance of the mean is the sum of the classes' unbiased variances (the delta method). The
    effective count is the number of videos of a plain sample with this variance, as for surveys
    (Korn and Graubard 1998; Dean and Pagano 2015 with Wilson's interval). A few videos a class can
    hide their variance: a class of one video shows none. So the variance is never taken to be
    smaller than if all classes had the mean's share; then the interval is rather too wide.

    Args:
        correct: Right answers, for each class.
        count: Videos, for each class; classes without videos are left out of the mean.
    """
    there = count > 0
    classes = int(there.sum())
    if not classes:
        return {"value": None, "interval": None, "classes": 0}
    videos = count[there].astype(np.float64)
    shares = correct[there] / videos
    mean = float(shares.mean())
    pooled = mean * (1 - mean)
    alike = float((1 / videos).sum()) / classes**2  # the variance of the mean, for pooled == 1
    several = videos > 1
    own = np.where(several, shares * (1 - shares) / np.where(several, videos - 1, 1), pooled)
    variance = max(float(own.sum()) / classes**2, pooled * alike)
    effective = pooled / variance if variance > 0 else 1 / alike
    return {"value": mean, "interval": wilson(mean, effective), "classes": classes}


def paired_difference(only_first: int, only_second: int, pairs: int) -> dict[str, Any]:
    """Computes the second share minus the first, with the interval of Agresti and Min (2005).

    It is Wald's interval for pairs after half a pair was added to each of the four outcomes, so
    that it has a width even where the two never differ.

    Args:
        only_first: Pairs of which only the first is right.
        only_second: Pairs of which only the second is right.
        pairs: All pairs.
    """
    if not pairs:
        return {"value": None, "interval": None}
    total = pairs + 2
    first, second = (only_first + 0.5) / total, (only_second + 0.5) / total
    centre = second - first
    half = Z * math.sqrt((first + second - centre**2) / total)
    return {
        "value": (only_second - only_first) / pairs,
        "interval": [max(-1.0, centre - half), min(1.0, centre + half)],
    }
