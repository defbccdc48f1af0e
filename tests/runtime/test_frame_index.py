"""When the packets of a file tell which frames they give; nothing is believed too easily."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from timesformer_runtime.video import clip as clip_module
from timesformer_runtime.video import sample_table
from timesformer_runtime.video.container import OpenVideo
from timesformer_runtime.video.decoding import decode_all
from timesformer_runtime.video.frame_index import Extent, FrameIndex, Scan, scan
from timesformer_runtime.video.h264 import HeaderReader, UnusualStreamError
from timesformer_runtime.video.h264_order import HEAD_BYTES, display_order, read_heads
from timesformer_runtime.video.sample_table import find_table, scan_table
from timesformer_runtime.video.seeking import decode_selected
from timesformer_runtime.video.source import locate

from tests.video_files import decode_plainly, moving_pictures, write_video

FRAMES = moving_pictures(40)
GOPS_OF_10 = {"x264-params": "keyint=10:bframes=3:b-pyramid=normal:scenecut=0"}


def index_of(path: Path) -> FrameIndex | None:
    with locate(path) as media, media.open() as video:
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
    assert len(index.stamps) == 40
    assert index.entries[0] == 0
    assert sorted(index.packet_of_frame) == list(range(40))
    assert np.all(np.diff(index.stamps[index.packet_of_frame]) > 0)
    assert index.skips_unreferenced == (settings.get("codec") is None)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("fields.mp4", {"options": {"x264-params": "tff=1"}}),
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
        assert index.stamps[entry] <= index.stamps[packet]
    # Frames before a keyframe in display order come after it in the file.
    leading = [
        p for p in range(40) if index.entry_for(p) != max(e for e in index.entries if e <= p)
    ]
    assert leading


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

    with locate(path) as media, media.open() as video:
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
        lambda index: {"stamps": index.stamps + 1},
        lambda index: {"stamps": swapped(index.stamps, 22, 23)},
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

    with locate(path) as media, media.open() as video:
        index = lying_scan(video).index
        assert index is not None
        assert decode_selected(video, index, [3, 25]) is None
    monkeypatch.setattr(clip_module, "scan", lying_scan)
    clip = clip_module.read_clip(path, lambda _: np.array([3, 25]))
    np.testing.assert_array_equal(clip.frames[0], expected[3])
    np.testing.assert_array_equal(clip.frames[1], expected[25])


def test_a_count_that_is_wrong_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "video.avi", FRAMES, options=GOPS_OF_10)
    for promised in (0, 7, 41):
        lie = Scan(promised, None, Extent(promised, None, None))
        monkeypatch.setattr(clip_module, "scan", lambda _, lie=lie: lie)
        clip = clip_module.read_clip(path, lambda count: np.array([count - 1]))
        assert clip.indices == (39,)
        assert clip.count == 40


def test_decoding_all_keeps_only_what_is_wanted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mkv", FRAMES, options=GOPS_OF_10)
    with locate(path) as media, media.open() as video:
        decoded = decode_all(video, {5, 99})
    assert decoded.count == 40
    assert list(decoded.pictures) == [5]


# The table of an MP4 file


TABLES: dict[str, dict[str, Any]] = {
    "b_frames.mp4": {"options": GOPS_OF_10},
    "b_frames.mov": {"options": GOPS_OF_10},
    "late.mp4": {"options": GOPS_OF_10, "times": range(500, 540)},
    "variable_rate.mp4": {"options": GOPS_OF_10, "times": [i * (i + 3) for i in range(40)]},
    "slices.mp4": {"options": {"x264-params": "slices=3:keyint=12"}},
    "no_reordering.mp4": {"options": {"tune": "zerolatency"}},
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_tells_what_the_packets_tell(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_table, "_SHORT", 1)
    path = write_video(tmp_path / name, FRAMES, **TABLES[name])
    expected = decode_plainly(path)
    with locate(path) as media, media.open() as video:
        found = scan(video)
        table = find_table(media, video)
    assert found.index is not None
    assert table is not None
    with locate(path) as media, media.open() as video:
        by_table = scan_table(media, video, table)
        assert by_table.index is not None
        decoded = decode_selected(video, by_table.index, range(0, 40, 3))
    assert by_table.packets == found.packets == 40
    for field in ("packet_of_frame", "entries", "start"):
        np.testing.assert_array_equal(
            getattr(by_table.index, field), getattr(found.index, field), err_msg=field
        )
    assert decoded is not None
    for frame, picture in decoded.pictures.items():
        np.testing.assert_array_equal(picture.pixels, expected[frame])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        (
            "fragments.mp4",
            {
                "options": GOPS_OF_10,
                "container_options": {"movflags": "frag_keyframe+empty_moov"},
            },
        ),
        (
            "fragments_after.mp4",
            {"options": GOPS_OF_10, "container_options": {"movflags": "frag_keyframe"}},
        ),
        ("matroska.mkv", {}),
        ("mpeg4.mp4", {"codec": "mpeg4"}),
    ],
)
def test_where_there_is_no_whole_table_none_is_used(
    name: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_table, "_SHORT", 1)
    path = write_video(tmp_path / name, FRAMES, **settings)
    with locate(path) as media, media.open() as video:
        table = find_table(media, video)
        index = None if table is None else scan_table(media, video, table).index
    assert index is None


def test_a_table_of_packets_that_overlap_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading them would take far more than the file has: a small file could ask for terabytes."""
    monkeypatch.setattr(sample_table, "_SHORT", 1)
    data = write_video(tmp_path / "video.mp4", FRAMES, options=GOPS_OF_10).read_bytes()
    lying = tmp_path / "lying.mp4"
    lying.write_bytes(with_all_packets_in_one_place(data, 40))
    with locate(lying) as media, media.open() as video:
        assert len({entry.pos for entry in video.stream.index_entries}) == 1
        assert find_table(media, video) is None


