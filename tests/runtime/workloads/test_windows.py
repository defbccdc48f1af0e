"""Sliding windows, against a model that has all frames at hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from timesformer_runtime.errors import InvalidOptionError
from timesformer_runtime.input.sampling import uniform
from timesformer_runtime.workloads.windows import (
    ChooseFrames,
    SlidingWindows,
    Window,
    WindowSettings,
)

RATE = 25.0


def four(count: int, _rate: float) -> npt.NDArray[np.int64]:
    return uniform(count, 4)


def run(
    times: list[float],
    length: float,
    stride: float,
    rate: float = RATE,
    choose: ChooseFrames = four,
) -> list[Window[str]]:
    """The windows of frames that are named by their numbers."""
    windows = SlidingWindows[int, str](WindowSettings(length, stride), rate, choose, str)
    found: list[Window[str]] = []
    for number, seconds in enumerate(times):
        found += windows.push(seconds, number)
    return found + windows.finish()


def constant(count: int, rate: float = RATE) -> list[float]:
    return [number / rate for number in range(count)]


def variable(seed: int, count: int = 150) -> list[float]:
    """Times that stutter, jump and repeat."""
    generator = np.random.default_rng(seed)
    steps = generator.choice(
        [0.0, 0.0103, 0.04, 0.0411, 0.3, 1.7], count, p=[0.1, 0.3, 0.3, 0.2, 0.08, 0.02]
    )
    return [0.0, *np.cumsum(steps[1:]).tolist()]


def shown_at(times: list[float], position: int, rate: float) -> int:
    """Within half a frame of the position the first frame, else the last one before it."""
    near = [n for n, t in enumerate(times) if abs(t - position / rate) <= 0.5 / rate]
    before = [n for n, t in enumerate(times) if t < position / rate]
    return near[0] if near else before[-1]


def model(times: list[float], length: float, stride: float, rate: float) -> Iterator[list[int]]:
    """The frames of every window that is complete."""
    positions = round(length * rate)
    number = 0
    while True:
        first = round(number * stride * rate)
        if times[-1] < (first + positions - 1.5) / rate:
            return
        yield [shown_at(times, first + int(index), rate) for index in uniform(positions, 4)]
        number += 1


@pytest.mark.parametrize("stride", [0.2, 1.0, 1.5, 2.5])
@pytest.mark.parametrize("seed", range(8))
def test_windows_are_those_of_the_model(seed: int, stride: float) -> None:
    times = variable(seed)
    found = [window for window in run(times, 1.5, stride) if not window.is_partial]
    expected = list(model(times, 1.5, stride, RATE))
    assert len(expected) > 2
    assert [list(window.indices) for window in found] == expected
    for number, window in enumerate(found):
        assert window.start == pytest.approx(number * stride)
        assert window.end == pytest.approx(number * stride + 1.5)
        assert window.values == tuple(str(index) for index in window.indices)
        assert window.times == tuple(times[index] for index in window.indices)


@pytest.mark.parametrize("rate", [23.976, 25.0, 29.97, 59.94])
def test_at_a_constant_rate_windows_are_the_frames_between_start_and_end(rate: float) -> None:
    times = [round(seconds, 3) for seconds in constant(400, rate)]  # as in Matroska
    for number, window in enumerate(run(times, 2.0, 0.7, rate)[:3]):
        first, count = round(number * 0.7 * rate), round(2.0 * rate)
        assert list(window.indices) == (first + uniform(count, 4)).tolist()


def test_a_window_comes_with_its_last_frame() -> None:
    windows = SlidingWindows[int, int](WindowSettings(1.0, 0.5), RATE, four, int)
    complete = [n for n, t in enumerate(constant(60)) for _ in windows.push(t, n)]
    assert complete == [24, 24 + 12, 49]


def test_shared_frames_are_converted_once_and_others_never() -> None:
    converted: list[int] = []

    def convert(number: int) -> int:
        converted.append(number)
        return number

    windows = SlidingWindows[int, int](WindowSettings(1.0, 0.2), RATE, four, convert)
    found = [window for n, t in enumerate(constant(75)) for window in windows.push(t, n)]
    used = {index for window in found for index in window.indices}
    assert len(converted) == len(set(converted))
    assert used <= set(converted)
    assert set(converted) <= {5 * start + index for start in range(15) for index in (0, 8, 16, 24)}


def test_only_chosen_frames_of_open_windows_are_held() -> None:
    held: set[int] = set()

    class Value:
        def __init__(self, number: int) -> None:
            self.number = number
            held.add(number)

        def __del__(self) -> None:
            held.remove(self.number)

    windows = SlidingWindows[int, Value](WindowSettings(2.0, 1.0), RATE, four, Value)
    for n, seconds in enumerate(constant(2000)):
        list(windows.push(seconds, n))
        assert len(held) <= 3 * 4


@pytest.mark.parametrize("step", [1, 5, 10, 25, 40])  # frames
def test_the_memory_of_held_frames_is_known(step: int) -> None:
    """Of what is open and of the last four complete windows, each frame once."""
    told: list[int] = []
    windows: SlidingWindows[int, npt.NDArray[np.uint8]] = SlidingWindows(
        WindowSettings(1.0, step / RATE),
        RATE,
        four,
        lambda _: np.zeros(100, np.uint8),
        check=told.append,
    )
    for n, seconds in enumerate(constant(500)):
        list(windows.push(seconds, n))
    held = [
        {k * step + i for k in range(500) if k >= done - 4 for i in (0, 8, 16, 24)} & {*range(n)}
        for n in range(1, 501)
        for done in [len([k for k in range(500) if k * step + 24 < n - 1])]
    ]
    assert max(told) == 100 * max(len(frames) for frames in held)
    assert told[0] == 100


def test_far_fewer_frames_than_windows() -> None:
    """All windows must not begin at once, because the first frame lasts longer than all of them."""
    windows = SlidingWindows[int, str](WindowSettings(4.0, 2.0), 1e-9, four, str)
    assert len([*windows.push(0.0, 0), *windows.push(9000.0, 1)]) < 9000
    assert [window.indices[0] for window in windows.push(20_000.0, 2)].count(1) > 1000


def test_a_long_still_gives_windows_as_they_are_asked_for() -> None:
    windows = SlidingWindows[int, str](WindowSettings(), RATE, four, str)
    assert not list(windows.push(0.0, 0))
    later = windows.push(1e12, 1)  # half a million million windows
    assert [window.indices for window in itertools.islice(later, 3)] == [(0, 0, 0, 0)] * 3


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [(0.0, 0.04, True)]),
        (10, [(0.0, 0.4, True)]),  # a video shorter than a window has one window
        (24, [(0.0, 0.96, True)]),
        (25, [(0.0, 1.0, False)]),
        (26, [(0.0, 1.0, False), (0.4, 1.04, True)]),
        (34, [(0.0, 1.0, False), (0.4, 1.36, True)]),
        (35, [(0.0, 1.0, False), (0.4, 1.4, False)]),
        (36, [(0.0, 1.0, False), (0.4, 1.4, False), (0.8, 1.44, True)]),
    ],
)
def test_the_end_of_a_video(count: int, expected: list[tuple[float, float, bool]]) -> None:
    found = run(constant(count), 1.0, 0.4)
    assert [(w.start, round(w.end, 6), w.is_partial) for w in found] == expected
    assert found[-1].indices[-1] == count - 1


def test_a_last_window_of_less_than_half_is_left_out() -> None:
    assert [w.start for w in run(constant(25 + 12), 1.0, 1.0)] == [0.0]
    last = run(constant(25 + 13), 1.0, 1.0)[-1]
    assert (last.start, last.is_partial) == (1.0, True)
    assert list(last.indices) == [25, 33, 37, 37]  # 41 and 49 are not there


@pytest.mark.parametrize("count", [1, 3, 10, 24])
def test_a_short_video_that_tells_its_length_is_seen_as_a_whole(count: int) -> None:
    windows = SlidingWindows[int, int](WindowSettings(1, 1), RATE, four, int, count / RATE)
    found = [window for n, t in enumerate(constant(count)) for window in windows.push(t, n)]
    found += windows.finish()
    assert [list(window.indices) for window in found] == [uniform(count, 4).tolist()]
    assert found[0].start == 0.0
    assert found[0].end == pytest.approx(count / RATE)


def test_a_video_may_be_longer_than_it_says() -> None:
    windows = SlidingWindows[int, int](WindowSettings(1, 1), RATE, four, int, 0.3)
    found = [window for n, t in enumerate(constant(60)) for window in windows.push(t, n)]
    assert [list(window.indices) for window in found] == [[0, 8, 16, 24], [25, 33, 41, 49]]
    assert windows.finish() == []


def test_no_frames_give_no_window() -> None:
    windows = SlidingWindows[int, int](WindowSettings(), RATE, four, int)
    assert windows.finish() == []


def test_a_window_shorter_than_a_frame() -> None:
    found = run(constant(3, 1.0), 0.2, 0.5, 1.0)
    assert [window.start for window in found] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert [window.indices[0] for window in found] == [0, 0, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 0}, "`window` is 0 seconds; it must be 0.001 to 1000000"),
        ({"stride": -1.0}, "`stride` is -1.0 seconds"),
        ({"stride": math.nan}, "`stride` is nan seconds"),
        ({"length": 60, "stride": 0.05}, "for windows of 60 it must be at least 0.06"),
        ({"length": "4s"}, "`window` is '4s'; it must be a number of seconds"),
    ],
)
def test_settings_that_make_no_windows(settings: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        WindowSettings(**settings)


def test_times_must_not_decrease() -> None:
    windows = SlidingWindows[int, int](WindowSettings(), RATE, four, int)
    windows.push(0.0, 0)
    windows.push(1.0, 1)
    for seconds in (0.9, math.nan, math.inf):
        with pytest.raises(InvalidOptionError, match="must not decrease"):
            windows.push(seconds, 2)
    with pytest.raises(InvalidOptionError, match="frame rate is 0"):
        SlidingWindows(WindowSettings(), 0, four, int)
