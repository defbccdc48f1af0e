"""Tests the problems of damaged files, and that intact files have none."""

import itertools
import os
import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from timesformer_runtime.input.sampling import FrameIndices
from timesformer_runtime.video.playback import play

from tests.video_files import RATE, Clip, damage, moving_pictures, read_clip, remux, write_video

FRAMES = moving_pictures(40)
NOISE = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), dtype=np.uint8)
OPTIONS = {"x264-params": "keyint=12:bframes=3:b-pyramid=normal:scenecut=0"}


def read(path: Path) -> Clip:
    def choose(count: int) -> FrameIndices:
        return np.linspace(0, count - 1, 8).astype(np.int64)

    return read_clip(path, choose)


INTACT: dict[str, dict[str, Any]] = {
    "plain.mp4": {},
    "plain.mkv": {},
    "plain.ts": {},
    "plain.flv": {},
    "plain.avi": {},
    "plain.h264": {},
    "late.mp4": {"times": range(500, 540)},
    "late.mkv": {"times": range(500, 540)},
    "slides.mp4": {"times": [i * i for i in range(40)]},
    "fragments.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"lag-in-frames": "10"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"bf": "2", "g": "12"}},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"bf": "2", "g": "12"}},
    "animation.gif": {"codec": "gif", "pixels": "rgb8"},
    "windows.asf": {"codec": "wmv2"},
}


@pytest.mark.parametrize("name", INTACT)
def test_intact_files_have_no_problems(name: str, tmp_path: Path) -> None:
    settings = {"options": OPTIONS} if "codec" not in INTACT[name] else {}
    clip = read(write_video(tmp_path / name, FRAMES, **{**settings, **INTACT[name]}))
    assert (clip.problems, clip.truncated, clip.interlaced) == ((), False, False)