def with_all_packets_in_one_place(data: bytes, count: int) -> bytes:
    """An MP4 file of one chunk in which every packet is the first one, as the table tells it."""
    chunks, per_chunk = data.index(b"stco"), data.index(b"stsc")
    place = data[chunks + 12 : chunks + 16]
    assert data[chunks + 4 : chunks + 12] == bytes(7) + b"\1"
    changed = bytearray(data[: chunks + 8] + count.to_bytes(4, "big") + place * count)
    changed += data[chunks + 16 :]
    changed[per_chunk + 16 : per_chunk + 20] = (1).to_bytes(4, "big")
    sizes = data.index(b"stsz") + 16
    changed[sizes : sizes + 4 * count] = data[sizes : sizes + 4] * count
    for name in (b"stco", b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        box = data.index(name) - 4
        size = int.from_bytes(data[box : box + 4], "big") + 4 * (count - 1)
        changed[box : box + 4] = size.to_bytes(4, "big")
    return bytes(changed)


def test_no_large_packet_is_read_for_its_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_table, "_SHORT", 1)
    path = write_video(tmp_path / "video.mp4", FRAMES, options=GOPS_OF_10)
    with locate(path) as media, media.open() as video:
        table = find_table(media, video)
        assert table is not None
    largest = int(table[0, 1])  # with the encoder's remarks before the picture
    for limit, is_indexed in ((largest, True), (largest - 1, False)):
        monkeypatch.setattr(sample_table, "_LARGEST", limit)
        with locate(path) as media, media.open() as video:
            assert (scan_table(media, video, table).index is not None) == is_indexed


