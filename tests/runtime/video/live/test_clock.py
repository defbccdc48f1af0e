"""Tests the clock of live frames: plausible timestamps count, else the time that passes."""

from __future__ import annotations

import pytest
from timesformer_runtime.video.live.clock import LiveClock


def times(stamps: list[float | None], arrivals: list[float]) -> list[float]:
    clock = LiveClock()
    pairs = zip(stamps, arrivals, strict=True)
    return [clock.seconds(stamp, arrived) for stamp, arrived in pairs]


def test_timestamps_count_from_the_first_whenever_frames_come() -> None:
    stamps = [38604.0, 38604.04, 38604.08, 38604.2]
    assert times([*stamps], [7.0, 7.0, 9.5, 9.5]) == pytest.approx([0.0, 0.04, 0.08, 0.2])


@pytest.mark.parametrize(
    "stamps",
    [
        [None, None, None],
        [5.0, None, None],
        [5.0, 4.0, 3.0],  # back
        [5.0, 5.0, 5.0],
        [5.0, 500.0, 9000.0],  # far ahead
    ],
)
def test_the_time_that_passed_counts_where_timestamps_are_no_help(
    stamps: list[float | None],
) -> None:
    assert times(stamps, [10.0, 10.5, 12.0]) == pytest.approx([0.0, 0.5, 2.0])


def test_after_a_jump_timestamps_count_again() -> None:
    stamps: list[float | None] = [5.0, 5.04, 0.0, 0.04, 0.08]
    arrivals = [10.0, 10.04, 11.04, 11.05, 11.06]
    assert times(stamps, arrivals) == pytest.approx([0.0, 0.04, 1.04, 1.08, 1.12])


def test_frames_with_one_timestamp_do_not_shift_the_next() -> None:
    stamps: list[float | None] = [5.0, 5.0, 5.04, 5.04, 5.04, 5.08]
    arrivals = [10.0, 10.02, 10.04, 10.05, 10.06, 10.08]
    assert times(stamps, arrivals) == pytest.approx([0.0, 0.02, 0.04, 0.05, 0.06, 0.08])


def test_timestamps_that_stood_still_for_long_count_again() -> None:
    stamps: list[float | None] = [5.0, 5.0, 5.04, 5.08]
    assert times(stamps, [10.0, 12.0, 12.04, 12.08]) == pytest.approx([0.0, 2.0, 2.0, 2.04])


def test_frames_that_are_rare_may_be_far_apart() -> None:
    assert times([0.0, 60.0, 120.0], [1.0, 61.0, 121.0]) == pytest.approx([0.0, 60.0, 120.0])


def test_another_connection_goes_by_the_time_that_passed() -> None:
    clock = LiveClock()
    clock.seconds(100.0, 10.0)
    clock.restart()
    assert clock.seconds(100.04, 13.0) == pytest.approx(3.0)
    assert clock.seconds(100.08, 13.01) == pytest.approx(3.04)


def test_times_never_decrease() -> None:
    stamps: list[float | None] = [3.0, 2.0, None, 2.5, 900.0, 900.1, 1.0, None]
    found = times(stamps, [1.0, 1.0, 1.2, 1.2, 1.3, 1.4, 1.4, 2.0])
    assert found == sorted(found)
