"""Finds out, without decoding, which packet of a file gives which frame.

An index is possible only if every packet gives one frame, and frames come out in the order of their
timestamps. H.264, HEVC, VP9 and AV1 guarantee both while no packet is missing, and ``seeking``
checks both for all that it decodes. Any other file has no index, and has to be decoded from its
start. With an index, damage inside a packet that no wanted frame needs goes unnoticed.
"""

from __future__ import annotations

import dataclasses
import functools
from array import array
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from timesformer_runtime.video.container import OpenVideo, VideoStream
from timesformer_runtime.video.opening import InputContainer
from timesformer_runtime.video.pyav import av

if TYPE_CHECKING:
    from timesformer_runtime.video.container import Packet

Numbers = npt.NDArray[np.int64]

# Containers whose packets have display timestamps, and that can seek by time.
_CONTAINERS = ("mov", "matroska", "mpegts")
_H264 = "h264"
_ONE_FRAME_PER_PACKET = frozenset({_H264, "hevc", "vp9", "libdav1d", "av1", "libaom-av1"})
_HOLE = bytes(8)  # a packet in a lost part of a file usually begins with zeros
_LENGTH_SIZE = 4  # bytes before each NAL unit of H.264, which state its length
_START_CODES = (b"\0\0\1", b"\0\0\0\1")
_CACHE_BYTES = 1 << 22  # of a stream whose packets the scan keeps
_MIN_PACKETS = 8  # decoding fewer is faster than building their index


@dataclasses.dataclass(frozen=True)
class FrameIndex:
    """The packets of a stream in decoding order, and the frames in display order.

    Attributes:
        pts: The display timestamp of each packet, int64 [N], in the stream's time base; no two are
            equal.
        dts: The decoding timestamp of each packet, int64 [N], or the display timestamp where the
            packet has none. Some containers seek by decoding timestamps.
        packet_of_frame: Maps the index of a frame to the number of its packet, int64 [N].
        keyframes: The numbers of the packets at which decoding can start, ascending, int64; the
            first is 0.
        can_skip_unreferenced: True if the decoder can skip frames that no other frame needs.
    """

    pts: Numbers
    dts: Numbers
    packet_of_frame: Numbers
    keyframes: Numbers
    can_skip_unreferenced: bool

    @property
    def start(self) -> int:
        """The display timestamp of the first frame."""
        return int(self.pts[0])

    @functools.cached_property
    def _frame_of_packet(self) -> Numbers:
        """Maps the number of a packet to the index of its frame, int64 [N]."""
        return np.argsort(self.packet_of_frame)

    def keyframe_for(self, packet: int) -> int:
        """Finds the last keyframe from which a packet decodes; both are numbers of packets."""
        candidates = self.keyframes[: np.searchsorted(self.keyframes, packet, side="right")]
        frame_of_packet = self._frame_of_packet
        # A frame that is shown before the keyframe may depend on frames before the keyframe.
        earlier = candidates[frame_of_packet[candidates] <= frame_of_packet[packet]]
        return int(earlier[-1])

    def number_of(self, packet: Packet) -> int | None:
        """Finds the number of a packet by its timestamp; None where no packet has it."""
        numbers = np.flatnonzero(self.pts == packet.pts)
        return int(numbers[0]) if len(numbers) else None


class Extent(NamedTuple):
    """The extent of a stream in its file.

    Attributes:
        packets: Number of packets.
        first: When the first packet is shown, in seconds; None without timestamps.
        end: When the last packet has been shown, in seconds; None without timestamps.
    """

    packets: int
    first: float | None
    end: float | None


class ExtentMeter:
    """Finds out, packet by packet, how much of a stream is in its file.

    Attributes:
        packets: Number of packets so far.
    """

    def __init__(self) -> None:
        self.packets = 0
        self._first: int | None = None  # the lowest timestamp so far
        self._end: int | None = None  # the highest end of a packet so far

    def add(self, packet: Packet) -> None:
        """Counts a packet."""
        self.packets += 1
        time = packet.dts if packet.pts is None else packet.pts
        if time is not None:
            end = time + (packet.duration or 0)
            self._first = time if self._first is None else min(self._first, time)
            self._end = end if self._end is None else max(self._end, end)

    def extent(self, stream: VideoStream) -> Extent:
        """The extent of the packets so far, which are those of ``stream``."""
        time_base = stream.time_base
        if time_base is None or self._first is None or self._end is None:
            return Extent(self.packets, None, None)
        return Extent(self.packets, float(self._first * time_base), float(self._end * time_base))


@dataclasses.dataclass(frozen=True)
class Scan:
    """Facts about a stream that its packets tell without being decoded.

    Attributes:
        expected_frames: Number of packets that should give a frame.
        index: Which packet gives which frame; None where that is not certain.
        extent: How much of the stream is in the file.
        seems_intact: True if nothing contradicts one frame for each packet.
        cached_packets: All packets of a small stream, so that nothing reads them again; else None.
    """

    expected_frames: int
    index: FrameIndex | None
    extent: Extent
    seems_intact: bool = True
    cached_packets: tuple[Packet, ...] | None = None


