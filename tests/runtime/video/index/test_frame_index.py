"""Tests which files have an index, and that a wrong index is detected."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import numpy.typing as npt
import pytest
from timesformer_runtime.video import decoder
from timesformer_runtime.video.container import OpenVideo, open_video
from timesformer_runtime.video.decoding import decode_all
from timesformer_runtime.video.index.frame_index import Extent, FrameIndex, Scan, scan
from timesformer_runtime.video.seeking import decode_selected
from timesformer_runtime.video.source import locate

from tests.video_files import decode_plainly, moving_pictures, read_clip, write_video

FRAMES = moving_pictures(40)
GOPS_OF_10 = {"x264-params": "keyint=10:bframes=3:b-pyramid=normal:scenecut=0"}


def index_of(path: Path) -> FrameIndex | None:
    with locate(path) as video_file, open_video(video_file) as video:
        return scan(video).index


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("closed.mp4", {"options": GOPS_OF_10}),
        ("closed.mkv", {"options": GOPS_OF_10}),
        ("closed.ts", {"options": GOPS_OF_10}),
        ("variable_rate.mp4", {"options": GOPS_OF_10, "times": [i * (i + 3) for i in range(40)]}),
        ("scaling_lists.mp4", {"options": {"x264-params": "keyint=10:cqm=jvt"}}),
        ("no_reordering.mp4", {"options": {"tune": "zerolatency"}}),
        ("hevc.mp4", {"codec": "libx265", "options": {"x265-params": "log-level=none"}}),
        ("vp9.webm", {"codec": "libvpx-vp9", "options": {"g": "10"}}),
    ],
)
def test_the_packets_of_ordinary_files_tell(
    name: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    index = index_of(write_video(tmp_path / name, FRAMES, **settings))
    assert index is not None
    assert len(index.pts) == 40
    assert index.keyframes[0] == 0
    assert sorted(index.packet_of_frame) == list(range(40))
    assert np.all(np.diff(index.pts[index.packet_of_frame]) > 0)
    has_steady_rate = "times" not in settings
    assert index.can_skip_unreferenced == (settings.get("codec") is None and has_steady_rate)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("no_timestamps.h264", {"options": GOPS_OF_10}),
        ("decoding_times.avi", {"options": GOPS_OF_10}),
        ("hidden_frames.webm", {"codec": "libvpx"}),
        ("skipped_frames.mp4", {"codec": "mpeg4"}),
        # A missing packet looks like this too.
        (
            "gap.mkv",
            {
                "codec": "libx265",
                "options": {"x265-params": "log-level=none"},
                "times": [*range(20), *range(21, 41)],
            },
        ),
    ],
)
def test_files_whose_packets_do_not_tell_have_no_index(
    name: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    assert index_of(write_video(tmp_path / name, FRAMES, **settings)) is None


def test_decoding_starts_at_a_keyframe_from_which_the_frame_decodes(tmp_path: Path) -> None:
    options = {"x265-params": "keyint=10:min-keyint=10:bframes=3:open-gop=1:log-level=none"}
    path = write_video(tmp_path / "open.mp4", FRAMES, codec="libx265", options=options)
    index = index_of(path)
    assert index is not None
    for frame in range(40):
        packet = int(index.packet_of_frame[frame])
        keyframe = index.keyframe_for(packet)
        assert keyframe in index.keyframes
        assert keyframe <= packet
        assert index.pts[keyframe] <= index.pts[packet]
    # Frames before a keyframe in display order come after it in the file.
    leading = [
        p for p in range(40) if index.keyframe_for(p) != max(e for e in index.keyframes if e <= p)
    ]
    assert leading


def test_packets_are_sorted_once_for_all_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a film of two hours a sort takes longer than the decoding of a frame."""
    index = index_of(write_video(tmp_path / "video.mp4", FRAMES, options=GOPS_OF_10))
    assert index is not None
    sort = Mock(wraps=np.argsort)
    monkeypatch.setattr(np, "argsort", sort)
    for packet in range(40):
        index.keyframe_for(packet)
    assert sort.call_count == 1


