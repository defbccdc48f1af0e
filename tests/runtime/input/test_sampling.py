"""Which frames a model gets to see, against the formulas as their authors wrote them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from timesformer_runtime.errors import InvalidOptionError, InvalidVideoError
from timesformer_runtime.input.option_values import METHODS
from timesformer_runtime.input.sampling import RELEASED_RATES, Sampling, uniform

from tests.video_files import decode_plainly, moving_pictures, write_video

COUNTS = [*range(1, 70), 100, 149, 150, 250, 251, 299, 300, 301, 1000, 7201, 1_000_003]
LENGTHS = [1, 2, 3, 8, 16, 64, 96]
RATES = [1, 2, 4, 16, 32]


def chosen(method: str, count: int, num_frames: int, **options: Any) -> list[Any]:
    """Indices [clips, num_frames]; a plain list [num_frames] of a single clip."""
    fps = options.pop("fps", 30.0)
    indices = Sampling(method, **options).indices(count, num_frames, fps)
    assert indices.dtype == np.int64
    assert indices.shape == (options.get("clips", 1), num_frames)
    assert indices.min() >= 0
    assert indices.max() < count
    rows = indices.tolist()
    return rows if len(rows) > 1 else list(rows[0])


# --- Over the whole video ------------------------------------------------------------------------


@pytest.mark.parametrize("num_frames", LENGTHS)
def test_uniform_is_the_documented_rule(num_frames: int) -> None:
    for count in COUNTS:
        expected = np.linspace(0, count - 1, num_frames).astype(int).tolist()
        assert uniform(count, num_frames).tolist() == expected
        assert chosen("uniform", count, num_frames) == expected
        # Floats round differently where a position is an integer: never by more than one frame.
        exact = [i * (count - 1) // max(num_frames - 1, 1) for i in range(num_frames)]
        assert np.abs(np.array(exact) - expected).max() <= 1


def test_uniform_includes_both_ends_and_repeats_in_short_videos() -> None:
    assert uniform(300, 8).tolist() == [0, 42, 85, 128, 170, 213, 256, 299]
    assert uniform(3, 8).tolist() == [0, 0, 0, 0, 1, 1, 1, 2]
    assert uniform(10, 1).tolist() == [0]


@pytest.mark.parametrize(("count", "num_frames", "name"), [(0, 8, "count"), (8, 0, "num_frames")])
def test_numbers_that_are_too_small_are_named(count: int, num_frames: int, name: str) -> None:
    with pytest.raises(InvalidOptionError, match=f"`{name}` is 0"):
        uniform(count, num_frames)
    with pytest.raises(InvalidOptionError, match=f"`{name}` is 0"):
        Sampling().indices(count, num_frames)


def ssv2_test_loader(video_length: int, num_frames: int) -> list[int]:
    seg_size = float(video_length - 1) / num_frames
    chosen = []
    for i in range(num_frames):
        start = int(np.round(seg_size * i))
        end = int(np.round(seg_size * (i + 1)))
        chosen.append((start + end) // 2)
    return chosen


@pytest.mark.parametrize("num_frames", LENGTHS)
def test_segments_is_the_something_something_test(num_frames: int) -> None:
    for count in COUNTS:
        assert chosen("segments", count, num_frames) == ssv2_test_loader(count, num_frames)
    assert chosen("segments", 65, 8) == [4, 12, 20, 28, 36, 44, 52, 60]


# --- At a fixed distance -------------------------------------------------------------------------


@pytest.mark.parametrize("num_frames", LENGTHS)
@pytest.mark.parametrize("rate", RATES)
def test_pipeline_is_the_one_of_transformers(num_frames: int, rate: int) -> None:
    for count in COUNTS:
        grid = np.linspace(0, num_frames * rate - 1, num=num_frames, dtype=np.int64)
        expected = np.minimum(grid, count - 1).tolist()
        assert chosen("pipeline", count, num_frames, rate=rate) == expected
    assert chosen("pipeline", 300, 8) == [0, 1, 2, 3, 4, 5, 6, 7]


def test_pipeline_gives_the_frames_that_transformers_reads(tmp_path: Path) -> None:
    pipelines = pytest.importorskip("transformers.pipelines.video_classification")
    path = write_video(tmp_path / "clip.mp4", moving_pictures(40))
    grid = np.linspace(0, 8 * 4 - 1, num=8, dtype=np.int64)  # as its preprocess() does
    with av.open(str(path)) as container:
        expected = pipelines.read_video_pyav(container, grid)
    frames = np.stack(decode_plainly(path))
    np.testing.assert_array_equal(frames[chosen("pipeline", 40, 8, rate=4)], expected)


@pytest.mark.parametrize("num_frames", LENGTHS)
@pytest.mark.parametrize("rate", RATES)
def test_center_lies_in_the_middle(num_frames: int, rate: int) -> None:
    for count in COUNTS:
        offset = max(count - ((num_frames - 1) * rate + 1), 0) // 2
        expected = [min(offset + rate * i, count - 1) for i in range(num_frames)]
        assert chosen("center", count, num_frames, rate=rate) == expected
    # As much before as after, to a frame.
    indices = chosen("center", 300, 8, rate=32)
    assert indices[0] == 37
    assert 299 - indices[-1] == 38


def mmaction_test_clips(count: int, num_frames: int, rate: int, clips: int) -> npt.NDArray[Any]:
    """SampleFrames of mmaction2 with test_mode, written out."""
    length = (num_frames - 1) * rate + 1
    most = max(count - length, 0)
    offsets = [most // 2]
    if clips > 1:
        between = most / float(clips - 1)
        offsets = [int(np.round(clip * between)) for clip in range(clips)]
    return np.array([[offset + rate * i for i in range(num_frames)] for offset in offsets])


@pytest.mark.parametrize("clips", [1, 2, 3, 10])
@pytest.mark.parametrize(("num_frames", "rate"), [(8, 32), (16, 16), (96, 4), (3, 1), (1, 5)])
def test_dense_clips_spread_over_the_video(num_frames: int, rate: int, clips: int) -> None:
    for count in COUNTS:
        expected = mmaction_test_clips(count, num_frames, rate, clips)
        options: dict[str, Any] = {"rate": rate, "clips": clips}
        indices = Sampling("dense", **options).indices(count, num_frames)
        np.testing.assert_array_equal(indices, np.minimum(expected, count - 1))
        wrapped = Sampling("dense", **options, short="wrap").indices(count, num_frames)
        np.testing.assert_array_equal(wrapped, expected % count)


def test_dense_clips_touch_both_ends() -> None:
    assert chosen("dense", 21, 3, rate=5, clips=3) == [[0, 5, 10], [5, 10, 15], [10, 15, 20]]


# --- The authors' test on Kinetics ---------------------------------------------------------------


def get_start_end_idx(
    video_size: int, clip_size: float, clip_idx: int, num_clips: int
) -> tuple[float, float]:
    delta = max(video_size - clip_size, 0)
    start_idx = delta * clip_idx / num_clips
    return start_idx, start_idx + clip_size - 1


def kinetics_test_loader(
    count: int, num_frames: int, rate: int, fps: float, clips: int
) -> npt.NDArray[np.int64]:
    torch = pytest.importorskip("torch")
    rows = []
    for clip in range(clips):
        clip_size = rate * num_frames / 30 * fps
        start, end = get_start_end_idx(count, clip_size, clip, clips)
        index = torch.linspace(start, end, num_frames)
        rows.append(torch.clamp(index, 0, count - 1).long().numpy())
    return np.stack(rows)


FPS = [10, 12.5, 15, 24, 24000 / 1001, 25, 30000 / 1001, 30, 50, 60]


@pytest.mark.parametrize("fps", FPS)
def test_facebook_is_the_kinetics_test(fps: float) -> None:
    for num_frames, rate in [(8, 32), (16, 16), (96, 4), (1, 1), (4, 3)]:
        for count in COUNTS:
            indices = Sampling("facebook", rate).indices(count, num_frames, fps)
            expected = kinetics_test_loader(count, num_frames, rate, fps, 1)
            np.testing.assert_array_equal(indices, expected)


@pytest.mark.parametrize("clips", [2, 3, 4, 10])
@pytest.mark.parametrize("fps", FPS)
def test_facebook_clips(fps: float, clips: int) -> None:
    for count in COUNTS:
        indices = Sampling("facebook", clips=clips).indices(count, 8, fps)
        np.testing.assert_array_equal(indices, kinetics_test_loader(count, 8, 32, fps, clips))
        # PyTorch's vector instructions round long rows differently from its plain code.
        indices = Sampling("facebook", clips=clips).indices(count, 96, fps)
        expected = kinetics_test_loader(count, 96, 4, fps, clips)
        assert np.abs(indices - expected).max() <= 1
        assert (indices != expected).mean() < 0.01


def kinetics_decoder(
    path: Path, num_frames: int, rate: int, clip: int, clips: int
) -> npt.NDArray[Any]:
    """The frames that pyav_decode and decode of the authors' loader give, by their numbers."""
    torch = pytest.importorskip("torch")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate is not None
        assert stream.duration is not None
        clip_size = rate * num_frames / 30 * float(stream.average_rate)
        start, end = get_start_end_idx(stream.frames, clip_size, clip, clips)
        ticks = stream.duration / stream.frames
        start_pts, end_pts = int(start * ticks), int(end * ticks)
        decoded = []
        for number, frame in enumerate(container.decode(stream)):
            assert frame.pts is not None
            if frame.pts >= start_pts:
                decoded.append(number)
            if frame.pts > end_pts:  # one more than needed, as there
                break
    start, end = get_start_end_idx(len(decoded), clip_size, 0, 1)
    index = torch.clamp(torch.linspace(start, end, num_frames), 0, len(decoded) - 1).long()
    return np.array([decoded[number] for number in index.tolist()])


