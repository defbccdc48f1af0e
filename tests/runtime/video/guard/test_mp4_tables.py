"""Tests that MP4 files cannot announce, in a few bytes, more packets than memory has room for."""

from __future__ import annotations

import io
import struct
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from timesformer_runtime.errors import InvalidVideoError, VideoLimitError
from timesformer_runtime.video import DecodeLimits
from timesformer_runtime.video.source import locate

from tests.video_files import moving_pictures, read_clip, write_video

LIMITS = DecodeLimits(max_packets=100)
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}
PATH = {
    b"stsz": (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsz"),
    b"elst": (b"moov", b"trak", b"edts", b"elst"),
    b"trun": (b"moof", b"traf", b"trun"),
}


def first_and_last(count: int) -> npt.NDArray[np.int64]:
    return np.array([0, count - 1])


def with_box(data: bytes, kind: bytes, content: bytes) -> bytes:
    """Gives the first box of this kind another content."""
    changed = data
    for name in PATH[kind]:
        offset = data.index(name) - 4
        size = int.from_bytes(data[offset : offset + 4], "big")
        if name == kind:
            changed = changed[: offset + 8] + content + changed[offset + size :]
            difference = 8 + len(content) - size
    for name in PATH[kind]:
        offset = data.index(name) - 4
        size = int.from_bytes(data[offset : offset + 4], "big") + difference
        changed = changed[:offset] + size.to_bytes(4, "big") + changed[offset + 4 :]
    return changed


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def with_child(data: bytes, path: tuple[bytes, ...], child: bytes) -> bytes:
    """Adds a box at the end of the first box on this path."""
    end = len(data)
    for name in reversed(path):
        offset = data.index(name) - 4
        size = int.from_bytes(data[offset : offset + 4], "big")
        end = min(end, offset + size)
        data = data[:offset] + struct.pack(">I", size + len(child)) + data[offset + 4 :]
    return data[:end] + child + data[end:]


MANY = box(b"stsz", struct.pack(">III", 0, 1, 50_000))
MANY_COMPACT = box(b"stz2", struct.pack(">III", 0, 8, 50_000) + bytes(50_000))
HANDLER = box(b"hdlr", bytes(8) + b"mdir" + bytes(12))
HEADER = box(b"mvhd", bytes(100)) + box(b"trak", MANY)
DATA = zlib.compress(HEADER)
COMPRESSED = box(
    b"cmov",
    box(b"dcom", b"zlib") + box(b"cmvd", struct.pack(">I", len(HEADER)) + DATA),
)


@pytest.mark.parametrize(
    "child",
    [
        MANY_COMPACT,
        *(box(kind, MANY) for kind in (b"tref", b"dinf", b"udta", b"wave", b"ilst", b"mvex")),
        box(b"sinf", box(b"schi", MANY)),
        box(b"meta", bytes(4) + HANDLER + MANY),
        box(b"meta", bytes(4) + HANDLER + box(b"minf", box(b"stbl", MANY))),
        box(b"stsd", struct.pack(">II", 0, 1) + box(b"mp4v", bytes(78) + MANY)),
        box(b"iprp", box(b"ipco", MANY) + box(b"ipma", bytes(8))),
        box(b"udta", box(b"moov", box(b"trak", MANY))),
        box(b"udta", box(b"hoov", HEADER)),
        box(b"udta", box(b"moov", COMPRESSED)),
        box(b"meta", bytes(4) + HANDLER + b"\0\0\0\0" + MANY[4:]),
    ],
)
def test_tables_are_counted_wherever_they_are(child: bytes, tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    write_video(path, moving_pictures(40))
    data = path.read_bytes()
    path.write_bytes(with_child(data, (b"moov", b"trak"), child))
    with pytest.raises(VideoLimitError, match="has more than 100 packets"):
        read_clip(path, first_and_last, limits=LIMITS)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (box(b"hoov", HEADER), "has more than 100 packets"),
        (box(b"free", HEADER), "has more than 100 packets"),
        (box(b"moov", COMPRESSED), "has more than 100 packets"),
        (box(b"moov", COMPRESSED[:28] + b"\xff" * 4 + DATA), "a compressed header of 4294967295"),
        (box(b"moov", COMPRESSED[:32] + b"nonsense"), "cannot be opened as a video"),
        (box(b"free", b"") * 2000, "has more than 1600 boxes"),
    ],
)
def test_other_headers(header: bytes, message: str) -> None:
    source = io.BytesIO(box(b"ftyp", b"qt  \0\0\0\0") + header)
    with pytest.raises(InvalidVideoError, match=message):
        read_clip(source, first_and_last, limits=LIMITS)


