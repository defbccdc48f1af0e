"""Tests that many NAL units or OBUs in a packet take no memory: FFmpeg takes kilobytes for each."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from timesformer_runtime.errors import VideoLimitError
from timesformer_runtime.input.sampling import FrameIndices
from timesformer_runtime.video.guard import nal_units
from timesformer_runtime.video.playback import play

from tests.patience import PATIENCE
from tests.runtime.video.guard.test_mp4_tables import box, with_child
from tests.video_files import RATE, decode_plainly, moving_pictures, read_clip, write_video

NAL_UNIT_COUNT = 60_000
OBU_COUNT = 300_000
MEGABYTES = 300
NAL_UNIT = {
    "libx264": b"\0\0\1\x0c",
    "libx265": b"\0\0\1\x50\x01",
}  # filler; a delimiter of a layer
QUIET = {"libx264": {}, "libx265": {"x265-params": "log-level=none:pools=1:frame-threads=1"}}

# The file's name with its container, the encoder, and the number of the packet with NAL units.
BOMBS = [
    ("raw.h264", "libx264", 0),
    ("raw.hevc", "libx265", 0),
    ("first.mp4", "libx264", 0),
    ("later.mp4", "libx264", 9),
    ("first.mkv", "libx264", 0),
    ("later.ts", "libx264", 9),
    ("first.avi", "libx264", 0),
    ("later.avi", "libx264", 9),
    ("hevc_first.mp4", "libx265", 0),
    ("hevc_later.mp4", "libx265", 9),
    ("hevc_later.ts", "libx265", 9),
    ("vvc_first.mp4", "libx265", 0),
    ("vvc_later.mp4", "libx265", 9),
    ("by_lengths_later.mp4", "libx264", 9),
    ("by_lengths_first.mp4", "libx265", 0),
    ("by_lengths_later.mkv", "libx265", 9),
]

# Files of real VVC, and the number of the packet with NAL units.
VVC_BOMBS = [("vvc_first.ts", 0), ("vvc_later.ts", 9), ("vvc_by_lengths.mp4", 9)]

READ = r"""
import re, sys
from timesformer_runtime.errors import InvalidVideoError
from timesformer_runtime.video import VideoDecoder

for path in sys.argv[1:]:
    try:
        with VideoDecoder(path) as video:
            video.frames([len(video) - 1])
    except InvalidVideoError as error:
        print(error)
    else:
        print(path, "was read")
