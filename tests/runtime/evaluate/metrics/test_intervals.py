"""Intervals, against published values, scipy, and how often they hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest, norm
from timesformer_runtime.evaluate.metrics.intervals import (
    Z,
    mean_of_classes,
    paired_difference,
    share_of,
    wilson,
)


@pytest.mark.parametrize(
    ("part", "whole", "interval"),
    [  # statsmodels 0.15, proportion_confint(part, whole, method="wilson")
        (0, 10, (0.0, 0.27753279986288926)),
        (10, 10, (0.7224672001371106, 1.0)),
        (0, 1, (0.0, 0.7934506856227627)),
        (1, 1, (0.2065493143772374, 1.0)),
        (7, 10, (0.39677814746114537, 0.8922087325936989)),
        (976, 1200, (0.7903002276095857, 0.8343667453460336)),
        # Newcombe 1998, table I, method 3, to the digits that are printed there
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
    ],
)
def test_wilson_gives_the_published_values(
    part: int, whole: int, interval: tuple[float, float]
) -> None:
    assert wilson(part / whole, whole) == pytest.approx(interval, abs=5e-5)


def test_wilson_gives_those_of_scipy_and_holds_the_share() -> None:
    assert norm.ppf(0.975) == pytest.approx(Z, abs=1e-15)
    for whole in (1, 2, 3, 9, 57, 20_000):
        for part in {0, 1, whole // 3, whole - 1, whole}:
            expected = binomtest(part, whole).proportion_ci(method="wilson")
            low, high = wilson(part / whole, whole)
            assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
            assert 0 <= low <= part / whole <= high <= 1


def test_a_share_of_nothing_has_no_value() -> None:
    assert share_of(0, 0) == {"value": None, "interval": None, "count": 0, "of": 0}


def test_the_mean_of_classes_by_hand() -> None:
    # Shares 0.9, 0.5 and 1; the class without videos does not count. Unbiased variances
    # 0.09/9, 0.25/3, and pooled for the single video.
    found = mean_of_classes(np.array([9, 2, 0, 1]), np.array([10, 4, 0, 1]))
    mean = (0.9 + 0.5 + 1) / 3
    pooled = mean * (1 - mean)
    own = (0.09 / 9 + 0.25 / 3 + pooled) / 9
    alike = pooled * (1 / 10 + 1 / 4 + 1) / 9
    effective = pooled / max(own, alike)
    centre = (mean + Z**2 / 2 / effective) / (1 + Z**2 / effective)
    half = math.sqrt(pooled / effective + Z**2 / 4 / effective**2) * Z / (1 + Z**2 / effective)
    assert found["classes"] == 3
    assert found["value"] == pytest.approx(mean)
    assert found["interval"] == pytest.approx([centre - half, centre + half])


def test_equal_classes_that_are_all_right_have_the_interval_of_all_videos() -> None:
    found = mean_of_classes(np.full(5, 4), np.full(5, 4))
    assert found["interval"] == pytest.approx(wilson(1.0, 20))
    wrong = mean_of_classes(np.zeros(5, int), np.full(5, 4))
    assert wrong["interval"] == pytest.approx(wilson(0.0, 20))


def test_classes_that_are_all_right_or_all_wrong_are_not_certain() -> None:
    low, high = mean_of_classes(np.array([1, 0]), np.array([1, 1]))["interval"]
    assert high - low > 0.5


def test_no_class_with_videos_has_no_mean() -> None:
    assert mean_of_classes(np.zeros(2, int), np.zeros(2, int))["value"] is None


@pytest.mark.parametrize(
    ("shares", "count"),
    [
        (np.full(50, 0.8), np.full(50, 1)),
        (np.full(20, 0.9), np.full(20, 5)),
        (np.linspace(0.3, 1.0, 40), np.full(40, 10)),
        (np.array([0.5] * 5 + [0.95] * 5), np.array([4] * 5 + [200] * 5)),
        (np.array([0.95] * 5 + [0.6] * 5), np.array([4] * 5 + [200] * 5)),
    ],
    ids=["one video a class", "few videos", "unlike classes", "small hard", "small easy"],
)
def test_the_interval_of_the_mean_holds_the_truth(
    shares: np.ndarray[tuple[int], np.dtype[np.float64]],
    count: np.ndarray[tuple[int], np.dtype[np.int_]],
) -> None:
    random = np.random.default_rng(0)
    samples = random.binomial(count, shares, size=(2000, len(count)))
    held = 0
    for correct in samples:
        low, high = mean_of_classes(correct, count)["interval"]
        held += low <= shares.mean() <= high
    assert held / len(samples) >= 0.94


def test_a_paired_difference_gives_the_published_values() -> None:
    # PropCIs, diffpropci.mp(b = 40, c = 20, n = 160), which gives the centre of the interval.
    found = paired_difference(40, 20, 160)
    assert found["interval"] == pytest.approx([-0.21601726, -0.03089632], abs=5e-9)
    assert sum(found["interval"]) / 2 == pytest.approx(-0.1234568, abs=5e-8)
    assert found["value"] == -20 / 160


def test_a_paired_difference_of_equals_has_a_width() -> None:
    found = paired_difference(0, 0, 100)
    low, high = found["interval"]
    assert found["value"] == 0
    assert low == pytest.approx(-high)
    assert 0.01 < high < 0.03


@pytest.mark.parametrize(("first", "second", "pairs"), [(1, 0, 1), (0, 1, 1), (3, 0, 3)])
def test_a_paired_difference_stays_within_its_limits(first: int, second: int, pairs: int) -> None:
    low, high = paired_difference(first, second, pairs)["interval"]
    assert -1 <= low < high <= 1
    assert paired_difference(0, 0, 0) == {"value": None, "interval": None}