def test_edits_are_counted_by_the_size_of_their_list(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    write_video(path, moving_pictures(40))
    data = path.read_bytes()
    edit = struct.pack(">IiI", 40, 0, 1 << 16)
    path.write_bytes(with_box(data, b"elst", struct.pack(">II", 0, 1) + edit * 100))
    with pytest.raises(VideoLimitError, match=r"its packets may become 4000, more than 16 times"):
        read_clip(path, first_and_last, limits=LIMITS)
    path.write_bytes(with_box(data, b"elst", struct.pack(">II", 0, 39) + edit * 39))
    with locate(path, LIMITS) as video_file:
        assert video_file.size() > 0


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (b"stsz", struct.pack(">III", 0, 1, 50_000)),
        (b"stsz", struct.pack(">III", 0, 1, 0xFFFFFFFF)),
        (b"trun", struct.pack(">II", 0, 50_000)),
    ],
)
def test_announced_packets_are_counted_before_there_is_room_for_them(
    kind: bytes, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "video.mp4"
    options = FRAGMENTS if kind == b"trun" else {}
    write_video(path, moving_pictures(40), container_options=options)
    data = path.read_bytes()
    assert read_clip(path, first_and_last, limits=LIMITS).count == 40
    path.write_bytes(with_box(data, kind, content))
    monkeypatch.setattr(av, "open", None)
    for source in (path, io.BytesIO(path.read_bytes())):
        with pytest.raises(
            VideoLimitError, match=r"more than 100 packets; .* or raise max_packets"
        ):
            read_clip(source, first_and_last, limits=LIMITS)


@pytest.mark.parametrize("version", [0, 1])
def test_fragments_to_which_an_index_leads_are_counted(version: int, tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    write_video(path, moving_pictures(40), container_options=FRAGMENTS)
    data = path.read_bytes()
    first = data.index(b"moof") - 4
    trun = box(b"trun", struct.pack(">II", 0, 50_000))
    hidden = box(b"free", bytes(8) + box(b"moof", box(b"traf", trun)))
    times = struct.pack(">QQ" if version else ">II", 0, 0)
    for inside in (0, 16):  # how far behind the beginning of a box the second fragment begins
        lengths = (len(data) - first + inside, len(hidden) - inside)
        rows = b"".join(struct.pack(">III", length, 10_000, 0) for length in lengths)
        fields = struct.pack(">III", version << 24, 1, 12800) + times + struct.pack(">HH", 0, 2)
        path.write_bytes(data[:first] + box(b"sidx", fields + rows) + data[first:] + hidden)
        if not inside:
            with locate(path, LIMITS) as video_file:
                assert video_file.size() == path.stat().st_size
            continue
        with pytest.raises(VideoLimitError, match="has more than 100 packets"):
            read_clip(path, first_and_last, limits=LIMITS)


def test_uncompressed_audio_does_not_have_a_packet_for_each_sample(tmp_path: Path) -> None:
    path = tmp_path / "audio.mov"
    with av.open(str(path), "w") as output:
        video = output.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = output.add_stream("pcm_s16le", rate=8000, layout="mono")
        for number, pixels in enumerate(moving_pictures(40)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(video.encode(frame))
        wave = av.AudioFrame.from_ndarray(np.zeros((1, 12800), np.int16), "s16", "mono")
        wave.sample_rate, wave.pts = 8000, 0
        output.mux(audio.encode(wave))
        for stream in (video, audio):
            output.mux(stream.encode(None))
    assert read_clip(path, first_and_last, limits=LIMITS).count == 40
    data = path.read_bytes()
    offset = data.rindex(b"stsc")  # its first chunks now have 2 ** 31 samples each
    path.write_bytes(data[: offset + 16] + b"\x80" + data[offset + 17 :])
    with pytest.raises(VideoLimitError, match="has more than 100 packets"):
        read_clip(path, first_and_last, limits=LIMITS)


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0\0\0moov" * 3000,  # each goes on to the end of the file
        b"".join(struct.pack(">I4s", 8 * depth, b"moov") for depth in range(3000, 0, -1)),
        struct.pack(">I4sQ", 1, b"moov", 1 << 63) + b"trak",
        struct.pack(">I4sQ", 1, b"moov", 3) + b"trak",
        struct.pack(">I4s", 12, b"trun"),
        struct.pack(">I4s", 8, b"stsz"),
        b"\0\0\0\7free",
    ],
)
def test_the_search_in_nonsense_boxes_ends(data: bytes, tmp_path: Path) -> None:
    source: Any = io.BytesIO(data)
    with pytest.raises(InvalidVideoError, match="cannot be opened as a video"):
        read_clip(source, first_and_last)