def scan(video: OpenVideo) -> Scan:
    """Reads all packets of a stream, from the container's offset to its end."""
    builder = _builder(video.container, video.stream)
    meter = ExtentMeter()
    without_frame = size = 0
    cached: list[Packet] | None = []
    seems_intact = True
    try:
        for packet in video.packets():
            seems_intact &= not packet.is_corrupt and (meter.packets > 0 or packet.is_keyframe)
            meter.add(packet)
            without_frame += packet.is_discard
            size += packet.size
            if cached is not None:
                cached.append(packet)
                cached = cached if size <= _CACHE_BYTES else None
            if builder is not None and not builder.add(packet):
                seems_intact = False
                without_frame += not packet.is_discard
    except av.FFmpegError:  # the file ends badly; decoding will show how much of it is there
        builder, seems_intact, cached = None, False, None
    index = None
    if builder is not None and builder.is_complete and meter.packets > _MIN_PACKETS:
        index = builder.finish(video.stream.codec_context)
    return Scan(
        expected_frames=max(meter.packets - without_frame, 0),
        index=index,
        extent=meter.extent(video.stream),
        seems_intact=seems_intact,
        cached_packets=tuple(cached or ()) or None,
    )


class _IndexBuilder:
    """Collects packets, and makes an index of them.

    Args:
        codec: The decoder's name.

    Attributes:
        is_complete: True while each packet tells which frame it gives.
    """

    def __init__(self, codec: str) -> None:
        self._is_h264 = codec == _H264
        self._pts = array("q")
        self._dts = array("q")
        self._keyframes = array("q")
        self.is_complete = True

    def add(self, packet: Packet) -> bool:
        """Adds a packet; False if it is so damaged that it will hardly give a frame."""
        if self._is_damaged(packet):
            self.is_complete = False
            return False
        if packet.pts is None or packet.is_corrupt or packet.is_discard:
            self.is_complete = False
            return True
        if packet.is_keyframe:
            self._keyframes.append(len(self._pts))
        self._pts.append(packet.pts)
        self._dts.append(packet.pts if packet.dts is None else packet.dts)
        return True

    def finish(self, decoder: av.VideoCodecContext) -> FrameIndex | None:
        """Makes the index; None if the packets cannot give one frame each, in order."""
        pts, keyframes = _numbers(self._pts), _numbers(self._keyframes)
        by_pts = np.argsort(pts, kind="stable")
        if not len(keyframes) or keyframes[0] != 0 or by_pts[0] != 0:
            return None
        steps = np.diff(pts[by_pts])
        if np.any(steps == 0) or _needed_reorder_depth(by_pts) > _reorder_depth(decoder):
            return None
        has_gap = _has_gap(steps)
        if has_gap and not self._is_h264:
            return None
        return FrameIndex(
            pts=pts,
            dts=_numbers(self._dts),
            packet_of_frame=by_pts,
            keyframes=keyframes,
            # FFmpeg conceals a missing frame with earlier frames, so that none may be skipped.
            can_skip_unreferenced=self._is_h264 and not has_gap,
        )

    def _is_damaged(self, packet: Packet) -> bool:
        data = memoryview(packet)
        is_hole = bytes(data[: len(_HOLE)]) == _HOLE
        return is_hole or (self._is_h264 and not _consists_of_nal_units(data))


def _builder(container: InputContainer, stream: VideoStream) -> _IndexBuilder | None:
    """Makes a builder; None for a format or codec whose packets never tell their frames."""
    if not container.format.name.startswith(_CONTAINERS):
        return None
    decoder = stream.codec_context
    if decoder.name not in _ONE_FRAME_PER_PACKET or _has_short_lengths(decoder):
        return None
    return _IndexBuilder(decoder.name)


def _has_short_lengths(decoder: av.VideoCodecContext) -> bool:
    """True if fewer than 4 bytes state the length of an H.264 NAL unit, which is rare."""
    record = decoder.extradata or b""
    has_record = decoder.name == _H264 and len(record) > 4 and record[0] == 1
    return has_record and record[4] & 3 < _LENGTH_SIZE - 1


def _consists_of_nal_units(data: memoryview) -> bool:
    """True if an H.264 packet consists of NAL units, each as long as it states."""
    if bytes(data[:_LENGTH_SIZE]).startswith(_START_CODES):
        return True
    offset = 0
    while offset + _LENGTH_SIZE < len(data):
        header = data[offset + _LENGTH_SIZE]
        has_known_type = 1 <= header & 0x1F <= 23
        if header & 0x80 or not has_known_type:
            return False
        length = int.from_bytes(data[offset : offset + _LENGTH_SIZE], "big")
        offset += _LENGTH_SIZE + length
    return offset == len(data)


def _numbers(values: array[int]) -> Numbers:
    return np.array(values, dtype=np.int64)


def _has_gap(steps: Numbers) -> bool:
    """True if a frame may be missing: a step from one timestamp to the next is twice the usual."""
    return len(steps) > 0 and bool(np.max(steps) > 1.9 * np.median(steps))


def _needed_reorder_depth(packet_of_frame: Numbers) -> int:
    """Counts the packets that a decoder has to hold back to give the frames in order."""
    return int(np.max(packet_of_frame - np.arange(len(packet_of_frame))))


def _reorder_depth(decoder: av.VideoCodecContext) -> int:
    """Counts the packets that the decoder holds back; it drops frames that need more."""
    if decoder.name != _H264:
        return 1 << 30  # the streams of other codecs state how many they need
    return decoder.reorder_depth
