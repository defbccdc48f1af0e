"""Writes small videos for tests, and decodes videos in the simplest way, as a reference."""

import dataclasses
import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.video.stream
import numpy as np
import numpy.typing as npt
from timesformer_runtime.video import DecodeLimits, VideoDecoder
from timesformer_runtime.video.pixels import stack_frames
from timesformer_runtime.video.source import Source

RATE = 25


def moving_pictures(
    count: int, height: int = 48, width: int = 64, seed: int = 0
) -> npt.NDArray[np.uint8]:
    """Frames uint8 [count, height, width, 3], no two alike: coarse noise that moves."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3))
    scene = coarse.repeat(8, axis=0).repeat(8, axis=1).astype(np.uint8)
    return np.stack([np.roll(scene, (i, 2 * i), axis=(0, 1)) for i in range(count)])


def write_video(
    path: Path,
    frames: npt.NDArray[np.uint8],
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    container: str | None = None,
    options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
    times: Sequence[int] | None = None,
    rate: int = RATE,
) -> Path:
    """Encodes frames uint8 [T, H, W, 3]; ``times`` are their timestamps in units of 1/rate s."""
    settings = dict(container_options or {})
    with av.open(str(path), "w", format=container, options=settings) as output:
        stream = output.add_stream(codec, rate=rate, options=dict(options or {}))
        assert isinstance(stream, av.video.stream.VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = Fraction(1, rate)
        stream.codec_context.thread_count = 1
        for time, pixel_values in zip(times or range(len(frames)), frames, strict=True):
            frame = av.VideoFrame.from_ndarray(pixel_values, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, rate)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def damage(path: Path) -> Path:
    """Overwrites 9,000 bytes of a video with noise, from a third of the file on."""
    data = bytearray(path.read_bytes())
    start = len(data) // 3
    data[start : start + 9000] = np.random.default_rng(0).bytes(9000)
    path.write_bytes(data)
    return path


def write_matroska_of_avi(source: Path, path: Path, times: Sequence[int]) -> Path:
    """Wraps the MPEG-4 packets of an AVI file as old programs did; ``times`` to decode are in ms.

    Matroska, RFC 9559, section 27.3 (V_MS/VFW/FOURCC).
    """
    with av.open(str(source)) as given:
        stream = given.streams.video[0]
        width, height = stream.width, stream.height
        found = [(bytes(p), bool(p.is_keyframe)) for p in given.demux(stream) if p.size]
    picture = struct.pack("<IiiHH4sIiiII", 40, width, height, 1, 24, b"XVID", 0, 0, 0, 0, 0)
    track = (
        *(("D7", _number(1)), ("73C5", _number(1)), ("83", _number(1))),
        *(("86", b"V_MS/VFW/FOURCC"), ("63A2", picture)),
        ("E0", _element("B0", _number(width)) + _element("BA", _number(height))),
    )
    blocks = [
        _element("A3", b"\x81" + struct.pack(">hB", time, 128 * is_key) + data)
        for time, (data, is_key) in zip(times, found, strict=True)
    ]
    segment = (
        ("1549A966", _element("2AD7B1", _number(1_000_000))),
        ("1654AE6B", _element("AE", b"".join(_element(*part) for part in track))),
        ("1F43B675", _element("E7", _number(0)) + b"".join(blocks)),
    )
    head = _element("1A45DFA3", _element("4282", b"matroska"))
    path.write_bytes(head + _element("18538067", b"".join(_element(*part) for part in segment)))
    return path


def _element(name: str, data: bytes) -> bytes:
    return bytes.fromhex(name) + (1 << 56 | len(data)).to_bytes(8, "big") + data


def _number(value: int) -> bytes:
    return value.to_bytes(4, "big")


def remux(
    source: Path,
    path: Path,
    *,
    shift: int = 0,
    container_options: Mapping[str, str] | None = None,
    same_times: Collection[int] = (),
) -> Path:
    """Copies the packets of a video into another file, shifted by frames of 1/RATE s.

    Each packet whose number is in ``same_times`` gets the presentation time of the packet before.
    All packets then get decoding times three frames earlier, as muxers need ascending ones.
    """
    settings = dict(container_options or {})
    with av.open(str(source)) as given, av.open(str(path), "w", options=settings) as output:
        stream = given.streams.video[0]
        copy = output.add_stream_from_template(stream)
        before = None
        for number, packet in enumerate(given.demux(stream)):
            if packet.dts is None or packet.pts is None or packet.time_base is None:
                continue
            ticks = int(Fraction(shift, RATE) / packet.time_base)
            packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
            if same_times:
                packet.dts -= int(Fraction(3, RATE) / packet.time_base)
                packet.pts = before if number in same_times else packet.pts
            before = packet.pts
            packet.stream = copy
            output.mux(packet)
    return path


def plain_frames(path: Path | str) -> Iterator[av.VideoFrame]:
    """Yields every frame that a decoder gives for a file, in order, and skips broken packets.

    The runtime's frame indices count these frames.
    """
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        assert isinstance(stream, av.video.stream.VideoStream)
        stream.codec_context.thread_count = 1
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue
            yield from frames


def decode_plainly(path: Path | str) -> list[npt.NDArray[np.uint8]]:
    """Every frame of a small file as uint8 RGB [H, W, 3]; ignores rotation metadata."""
    return [to_rgb(frame) for frame in plain_frames(path)]


def to_rgb(frame: av.VideoFrame) -> npt.NDArray[np.uint8]:
    """The pixels of a frame as PyAV gives them by default."""
    return frame.to_ndarray(format="rgb24").astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class Clip:
    """Chosen frames of a video, and the decoder's findings about the video."""

    frames: tuple[npt.NDArray[Any], ...]
    indices: tuple[int, ...]
    times: tuple[float, ...]
    count: int
    failed_packets: int
    problems: tuple[str, ...]
    truncated: bool
    interlaced: bool

    def array(self) -> npt.NDArray[np.uint8]:
        return stack_frames(self.frames)


def read_clip(
    source: Source,
    choose: Callable[[int], npt.NDArray[np.int64]],
    *,
    threads: int = 1,
    limits: DecodeLimits | None = None,
    **rendering: Any,
) -> Clip:
    """Reads frames as the classifier does; ``choose`` gets their number and returns indices."""
    with VideoDecoder(source, threads=threads, limits=limits, **rendering) as video:
        count = video.likely_count
        frames = video.frames_if_there(choose(max(count, 1)))
        if frames is None or video.likely_count != count:
            frames = video.frames(choose(video.likely_count))
        verdict = video.verdict()
        return Clip(
            frames.pixels,
            frames.indices,
            frames.times,
            len(video),
            video.failed_packets,
            verdict.problems,
            verdict.truncated,
            frames.interlaced,
        )
