"""Finds out, without decoding, which packet of a file gives which frame.

That is only known where every packet gives one frame, and frames come out in the order of their
timestamps. H.264, HEVC, VP9 and AV1 promise it while no packet is missing, and ``seeking`` checks
it for all that it decodes. For any other file there is no index: it has to be decoded from its
start. What stays unseen is damage inside the data of a picture that no wanted frame needs.
"""

from __future__ import annotations

import dataclasses
from array import array
from typing import TYPE_CHECKING, NamedTuple

import av
import numpy as np
import numpy.typing as npt

from timesformer_runtime.video.container import OpenVideo, VideoStream
from timesformer_runtime.video.opening import InputContainer

if TYPE_CHECKING:
    from timesformer_runtime.video.container import Packet

Numbers = npt.NDArray[np.int64]

# Containers whose packets carry timestamps for display, and that can seek by time.
_CONTAINERS = ("mov", "matroska", "mpegts")
_H264 = "h264"
_ONE_FRAME_PER_PACKET = frozenset({_H264, "hevc", "vp9", "libdav1d", "av1", "libaom-av1"})
_HOLE = bytes(8)  # how a lost part of a file usually looks
_LENGTH_SIZE = 4  # bytes before each NAL unit of H.264 that tell its length
_START_CODES = (b"\0\0\1", b"\0\0\0\1")
_SMALL = 1 << 22  # bytes of a stream
_FEW = 8  # packets, which are decoded sooner than their order is found


@dataclasses.dataclass(frozen=True)
class FrameIndex:
    """The packets of a stream in decoding order, and the frames in the order they come out.

    Attributes:
        times: When the frame of each packet is shown, int64 [N], in the stream's time base; no
            two are equal.
        decoding_times: When each packet is decoded, int64 [N]. Some containers seek by these.
        packet_of_frame: Which packet gives a frame, int64 [N].
        entries: The packets at which decoding can start, ascending, int64; the first is 0.
        skips_unreferenced: Whether the decoder can leave out pictures that no other needs.
    """

    times: Numbers
    decoding_times: Numbers
    packet_of_frame: Numbers
    entries: Numbers
    skips_unreferenced: bool

    @property
    def start(self) -> int:
        """When the first frame is shown."""
        return int(self.times[0])

    def entry_for(self, number: int) -> int:
        """The last entry from which the packet with this number can be decoded."""
        candidates = self.entries[: np.searchsorted(self.entries, number, side="right")]
        frame_of_packet = np.argsort(self.packet_of_frame)
        # A picture that is shown before the entry may depend on pictures before the entry.
        earlier = candidates[frame_of_packet[candidates] <= frame_of_packet[number]]
        return int(earlier[-1])

    def number_of(self, packet: Packet) -> int | None:
        """Which of the packets this is; None where it is none of them."""
        numbers = np.flatnonzero(self.times == packet.pts)
        return int(numbers[0]) if len(numbers) else None


class Extent(NamedTuple):
    """How much of a stream there is.

    Attributes:
        packets: Number of packets.
        first: Time of the first one, in seconds; None without timestamps.
        end: Time of the end of the last one, in seconds; None without timestamps.
    """

    packets: int
    first: float | None
    end: float | None


@dataclasses.dataclass(frozen=True)
class Scan:
    """What the packets of a stream tell without being decoded.

    Attributes:
        packets: Number of packets that should give a frame.
        index: Which packet gives which frame; None where that is not certain.
        extent: How much of the stream there is.
        is_sound: Whether nothing speaks against one frame for each packet.
        kept: All packets of a small stream, so that it need not be opened again.
    """

    packets: int
    index: FrameIndex | None
    extent: Extent
    is_sound: bool = True
    kept: tuple[Packet, ...] | None = None