@pytest.mark.parametrize("count", [40, 120, 200])
def test_facebook_gives_the_frames_that_the_authors_decoder_gives(
    tmp_path: Path, count: int
) -> None:
    path = write_video(tmp_path / "clip.mp4", moving_pictures(count))
    for rate in (4, 7, 16):
        indices = Sampling("facebook", rate).indices(count, 8, 25.0)
        np.testing.assert_array_equal(indices[0], kinetics_decoder(path, 8, rate, 0, 1))
        several = Sampling("facebook", rate, clips=3).indices(count, 8, 25.0)
        for clip in range(3):  # their decoder starts later clips at the next whole frame
            later = kinetics_decoder(path, 8, rate, clip, 3) - several[clip]
            assert set(later.tolist()) <= {0, 1}


def test_facebook_by_hand() -> None:
    # 256 frames at 30 a second from the first; 213.3 at 25.
    assert chosen("facebook", 300, 8) == [0, 36, 72, 109, 145, 182, 218, 255]
    assert chosen("facebook", 300, 8, fps=25.0) == [0, 30, 60, 91, 121, 151, 182, 212]
    assert chosen("facebook", 100, 8) == [0, 36, 72, 99, 99, 99, 99, 99]
    assert chosen("facebook", 356, 8, clips=2)[1][:2] == [50, 86]