# Not ru_maxrss, in which the process that started this one counts too.
print(int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) // 1024)
"""


# AV1 in the containers that have a parser for it, and the number of the packet with OBUs.
AV1_BOMBS = [
    ("first.mp4", 0),
    ("later.mkv", 9),
    ("first.avi", 0),
    ("later.ivf", 9),
    ("first.flv", 0),
    ("late_stream.flv", 9),
]


def evenly(count: int) -> FrameIndices:
    return np.linspace(0, count - 1, 8).astype(np.int64)


def write_bomb(path: Path, codec: str, number: int, count: int = NAL_UNIT_COUNT) -> Path:
    """Writes a file in which the packet of this number has far too many NAL units."""
    nal_unit = NAL_UNIT[codec]
    if path.suffix in {".h264", ".hevc"}:
        write_video(path, moving_pictures(16), codec=codec, options=QUIET[codec])
        path.write_bytes(path.read_bytes() + nal_unit * count)
        return path
    plain = path.with_name(f"plain_{path.stem}.mp4")
    if path.suffix in {".ts", ".avi"}:  # whose packets have start codes
        plain = plain.with_suffix(".h264" if codec == "libx264" else ".hevc")
    write_video(plain, moving_pictures(16), codec=codec, options=QUIET[codec])
    with av.open(str(plain)) as given, av.open(str(path), "w") as output:
        stream = given.streams.video[0]
        copy = output.add_stream_from_template(stream)
        for index, packet in enumerate(given.demux(stream)):
            if packet.size == 0:
                continue
            data = bytes(packet)
            if index == number and path.name.startswith("by_lengths"):
                small = nal_unit[3:] + b"\x80"
                data += (len(small).to_bytes(4, "big") + small) * count
            elif index == number and plain.suffix == ".mp4":
                # One NAL unit by its length, as the container has it; many by its start codes.
                inside = nal_unit[3:] + b"\0" + nal_unit * count + b"\x80"
                data += len(inside).to_bytes(4, "big") + inside
            elif index == number:
                data += nal_unit * count
            made = av.Packet(data)
            made.pts = made.dts = index
            made.time_base, made.is_keyframe = Fraction(1, RATE), packet.is_keyframe
            made.stream = copy
            output.mux(made)
    if path.name.startswith("vvc"):  # there is no encoder for it here
        path.write_bytes(path.read_bytes().replace(b"hev1", b"vvc1"))
    return path


def write_vvc_bomb(path: Path, number: int, count: int = NAL_UNIT_COUNT) -> Path:
    """Writes a VVC file with far too many NAL units in a packet; none of its frames decodes.

    There is no encoder for it here. In MPEG-TS start codes separate NAL units; in MP4 lengths do.
    """
    delimiter, others = b"\0\xa1\x28", [b"\0\x79", b"\0\x81", b"\0\x39"]
    usual = [delimiter, *(kind + bytes(range(1, 60)) + b"\x80" for kind in others)]
    is_mp4 = path.suffix == ".mp4"
    with av.open(str(path), "w") as output:
        # As HEVC in MP4: the muxer asks for a configuration of VVC that describes the frames.
        stream = output.add_mux_stream("hevc" if is_mp4 else "vvc", rate=RATE, width=64, height=48)
        for index in range(12):
            parts = usual + [delimiter] * (count if index == number else 0)
            packet = av.Packet(
                b"".join(
                    (len(part).to_bytes(4, "big") if is_mp4 else b"\0\0\1") + part for part in parts
                )
            )
            packet.pts = packet.dts = index
            packet.time_base, packet.is_keyframe = Fraction(1, RATE), index == 0
            packet.stream = stream
            output.mux(packet)
    if is_mp4:
        data = path.read_bytes().replace(b"hvcC", b"free")
        boxes = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"hev1")
        configuration = box(b"vvcC", b"\0\0\0\0\xfe\0")  # lengths of four bytes, and no more
        path.write_bytes(with_child(data, boxes, configuration).replace(b"hev1", b"vvc1"))
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc")
def test_too_many_nal_units_are_refused_before_they_take_memory(tmp_path: Path) -> None:
    paths = [write_bomb(tmp_path / name, codec, number) for name, codec, number in BOMBS]
    paths += [write_vvc_bomb(tmp_path / name, number) for name, number in VVC_BOMBS]
    command = [sys.executable, "-c", READ, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE)
    *lines, peak = done.stdout.splitlines()
    for path, line in zip(paths, lines, strict=True):
        if path.name == "vvc_later.mp4":  # the decoder refuses already the start of the file
            assert line.startswith(f"{path} is damaged or in a codec"), line
        else:
            assert line.startswith(f"{path} has more than 16384 NAL units in a frame"), line
    assert int(peak) < MEGABYTES


def write_av1_bomb(path: Path, number: int) -> Path:
    """Writes a file in which the packet of this number has very many temporal delimiters."""
    plain = path.with_name("plain_av1.mp4")
    write_video(plain, moving_pictures(16), codec="libsvtav1", options={"preset": "12"})
    # These muxers leave delimiters out of AV1, so they have to take it for something else.
    taken_for = {".mp4": "vp9", ".mkv": "vp8"}.get(path.suffix, "av1") if number >= 0 else "av1"
    with av.open(str(plain)) as given, av.open(str(path), "w") as output:
        stream = given.streams.video[0]
        made = output.add_mux_stream(taken_for, rate=RATE, width=stream.width, height=stream.height)
        for index, packet in enumerate(given.demux(stream)):
            if packet.size == 0:
                continue
            copy = av.Packet(bytes(packet) + b"\x12\0" * (OBU_COUNT if index == number else 0))
            copy.pts = copy.dts = index
            copy.time_base, copy.is_keyframe = Fraction(1, RATE), packet.is_keyframe
            copy.stream = made
            output.mux(copy)
    if taken_for != "av1":
        data = path.read_bytes().replace(b"V_VP8", b"V_AV1").replace(b"vp09", b"av01")
        path.write_bytes(data.replace(b"vpcC", b"free"))
    if path.name.startswith("late_stream"):
        before = write_video(path.with_name("before.flv"), moving_pictures(16))
        path.write_bytes(before.read_bytes() + path.read_bytes()[len(b"FLV.....") + 5 :])
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc")
def test_many_obus_of_av1_take_no_memory(tmp_path: Path) -> None:
    paths = [write_av1_bomb(tmp_path / name, number) for name, number in AV1_BOMBS]
    command = [sys.executable, "-c", READ, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE)
    *lines, peak = done.stdout.splitlines()
    assert lines == [f"{path} was read" for path in paths]
    assert int(peak) < MEGABYTES


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ivf", ".flv", ".asf"])
def test_av1_gives_the_frames_of_plain_decoding(suffix: str, tmp_path: Path) -> None:
    path = write_av1_bomb((tmp_path / "video").with_suffix(suffix), number=-1)
    clip = read_clip(path, evenly)
    assert clip.count == 16
    frames = decode_plainly(path)
    assert np.array_equal(clip.array(), [frames[index] for index in clip.indices])


@pytest.mark.parametrize("name", ["raw.h264", "later.mp4"])
def test_playing_and_file_objects_refuse_too(name: str, tmp_path: Path) -> None:
    path = write_bomb(tmp_path / name, "libx264", 9)
    with pytest.raises(VideoLimitError, match="NAL units"), play(path) as playback:
        list(playback.frames())
    with path.open("rb") as file, pytest.raises(VideoLimitError, match="NAL units"):
        read_clip(file, evenly)


@pytest.mark.parametrize("name", ["small.h264", "small.avi", "small.ts"])
def test_many_nal_units_in_many_frames_are_read(name: str, tmp_path: Path) -> None:
    """FFmpeg already reads more NAL units when it opens the file than one frame may have."""
    frames = np.zeros((2000, 160, 32, 3), np.uint8)
    path = tmp_path / name
    write_video(path, frames, options={"x264-params": "slices=10:aud=1"})
    assert path.read_bytes().count(b"\0\0\1") > 20_000
    assert read_clip(path, evenly).count == 2000


def test_fewer_bytes_are_looked_at_before_a_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FFmpeg also reads many bytes to open a file that announces an audio track and has none."""
    frames = np.zeros((2000, 160, 32, 3), np.uint8)
    path = tmp_path / "small.ts"
    write_video(path, frames, options={"x264-params": "slices=10:aud=1"})
    probes = []
    open_with_av: Any = av.open

    def noted(*args: Any, container_options: dict[str, str], **options: Any) -> Any:
        probes.append(container_options.get("probesize"))
        return open_with_av(*args, container_options=container_options, **options)

    monkeypatch.setattr(nal_units, "MAX_NAL_UNITS", 5000)
    monkeypatch.setattr(av, "open", noted)
    assert read_clip(path, evenly).count == 2000
    assert probes == [None, None, "32768"]  # the first finds that it is not MP4


