"""MP4 files that announce, in a few bytes, more packets than memory has room for."""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from timesformer_runtime.errors import InvalidVideoError, VideoLimitError
from timesformer_runtime.video import DecodeLimits, read_clip

from tests.video_files import moving_pictures, write_video

LIMITS = DecodeLimits(max_packets=100)
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}
PATH = {
    b"stsz": (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsz"),
    b"elst": (b"moov", b"trak", b"edts", b"elst"),
    b"trun": (b"moof", b"traf", b"trun"),
}


def ends(count: int) -> npt.NDArray[np.int64]:
    return np.array([0, count - 1])


def with_box(data: bytes, kind: bytes, content: bytes) -> bytes:
    """A file in which the first box of this kind has another content."""
    changed = data
    for name in PATH[kind]:
        place = data.index(name) - 4
        size = int.from_bytes(data[place : place + 4], "big")
        if name == kind:
            changed = changed[: place + 8] + content + changed[place + size :]
            difference = 8 + len(content) - size
    for name in PATH[kind]:
        place = data.index(name) - 4
        size = int.from_bytes(data[place : place + 4], "big") + difference
        changed = changed[:place] + size.to_bytes(4, "big") + changed[place + 4 :]
    return changed


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (b"stsz", struct.pack(">III", 0, 1, 50_000)),
        (b"stsz", struct.pack(">III", 0, 1, 0xFFFFFFFF)),
        (b"trun", struct.pack(">II", 0, 50_000)),
        (b"elst", struct.pack(">II", 0, 1000) + struct.pack(">IiI", 40, 0, 1 << 16) * 1000),
    ],
)
def test_announced_packets_are_counted_before_there_is_room_for_them(
    kind: bytes, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "video.mp4"
    options = FRAGMENTS if kind == b"trun" else {}
    write_video(path, moving_pictures(40), container_options=options)
    data = path.read_bytes()
    assert read_clip(path, ends, limits=LIMITS).count == 40
    path.write_bytes(with_box(data, kind, content))
    monkeypatch.setattr(av, "open", None)
    for source in (path, io.BytesIO(path.read_bytes())):
        with pytest.raises(
            VideoLimitError, match=r"more than 100 packets; .* or raise max_packets"
        ):
            read_clip(source, ends, limits=LIMITS)


def test_raw_sound_has_no_packet_for_each_sample(tmp_path: Path) -> None:
    path = tmp_path / "sound.mov"
    with av.open(str(path), "w") as output:
        pictures = output.add_stream("mpeg4", rate=25)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        sound = output.add_stream("pcm_s16le", rate=8000, layout="mono")
        for number, pixels in enumerate(moving_pictures(40)):
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, 25)
            output.mux(pictures.encode(picture))
        wave = av.AudioFrame.from_ndarray(np.zeros((1, 12800), np.int16), "s16", "mono")
        wave.sample_rate, wave.pts = 8000, 0
        output.mux(sound.encode(wave))
        for stream in (pictures, sound):
            output.mux(stream.encode(None))
    assert read_clip(path, ends, limits=LIMITS).count == 40


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
def test_boxes_of_nonsense_come_to_an_end(data: bytes, tmp_path: Path) -> None:
    source: Any = io.BytesIO(data)
    with pytest.raises(InvalidVideoError, match="cannot be opened as a video"):
        read_clip(source, ends)