# --- Short videos --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "rate", "expected"),
    [
        ("uniform", None, [0, 1, 2, 0, 1]),
        ("segments", None, [0, 1, 2, 0, 1]),
        ("center", 2, [0, 2, 1, 0, 2]),
        ("pipeline", 1, [0, 1, 2, 0, 1]),
        ("facebook", 1, [0, 1, 2, 0, 1]),
    ],
)
def test_wrap_plays_a_short_video_again(method: str, rate: int | None, expected: list[int]) -> None:
    assert chosen(method, 3, 5, rate=rate, short="wrap") == expected
    long_enough = chosen(method, 90, 5, rate=rate)
    assert chosen(method, 90, 5, rate=rate, short="wrap") == long_enough
    assert chosen(method, 90, 5, rate=rate, short="error") == long_enough


@pytest.mark.parametrize(
    ("method", "rate", "needed"),
    [
        ("uniform", None, 8),
        ("segments", None, 9),
        ("center", 4, 29),
        ("dense", 4, 29),
        ("pipeline", 4, 32),
        ("facebook", 4, 32),
    ],
)
def test_error_refuses_a_short_video(method: str, rate: int | None, needed: int) -> None:
    sampling = Sampling(method, rate, short="error")
    expected = Sampling(method, rate).indices(needed, 8)
    np.testing.assert_array_equal(sampling.indices(needed, 8), expected)
    assert len(set(expected.ravel().tolist())) == 8  # nothing is repeated in as many frames
    with pytest.raises(InvalidVideoError) as caught:
        sampling.indices(needed - 1, 8)
    message = str(caught.value)
    assert f"has {needed - 1} frames, and {method} sampling needs {needed}" in message
    assert "another `sampling`, or `short=repeat_last` or `short=wrap`" in message


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("short", ["repeat_last", "wrap"])
def test_one_frame_is_enough(method: str, short: str) -> None:
    assert chosen(method, 1, 8, short=short) == [0] * 8