def test_interlaced_frames_are_not_skipped(tmp_path: Path) -> None:
    """In an interlaced file a packet may hold only one field of a frame."""
    path = write_video(tmp_path / "fields.mp4", FRAMES, options={"x264-params": "tff=1:keyint=10"})
    expected = decode_plainly(path)
    with locate(path) as video_file, open_video(video_file) as video:
        index = scan(video).index
        assert index is not None
        assert decode_selected(video, index, [3, 25]) is None
    clip = read_clip(path, lambda _: np.array([3, 25]))
    np.testing.assert_array_equal(clip.frames, [expected[3], expected[25]])


@pytest.mark.parametrize("wanted", [(0, 39), (15,), (9, 10), tuple(range(40))])
def test_only_packets_that_the_wanted_frames_need_are_read(
    wanted: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "video.mp4", FRAMES, options=GOPS_OF_10)
    expected = decode_plainly(path)
    read = []

    packets = OpenVideo.packets

    def counted(video: OpenVideo) -> Iterator[Any]:
        for packet in packets(video):
            read.append(packet.pts)
            yield packet

    with locate(path) as video_file, open_video(video_file) as video:
        index = scan(video).index
        assert index is not None
        monkeypatch.setattr(OpenVideo, "packets", counted)
        decoded = decode_selected(video, index, wanted)
    assert decoded is not None
    assert decoded.count == 40
    assert sorted(decoded.frames) == list(wanted)
    for index_of_frame, rendered in decoded.frames.items():
        np.testing.assert_array_equal(rendered.pixels, expected[index_of_frame])
        assert rendered.seconds == pytest.approx(index_of_frame / 25)
    assert len(read) <= 10 * len({frame // 10 for frame in wanted})


def swapped(pts: npt.NDArray[np.int64], first: int, second: int) -> npt.NDArray[np.int64]:
    order = np.arange(len(pts))
    order[[first, second]] = second, first
    return pts[order]


@pytest.mark.parametrize(
    "lie",
    [
        lambda index: {"pts": index.pts + 1},
        lambda index: {"pts": swapped(index.pts, 22, 23)},
        lambda index: {"keyframes": np.arange(40)},
    ],
    ids=["other pts", "other order", "keyframes that are not"],
)
def test_a_wrong_index_is_detected(
    lie: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "video.mp4", FRAMES, options=GOPS_OF_10)
    expected = decode_plainly(path)

    def lying_scan(video: OpenVideo) -> Scan:
        index = scan(video).index
        assert index is not None
        return Scan(40, dataclasses.replace(index, **lie(index)), Extent(40, 0, 1.6))

    with locate(path) as video_file, open_video(video_file) as video:
        index = lying_scan(video).index
        assert index is not None
        assert decode_selected(video, index, [3, 25]) is None
    monkeypatch.setattr(decoder, "scan", lying_scan)
    clip = read_clip(path, lambda _: np.array([3, 25]))
    np.testing.assert_array_equal(clip.frames[0], expected[3])
    np.testing.assert_array_equal(clip.frames[1], expected[25])


def test_a_wrong_count_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "video.avi", FRAMES, options=GOPS_OF_10)
    for promised in (0, 7, 41):
        lie = Scan(promised, None, Extent(promised, None, None))
        monkeypatch.setattr(decoder, "scan", lambda _, lie=lie: lie)
        clip = read_clip(path, lambda count: np.array([count - 1]))
        assert clip.indices == (39,)
        assert clip.count == 40


def test_decoding_all_renders_only_the_wanted_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mkv", FRAMES, options=GOPS_OF_10)
    with locate(path) as video_file, open_video(video_file) as video:
        decoded = decode_all(video, {5, 99})
    assert decoded.count == 40
    assert list(decoded.frames) == [5]
