"""Bands by value: which label is shown where."""

from __future__ import annotations

import numpy as np
import pytest
from timesformer_runtime.timeline_picture import MOST_LABELS, Stretch, bands_of


def stretch(start: float, end: float, **scores: float) -> Stretch:
    return Stretch(start, end, tuple(sorted(scores.items(), key=lambda item: -item[1])))


def test_windows_that_overlap_share_the_time() -> None:
    """Windows of 4 s, every 2 s: the limits are at 3 and 5 seconds."""
    bands = bands_of(
        [
            stretch(0, 4, run=0.75, walk=0.25),
            stretch(2, 6, walk=0.5, run=0.375),
            stretch(4, 8, run=1.0),
        ],
        columns=8,
    )
    assert bands.labels == ("run", "walk")
    np.testing.assert_array_equal(
        bands.scores, [[0.75] * 3 + [0.375] * 2 + [1] * 3, [0.25] * 3 + [0.5] * 2 + [0] * 3]
    )
    np.testing.assert_array_equal(bands.is_first[0], [True] * 3 + [False] * 2 + [True] * 3)
    np.testing.assert_array_equal(bands.is_first[1], ~bands.is_first[0])
    assert bands.shares == pytest.approx((0.75, 0.25))
    assert (bands.start, bands.end, bands.others) == (0, 8, 0)
    assert bands.column_time(3) == 3


def test_time_between_windows_belongs_to_no_label() -> None:
    bands = bands_of([stretch(0, 2, run=1.0), stretch(6, 8, run=0.5)], columns=8)
    assert np.isnan(bands.scores[0, 2:6]).all()
    np.testing.assert_array_equal(bands.scores[0, [0, 1, 6, 7]], [1, 1, 0.5, 0.5])
    assert not bands.is_first[0, 2:6].any()
    assert bands.shares[0] == 1


def test_a_short_event_stays_visible_in_hours_of_video() -> None:
    stretches = [stretch(2 * k, 2 * k + 2, walk=0.9, run=0.1) for k in range(5400)]
    stretches[3000] = stretch(6000, 6002, run=0.8, walk=0.2)
    bands = bands_of(stretches, columns=900)
    assert bands.labels == ("walk", "run")
    assert bands.is_first[1].sum() == 1
    assert bands.scores[1, 500] == 0.8
    assert bands.is_first[1, 500]


def test_of_many_labels_those_with_the_most_time_are_shown() -> None:
    stretches, time = [], 0
    for number in range(15):
        stretches.append(stretch(time, time + number + 1, **{f"l{number}": 1.0}))
        time += number + 1
    bands = bands_of(stretches, columns=900)
    assert bands.labels == tuple(f"l{number}" for number in range(14, 14 - MOST_LABELS, -1))
    assert bands.others == 3


def test_a_second_label_is_shown_where_one_is_always_first() -> None:
    stretches = [stretch(0, 2, none=0.9, cut=0.06, fade=0.04)]
    bands = bands_of(stretches, columns=4)
    assert bands.labels == ("none", "cut")
    assert bands.shares == (1, 0)