# --- Options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_frames", "rate"), sorted(RELEASED_RATES.items()))
@pytest.mark.parametrize("method", ["center", "dense", "facebook"])
def test_the_released_models_rates(method: str, num_frames: int, rate: int) -> None:
    sampling = Sampling(method).resolved(num_frames)
    assert sampling == Sampling(method, rate)
    np.testing.assert_array_equal(
        Sampling(method).indices(999, num_frames), sampling.indices(999, num_frames)
    )


def test_a_rate_that_nothing_tells_is_asked_for() -> None:
    with pytest.raises(InvalidOptionError, match="center sampling needs a `frame_sampling_rate`"):
        Sampling("center").indices(100, 7)
    assert Sampling("pipeline").resolved(7).rate == 1
    assert Sampling("uniform").resolved(7) == Sampling()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "random"}, "`sampling` is 'random'; it must be one of uniform, center, dense"),
        ({"method": None}, "`sampling` is None"),
        ({"short": "loop"}, "`short` is 'loop'; it must be one of repeat_last, wrap, error"),
        ({"method": "center", "rate": 0}, "`frame_sampling_rate` is 0; it must be at least 1"),
        ({"method": "center", "rate": 2.5}, "`frame_sampling_rate` is 2.5; it must be an integer"),
        ({"method": "center", "rate": True}, "`frame_sampling_rate` is True"),
        ({"method": "center", "rate": 10**9}, "must be at most 1000000"),
        ({"rate": 4}, "`frame_sampling_rate` has no effect on uniform sampling"),
        ({"method": "segments", "rate": 4}, "no effect on segments sampling"),
        ({"method": "dense", "clips": 0}, "`clips` is 0; it must be at least 1"),
        ({"method": "dense", "clips": 10**6}, "`clips` is 1000000; it must be at most 1000"),
        ({"clips": 3}, "uniform sampling takes one clip of a video, not 3; choose .*dense"),
    ],
    ids=str,
)
def test_options_that_are_not_valid(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        Sampling(**options)


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_of_frames_that_is_not_valid(fps: float) -> None:
    with pytest.raises(InvalidOptionError, match="`fps` is"):
        Sampling("facebook", 32).indices(100, 8, fps)


def test_small_integers_of_numpy_do_not_overflow() -> None:
    small = Sampling("center", rate=np.int8(100))  # type: ignore[arg-type]
    assert small == Sampling("center", rate=100)
    assert json.loads(json.dumps(small.to_dict())) == small.to_dict()
    expected = Sampling("center", rate=100).indices(250, 8)
    found = small.indices(np.uint8(250), np.uint8(8))  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, expected)


def test_to_dict_makes_it_again() -> None:
    sampling = Sampling("dense", rate=4, clips=3, short="wrap")
    assert Sampling(**sampling.to_dict()) == sampling