@pytest.mark.parametrize("shift", [-5, -17, 30])
def test_edit_lists_are_not_a_problem(shift: int, tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", FRAMES, options=OPTIONS)
    assert read(remux(whole, tmp_path / "edited.mp4", shift=shift)).problems == ()


@pytest.mark.parametrize("name", ["long_audio.mkv", "long_audio.mp4"])
def test_audio_may_be_longer_than_the_video(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with av.open(str(path), "w") as output:
        video = output.add_stream("mpeg4", rate=25)
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        audio = output.add_stream("aac", rate=8000, layout="mono")
        for pixel_values in FRAMES[:10]:
            output.mux(video.encode(av.VideoFrame.from_ndarray(pixel_values, format="rgb24")))
        output.mux(video.encode(None))
        for number in range(40):
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            samples.sample_rate, samples.pts = 8000, number * 1024
            output.mux(audio.encode(samples))
        output.mux(audio.encode(None))
    assert read(path).problems == ()
    if name.endswith("mkv"):  # which states one duration, of the longer stream
        data = path.read_bytes()
        path.write_bytes(data[: len(data) * 9 // 10])
        assert read(path).truncated


def test_an_avi_file_that_ends_early(tmp_path: Path) -> None:
    path = write_video(tmp_path / "cut.avi", NOISE, options=OPTIONS)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    clip = read(path)
    assert clip.truncated
    assert f"it ends after {len(data) * 6 // 10} of {len(data)} bytes" in clip.problems


@pytest.mark.parametrize("name", ["cut.mkv", "cut.flv"])
def test_a_truncated_file(name: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, NOISE, options=OPTIONS)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    clip = read(path)
    assert clip.truncated
    assert any("of the 1.6" in problem for problem in clip.problems)


def test_an_mp4_whose_last_packets_are_missing(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "cut.mp4",
        NOISE,
        options=OPTIONS,
        container_options={"movflags": "faststart"},
    )
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    clip = read(path)
    assert clip.truncated
    assert any(problem.endswith("of 40 packets") for problem in clip.problems)


@pytest.mark.parametrize(("factor", "truncated"), [(100, True), (0.25, False)])
def test_a_duration_that_is_a_lie(factor: float, truncated: bool, tmp_path: Path) -> None:
    path = write_video(tmp_path / "lie.mkv", FRAMES, options=OPTIONS)
    data = bytearray(path.read_bytes())
    start = data.index(b"\x44\x89\x88") + 3  # Duration, a float of 8 bytes
    (duration,) = struct.unpack_from(">d", data, start)
    struct.pack_into(">d", data, start, duration * factor)
    path.write_bytes(data)
    clip = read(path)
    assert clip.truncated == truncated
    assert len(clip.problems) == 1
    assert f"{duration * factor / 1000:.2f} seconds" in clip.problems[0]


def test_packets_that_fail(tmp_path: Path) -> None:
    path = damage(write_video(tmp_path / "noise.mp4", NOISE, options=OPTIONS))
    clip = read(path)
    assert f"{clip.failed_packets} packets did not decode" in clip.problems
    assert not clip.truncated


def test_timestamps_that_are_not_in_order(tmp_path: Path) -> None:
    first = write_video(tmp_path / "first.ts", FRAMES, options=OPTIONS)
    again = tmp_path / "again.ts"
    again.write_bytes(first.read_bytes() * 2)
    assert read(again).problems == ("its timestamps are not in order",)


@pytest.mark.parametrize("name", ["video.mkv", "video.flv", "video.mp4"])
def test_frames_with_one_timestamp_are_not_damage(name: str, tmp_path: Path) -> None:
    """A recorder may be faster than the time base of its timestamps."""
    options = {"x264-params": "keyint=12:bframes=0"}
    path = write_video(tmp_path / name, FRAMES, options=options)
    same = remux(path, tmp_path / f"same_{name}", same_times={5, 6, 20, 39})
    with av.open(str(same)) as container:
        stamps = [packet.pts for packet in container.demux(video=0) if packet.pts is not None]
    assert sum(b == a for a, b in itertools.pairwise(stamps)) == 4
    clip = read(same)
    assert (clip.count, clip.problems) == (40, ())
    with play(same) as video:
        times = [frame.seconds for frame in video.frames()]
        assert video.problems() == ()
    assert times == sorted(times)
    assert times[6] == times[4] < times[7] == pytest.approx(7 / RATE, abs=1e-3)


@pytest.mark.parametrize("name", ["video.mkv", "video.mp4"])
def test_ten_thousand_frames_a_second_are_not_damage(name: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, FRAMES, options=OPTIONS, rate=10_000)
    clip = read(path)
    assert (clip.count, clip.problems) == (40, ())
    with play(path) as video:
        assert [frame.seconds for frame in video.frames()] == pytest.approx(
            [number / 10_000 for number in range(40)], abs=0.0006
        )
        assert video.problems() == ()


def test_sizes_that_change(tmp_path: Path) -> None:
    first = write_video(tmp_path / "first.ts", FRAMES, options=OPTIONS)
    small = moving_pictures(20, 32, 48)
    second = write_video(tmp_path / "second.ts", small, options=OPTIONS, times=range(50, 70))
    both = tmp_path / "both.ts"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    assert "its frames change their size" in read(both).problems


def test_interlaced_frames_are_marked(tmp_path: Path) -> None:
    fields = {"x264-params": "tff=1:keyint=12"}
    clip = read(write_video(tmp_path / "fields.mp4", FRAMES, options=fields))
    assert (clip.interlaced, clip.problems) == (True, ())


ODD_CLIPS = {
    "400x300-red-resize-200x150-green.webm",  # changes its size
    "corrupted.mp4",
    "h264-png.mkv",  # timestamps out of order
    "no_timescale.mp4",  # broken
    "test-025.ts",  # begins in the middle of a broadcast
    "v300_multiple_segments.mp4",  # 8 of 3900 seconds
}
CLIPS = Path(os.environ.get("TIMESFORMER_TEST_CLIPS", ""))
CLIP_FILES = sorted(CLIPS.iterdir()) if "TIMESFORMER_TEST_CLIPS" in os.environ else []


@pytest.mark.parametrize("path", CLIP_FILES, ids=lambda path: path.name)
def test_only_the_odd_clips_have_problems(path: Path) -> None:
    try:
        clip = read(path)
    except ValueError:
        return
    assert bool(clip.problems) == (path.name in ODD_CLIPS)
    assert clip.truncated == (path.name == "v300_multiple_segments.mp4")
    assert clip.interlaced == (path.name == "test-025.ts")
