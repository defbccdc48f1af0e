"""When the packets of a file tell which frames they give; nothing is believed too easily."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from timesformer_runtime.video import decoder
from timesformer_runtime.video.container import OpenVideo, open_video
from timesformer_runtime.video.decoding import decode_all
from timesformer_runtime.video.frame_index import Extent, FrameIndex, Scan, scan
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
    assert len(index.times) == 40
    assert index.entries[0] == 0
    assert sorted(index.packet_of_frame) == list(range(40))
    assert np.all(np.diff(index.times[index.packet_of_frame]) > 0)
    has_steady_rate = "times" not in settings
    assert index.skips_unreferenced == (settings.get("codec") is None and has_steady_rate)


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
def test_where_they_do_not_there_is_no_index(
    name: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    assert index_of(write_video(tmp_path / name, FRAMES, **settings)) is None


def test_decoding_starts_at_an_entry_that_the_frame_can_be_decoded_from(tmp_path: Path) -> None:
    options = {"x265-params": "keyint=10:min-keyint=10:bframes=3:open-gop=1:log-level=none"}
    path = write_video(tmp_path / "open.mp4", FRAMES, codec="libx265", options=options)
    index = index_of(path)
    assert index is not None
    for frame in range(40):
        packet = int(index.packet_of_frame[frame])
        entry = index.entry_for(packet)
        assert entry in index.entries
        assert entry <= packet
        assert index.times[entry] <= index.times[packet]
    # Frames before a keyframe in display order come after it in the file.
    leading = [
        p for p in range(40) if index.entry_for(p) != max(e for e in index.entries if e <= p)
    ]
    assert leading


def test_interlaced_pictures_are_not_left_out(tmp_path: Path) -> None:
    """A packet may then hold one field of two, so that packets do not count frames."""
    path = write_video(tmp_path / "fields.mp4", FRAMES, options={"x264-params": "tff=1:keyint=10"})
    expected = decode_plainly(path)
    with locate(path) as video_file, open_video(video_file) as video:
        index = scan(video).index
        assert index is not None
        assert decode_selected(video, index, [3, 25]) is None
    clip = read_clip(path, lambda _: np.array([3, 25]))
    np.testing.assert_array_equal(clip.frames, [expected[3], expected[25]])


@pytest.mark.parametrize("wanted", [(0, 39), (15,), (9, 10), tuple(range(40))])
def test_only_what_the_wanted_frames_need_is_read(
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
    assert sorted(decoded.pictures) == list(wanted)
    for frame, picture in decoded.pictures.items():
        np.testing.assert_array_equal(picture.pixels, expected[frame])
        assert picture.seconds == pytest.approx(frame / 25)
    assert len(read) <= 10 * len({frame // 10 for frame in wanted})


def swapped(times: npt.NDArray[np.int64], first: int, second: int) -> npt.NDArray[np.int64]:
    order = np.arange(len(times))
    order[[first, second]] = second, first
    return times[order]


@pytest.mark.parametrize(
    "lie",
    [
        lambda index: {"times": index.times + 1},
        lambda index: {"times": swapped(index.times, 22, 23)},
        lambda index: {"entries": np.arange(40)},
    ],
    ids=["other times", "other order", "entries that are none"],
)
def test_an_index_that_is_wrong_is_found_out(
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


def test_a_count_that_is_wrong_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "video.avi", FRAMES, options=GOPS_OF_10)
    for promised in (0, 7, 41):
        lie = Scan(promised, None, Extent(promised, None, None))
        monkeypatch.setattr(decoder, "scan", lambda _, lie=lie: lie)
        clip = read_clip(path, lambda count: np.array([count - 1]))
        assert clip.indices == (39,)
        assert clip.count == 40


def test_decoding_all_keeps_only_what_is_wanted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mkv", FRAMES, options=GOPS_OF_10)
    with locate(path) as video_file, open_video(video_file) as video:
        decoded = decode_all(video, {5, 99})
    assert decoded.count == 40
    assert list(decoded.pictures) == [5]