def test_pixels_that_look_like_start_codes_are_read(tmp_path: Path) -> None:
    frames = np.zeros((3, 240, 320, 3), np.uint8)
    frames[..., 0] = 1  # stored as blue, green, red
    path = write_video(tmp_path / "dark.avi", frames, codec="rawvideo", pixels="bgr24")
    assert path.read_bytes().count(b"\0\0\1") > 200_000
    clip = read_clip(path, np.arange)
    assert np.array_equal(clip.array(), decode_plainly(path))


@pytest.mark.parametrize("flags", ["faststart", "default_base_moof"])
def test_tables_that_look_like_start_codes_are_read(flags: str, tmp_path: Path) -> None:
    """Packet sizes from 256 to 511 bytes look like start codes in such a table."""
    plain = write_video(tmp_path / "plain.mp4", np.zeros((1, 48, 64, 3), np.uint8))
    path = tmp_path / "long.mp4"
    with av.open(str(plain)) as given:
        packet = bytes(next(given.demux(video=0)))
        packet = packet[4 + int.from_bytes(packet[:4], "big") :]  # without x264's own comment
        with av.open(str(path), "w", options={"movflags": flags}) as output:
            copy = output.add_stream_from_template(given.streams.video[0])
            for index in range(20_000):
                length = 400 + index % 2 - len(packet)
                filler = length.to_bytes(4, "big") + b"\x0c".ljust(length, b"\xff")
                made = av.Packet(packet + filler)
                made.pts = made.dts = index
                made.time_base, made.is_keyframe, made.stream = Fraction(1, RATE), True, copy
                output.mux(made)
    data = path.read_bytes()
    assert data[data.index(b"stsz") :].count(b"\0\0\1") > 20_000
    assert read_clip(path, evenly).count == 20_000