def test_a_table_that_is_wrong_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table then says nothing, and the packets are read."""
    monkeypatch.setattr(sample_table, "_SHORT", 1)
    path = write_video(tmp_path / "video.mp4", FRAMES, options=GOPS_OF_10)
    expected = decode_plainly(path)
    right = sample_table.find_table

    def wrong(*opened: Any) -> Any:
        table = right(*opened)
        assert table is not None
        return table[:-1]

    monkeypatch.setattr(clip_module, "find_table", wrong)
    clip = clip_module.read_clip(path, lambda count: np.array([0, count - 1]))
    assert clip.count == 40
    np.testing.assert_array_equal(clip.frames[1], expected[39])


# H.264 headers


def h264_packets(path: Path) -> tuple[bytes, list[bytes]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        found = [bytes(packet) for packet in container.demux(stream) if packet.size]
        return stream.codec_context.extradata or b"", found


@pytest.mark.parametrize("name", ["lengths.mp4", "start_codes.ts", "start_codes.h264"])
def test_headers_tell_the_order_of_pictures(name: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, FRAMES, options=GOPS_OF_10)
    extradata, found = h264_packets(path)
    reader = HeaderReader(extradata)
    pictures = [reader.read(packet) for packet in found]
    assert [picture.is_idr for picture in pictures] == [i % 10 == 0 for i in range(40)]
    order = display_order(np.array(pictures, dtype=np.int64)).tolist()
    assert order != sorted(order)
    assert len(set(order)) == 40
    # In display order each picture looks as it was drawn: the packets' timestamps agree.
    with av.open(str(write_video(tmp_path / "same.mp4", FRAMES, options=GOPS_OF_10))) as container:
        times = [packet.pts for packet in container.demux(video=0) if packet.size]
    assert np.argsort(order).tolist() == np.argsort(np.array(times)).tolist()


def test_a_long_group_of_pictures_wraps_its_counters(tmp_path: Path) -> None:
    frames = moving_pictures(600, 16, 16)
    options = {"x264-params": "keyint=600:scenecut=0:bframes=2", "preset": "ultrafast"}
    extradata, found = h264_packets(write_video(tmp_path / "long.mp4", frames, options=options))
    reader = HeaderReader(extradata)
    order = display_order(np.array([reader.read(packet) for packet in found], dtype=np.int64))
    assert len(set(order.tolist())) == 600
    assert np.abs(np.argsort(order) - np.arange(600)).max() < 5


def test_unusual_headers_are_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", FRAMES, options=GOPS_OF_10)
    extradata, found = h264_packets(path)
    references = [packet for packet in found if packet[4] & 0x60]
    assert len(references) < len(found)
    broken = {
        "a picture is missing": [found[0], references[2]],
        "several pictures in a packet": [found[0] + found[1]],
        "no picture in a packet": [b""],
        "length does not fit its packet": [found[0][:-1]],
        "does not fit its packet": [bytes(20)],
        "damage": [found[0][:4] + b"\xff" + found[0][5:]],
    }
    for reason, stream in broken.items():
        reader = HeaderReader(extradata)
        with pytest.raises(UnusualStreamError, match=reason):
            display_order(np.array([reader.read(packet) for packet in stream], dtype=np.int64))


def test_parameters_that_change_are_refused(tmp_path: Path) -> None:
    small, large = (
        write_video(tmp_path / name, FRAMES, options={"x264-params": parameters})
        for name, parameters in (("one.h264", "keyint=250"), ("other.h264", "keyint=250:bframes=0"))
    )
    extradata, _ = h264_packets(small)
    reader = HeaderReader(extradata)
    _, other = h264_packets(large)
    with pytest.raises(UnusualStreamError, match="parameters that change"):
        reader.read(other[0])


@pytest.mark.parametrize("preset", ["ultrafast", "medium", "placebo"])
def test_headers_that_are_read_together_are_the_same(preset: str, tmp_path: Path) -> None:
    frames = moving_pictures(200, 32, 32)
    options = {"preset": preset, "x264-params": "keyint=60:repeat-headers=1"}
    extradata, found = h264_packets(write_video(tmp_path / "a.mp4", frames, options=options))
    heads, sizes = [packet[:HEAD_BYTES] for packet in found], [len(packet) for packet in found]
    reader = HeaderReader(extradata)
    pictures, is_read = read_heads(reader, heads, sizes)
    assert np.count_nonzero(is_read) >= 100
    for packet, picture, read in zip(found, pictures, is_read, strict=True):
        if read:
            assert tuple(picture) == reader.read(packet)


def test_headers_of_noise_are_read_like_one_by_one(tmp_path: Path) -> None:
    extradata, found = h264_packets(
        write_video(tmp_path / "a.mp4", FRAMES, options={"x264-params": "keyint=60"})
    )
    reader = HeaderReader(extradata)
    random = np.random.default_rng(0)
    noisy: list[bytes] = []
    for _ in range(2000):
        copy = bytearray(found[int(random.integers(1, len(found)))])
        for _ in range(3):
            copy[int(random.integers(4, min(len(copy), 20)))] = int(random.choice([0, 0, 3, 99]))
        noisy.append(bytes(copy))
    heads, sizes = [packet[:HEAD_BYTES] for packet in noisy], [len(packet) for packet in noisy]
    pictures, is_read = read_heads(reader, heads, sizes)
    assert 100 < np.count_nonzero(is_read) < 1900
    for packet, picture, read in zip(noisy, pictures, is_read, strict=True):
        if read:
            assert tuple(picture) == reader.read(packet)


def test_missing_parameter_sets_are_refused(tmp_path: Path) -> None:
    _, found = h264_packets(write_video(tmp_path / "video.mp4", FRAMES, options=GOPS_OF_10))
    with pytest.raises(UnusualStreamError, match="decoder configuration"):
        HeaderReader(b"\1abc")
    empty = HeaderReader(b"\1\x64\0\x1f\xff\xe0\0")
    with pytest.raises(UnusualStreamError, match="parameter sets"):
        empty.read(found[0])


def test_noise_is_refused_or_read_but_never_anything_else(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", FRAMES, options=GOPS_OF_10)
    extradata, found = h264_packets(path)
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(500):
        record, packet = bytearray(extradata), bytearray(found[0])
        target = record if random.integers(2) else packet
        position = int(random.integers(len(target)))
        target[position : position + 9] = random.bytes(9)
        try:
            HeaderReader(bytes(record)).read(bytes(packet))
        except UnusualStreamError:
            refused += 1
    assert refused > 50