def scan(video: OpenVideo) -> Scan:
    """Reads all packets of a stream, from where the container stands to its end."""
    builder = _builder(video.container, video.stream)
    count = hopeless = size = 0
    kept: list[Packet] | None = []
    first = end = None
    is_sound = True
    try:
        for packet in video.packets():
            is_sound &= not packet.is_corrupt and (count > 0 or packet.is_keyframe)
            count += 1
            hopeless += packet.is_discard
            size += packet.size
            if kept is not None:
                kept.append(packet)
                kept = kept if size <= _SMALL else None
            time = packet.dts if packet.pts is None else packet.pts
            if time is not None:
                stop = time + (packet.duration or 0)
                first = time if first is None else min(first, time)
                end = stop if end is None else max(end, stop)
            if builder is not None and not builder.add(packet):
                is_sound = False
                hopeless += not packet.is_discard
    except av.FFmpegError:  # the file ends badly: decoding it will show how much of it is there
        builder, is_sound, kept = None, False, None
    index = None
    if builder is not None and builder.is_complete and count > _FEW:
        index = builder.finish(video.stream.codec_context)
    extent = _extent(video.stream, count, first, end)
    return Scan(max(count - hopeless, 0), index, extent, is_sound, tuple(kept or ()) or None)


def _extent(stream: VideoStream, packets: int, first: int | None, end: int | None) -> Extent:
    unit = stream.time_base
    if unit is None or first is None or end is None:
        return Extent(packets, None, None)
    return Extent(packets, float(first * unit), float(end * unit))


class _Builder:
    """Collects packets.

    Args:
        codec: The decoder's name.

    Attributes:
        is_complete: Whether each of them tells which frame it gives.
    """

    def __init__(self, codec: str) -> None:
        self._is_h264 = codec == _H264
        self._times = array("q")
        self._decoding_times = array("q")
        self._entries = array("q")
        self.is_complete = True

    def add(self, packet: Packet) -> bool:
        """Adds a packet; False where it is damaged and will hardly give a frame."""
        if self._is_damaged(packet):
            self.is_complete = False
            return False
        if packet.pts is None or packet.is_corrupt or packet.is_discard:
            self.is_complete = False
            return True
        if packet.is_keyframe:
            self._entries.append(len(self._times))
        self._times.append(packet.pts)
        self._decoding_times.append(packet.pts if packet.dts is None else packet.dts)
        return True

    def finish(self, decoder: av.VideoCodecContext) -> FrameIndex | None:
        """The index, unless the packets cannot be those of whole pictures in order."""
        times, entries = _numbers(self._times), _numbers(self._entries)
        by_time = np.argsort(times, kind="stable")
        if not len(entries) or entries[0] != 0 or by_time[0] != 0:
            return None
        steps = np.diff(times[by_time])
        if np.any(steps == 0) or _holds_back(by_time) > _reorder_depth(decoder):
            return None
        has_gap = _has_gap(steps)
        if has_gap and not self._is_h264:
            return None
        return FrameIndex(
            times=times,
            decoding_times=_numbers(self._decoding_times),
            packet_of_frame=by_time,
            entries=entries,
            # Where a picture is missing, FFmpeg fills in for it from all pictures before.
            skips_unreferenced=self._is_h264 and not has_gap,
        )

    def _is_damaged(self, packet: Packet) -> bool:
        data = memoryview(packet)
        is_hole = bytes(data[: len(_HOLE)]) == _HOLE
        return is_hole or (self._is_h264 and not _holds_nal_units(data))


def _builder(container: InputContainer, stream: VideoStream) -> _Builder | None:
    if not container.format.name.startswith(_CONTAINERS):
        return None
    decoder = stream.codec_context
    if decoder.name not in _ONE_FRAME_PER_PACKET or _has_short_lengths(decoder):
        return None
    return _Builder(decoder.name)


def _has_short_lengths(decoder: av.VideoCodecContext) -> bool:
    """Whether the lengths of H.264's NAL units have less than 4 bytes, as hardly any file's."""
    record = decoder.extradata or b""
    has_record = decoder.name == _H264 and len(record) > 4 and record[0] == 1
    return has_record and record[4] & 3 < _LENGTH_SIZE - 1


def _holds_nal_units(data: memoryview) -> bool:
    """Whether the data of an H.264 packet are NAL units, each as long as it states."""
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
    """Whether a frame may be missing: steps vary, but two of the usual ones are suspicious."""
    return len(steps) > 0 and bool(np.max(steps) > 1.9 * np.median(steps))


def _holds_back(packet_of_frame: Numbers) -> int:
    """How many packets the decoder has to hold back to give the frames in order."""
    return int(np.max(packet_of_frame - np.arange(len(packet_of_frame))))


def _reorder_depth(decoder: av.VideoCodecContext) -> int:
    """How many packets it does hold back: with fewer than it needs, it would drop frames."""
    if decoder.name != _H264:
        return 1 << 30  # these streams say how much they need
    return decoder.reorder_depth
