"""Tests that MP4 files cannot announce, in a few bytes, more packets than memory has room for."""

from __future__ import annotations

import io
import struct
import tracemalloc
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
SAMPLES = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
PATH = {
    **{kind: (*SAMPLES, kind) for kind in (b"stsz", b"stsc", b"stts")},
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


def for_any_number(data: bytes) -> bytes:
    """A file whose other tables hold for any number of samples, and without its edits."""
    data = with_box(data, b"stsc", struct.pack(">IIIII", 0, 1, 1, (1 << 31) - 1, 1))
    data = with_box(data, b"stts", struct.pack(">IIII", 0, 1, (1 << 31) - 1, 512))
    return data.replace(b"elst", b"free")


def with_child(data: bytes, path: tuple[bytes, ...], child: bytes) -> bytes:
    """Adds a box at the end of the first box on this path."""
    end = len(data)
    for name in reversed(path):
        offset = data.index(name) - 4
        size = int.from_bytes(data[offset : offset + 4], "big")
        end = min(end, offset + size)
        data = data[:offset] + struct.pack(">I", size + len(child)) + data[offset + 4 :]
    return data[:end] + child + data[end:]


def write_tracks(path: Path, frames: npt.NDArray[np.uint8], tracks: int) -> Path:
    """A file of fragments with so many tracks; only the first has all frames."""
    plain = write_video(
        path.with_name("plain.mp4"), frames, options={"x264-params": "keyint=10:qp=1"}
    )
    flags = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}  # nothing moves the data
    with av.open(str(plain)) as given, av.open(str(path), "w", options=flags) as output:
        source = given.streams.video[0]
        copies = [output.add_stream_from_template(source) for _ in range(tracks)]
        for index, packet in enumerate(packet for packet in given.demux(source) if packet.size):
            for copy in copies[: 1 if index else None]:
                made = av.Packet(bytes(packet))
                made.pts, made.dts, made.time_base = packet.pts, packet.dts, packet.time_base
                made.is_keyframe, made.stream = packet.is_keyframe, copy
                output.mux(made)
    return path


def fragment(tracks: int, samples: int) -> bytes:
    """A fragment that announces so many samples of each track."""
    run = box(b"trun", struct.pack(">II", 0, samples))
    heads = (  # each sample lasts 512 ticks and has 1000 bytes
        box(b"tfhd", struct.pack(">IIII", 0x020018, number, 512, 1000))
        for number in range(1, tracks + 1)
    )
    parts = b"".join(box(b"traf", head + run) for head in heads)
    return box(b"moof", box(b"mfhd", struct.pack(">II", 0, 1)) + parts)


def with_fragment(data: bytes, made: bytes) -> bytes:
    """A file of fragments that begins with another one."""
    first = data.index(b"moof") - 4
    return data[:first] + made + data[first:]


def with_listed_fragment(data: bytes, made: bytes, *, version: int = 0, inside: int = 16) -> bytes:
    """A file of fragments with an index that lists all of them as one, and another one behind.

    Args:
        data: The file.
        made: The other fragment; it lies in a box that is left out.
        version: Of the index.
        inside: How far behind the beginning of that box the index says that it begins.
    """
    first = data.index(b"moof") - 4
    hidden = box(b"free", bytes(8) + made)
    times = struct.pack(">QQ" if version else ">II", 0, 0)
    lengths = (len(data) - first + inside, len(hidden) - inside)
    rows = b"".join(struct.pack(">III", length, 10_000, 0) for length in lengths)
    fields = struct.pack(">III", version << 24, 1, 12800) + times + struct.pack(">HH", 0, 2)
    return data[:first] + box(b"sidx", fields + rows) + data[first:] + hidden


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
            VideoLimitError, match=r"more than 100 packets; .* or raise `max_packets`"
        ):
            read_clip(source, first_and_last, limits=LIMITS)


def test_fragments_of_many_tracks_are_counted_together(tmp_path: Path) -> None:
    """FFmpeg 9 compares with the size of the file, for each track on its own."""
    path = write_tracks(tmp_path / "video.mp4", moving_pictures(40), 10)
    data = path.read_bytes()
    assert read_clip(path, first_and_last, limits=LIMITS).count == 40
    path.write_bytes(with_fragment(data, fragment(10, 90)))
    with pytest.raises(VideoLimitError, match="has more than 100 packets"):
        read_clip(path, first_and_last, limits=LIMITS)


def test_many_tracks_take_no_memory_of_the_guard() -> None:
    track = box(b"trak", box(b"stsz", bytes(12)))
    source = io.BytesIO(box(b"ftyp", b"qt  \0\0\0\0") + box(b"moov", track * 20_000))
    tracemalloc.start()
    try:
        with locate(source):
            _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("version", [0, 1])
def test_fragments_to_which_an_index_leads_are_counted(version: int, tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    write_video(path, moving_pictures(40), container_options=FRAGMENTS)
    data = path.read_bytes()
    made = fragment(1, 50_000)
    for inside in (0, 16):
        path.write_bytes(with_listed_fragment(data, made, version=version, inside=inside))
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
