"""Finds out, without decoding, which packet of a file holds which frame.

That is only known where every packet is known to give one frame and the timestamps to be in the
order in which frames come out. For H.264 the pictures' headers prove it. For HEVC, VP9 and AV1
their rules promise it while no packet is missing, and ``seeking`` checks it for all that it
decodes. For any other file there is no index, and it has to be decoded from its start. What stays
unseen is damage inside the data of a picture that no wanted frame needs.
"""

from __future__ import annotations

import dataclasses
from array import array
from typing import TYPE_CHECKING, NamedTuple

import av
import numpy as np

from timesformer_runtime.video.container import OpenVideo, VideoStream
from timesformer_runtime.video.h264 import (
    DamagedPacketError,
    HeaderReader,
    UnusualStreamError,
)
from timesformer_runtime.video.opening import InputContainer
from timesformer_runtime.video.picture_order import (
    HeadedPictures,
    Numbers,
    PictureOrder,
    TimedPictures,
    numbers,
)

if TYPE_CHECKING:
    from timesformer_runtime.video.container import Packet

# Containers whose packets carry timestamps for display, and that can seek by time.
_CONTAINERS = ("mov", "matroska", "mpegts")
_ONE_FRAME_PER_PACKET = frozenset({"hevc", "vp9", "libdav1d", "av1", "libaom-av1"})
_SMALL = 1 << 22  # bytes of a stream
_FEW = 8  # packets, which are decoded sooner than their order is found


@dataclasses.dataclass(frozen=True)
class FrameIndex:
    """The packets of a stream in decoding order, and the frames in the order they come out.

    Attributes:
        stamps: A timestamp of each packet that no other has, int64 [N].
        has_decoding_stamps: Whether these say when a packet is decoded; else when it is shown.
        seek_times: Timestamps to seek a packet by, int64 [N] each. Some containers look for one
            by the one time, some by the other.
        start: Timestamp for display of the first frame.
        packet_of_frame: Which packet gives a frame, int64 [N].
        entries: The packets at which decoding can start, ascending, int64; the first is 0.
        skips_unreferenced: Whether the decoder can leave out pictures that no other needs.
    """

    stamps: Numbers
    has_decoding_stamps: bool
    seek_times: tuple[Numbers, ...]
    start: int
    packet_of_frame: Numbers
    entries: Numbers
    skips_unreferenced: bool

    def entry_for(self, number: int) -> int:
        """The last entry from which the packet with this number can be decoded."""
        candidates = self.entries[: np.searchsorted(self.entries, number, side="right")]
        frame_of_packet = np.argsort(self.packet_of_frame)
        # A picture that is shown before the entry may depend on pictures before the entry.
        earlier = candidates[frame_of_packet[candidates] <= frame_of_packet[number]]
        return int(earlier[-1])

    def stamp_of(self, packet: Packet) -> int | None:
        """What ``stamps`` has for this packet, if it is one of them."""
        return packet.dts if self.has_decoding_stamps else packet.pts

    def number_of(self, packet: Packet) -> int | None:
        """Which of the packets this is; None where it is none of them."""
        numbers = np.flatnonzero(self.stamps == self.stamp_of(packet))
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
    """What reading all packets of a stream without decoding them tells.

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

    Attributes:
        is_complete: Whether all of them tell which frames they give.
    """

    def __init__(self, pictures: PictureOrder) -> None:
        self._pictures = pictures
        self._times = array("q")
        self._decoding_times = array("q")
        self.is_complete = True

    def add(self, packet: Packet) -> bool:
        """Adds a packet; False where it is damaged and will hardly give a frame."""
        try:
            self._pictures.add(packet)
        except DamagedPacketError:
            self.is_complete = False
            return False
        except UnusualStreamError:
            self.is_complete = False
            return True
        if packet.pts is None or packet.is_corrupt or packet.is_discard:
            self.is_complete = False
            return True
        self._times.append(packet.pts)
        self._decoding_times.append(packet.pts if packet.dts is None else packet.dts)
        return True

    def finish(self, decoder: av.VideoCodecContext) -> FrameIndex | None:
        """The index, unless the timestamps contradict the order of the pictures."""
        times = numbers(self._times)
        try:
            orders, entries = self._pictures.finish()
        except UnusualStreamError:
            return None
        if not len(entries) or entries[0] != 0:
            return None
        by_time = np.argsort(times, kind="stable")
        if by_time[0] != 0 or np.any(np.diff(times[by_time]) == 0):
            return None
        if np.any(np.diff(orders[by_time]) <= 0) or holds_back(by_time) > reorder_depth(decoder):
            return None
        skips_unreferenced = self._pictures.skips_unreferenced
        if not skips_unreferenced and _has_gap(times[by_time]):
            return None
        return FrameIndex(
            stamps=times,
            has_decoding_stamps=False,
            seek_times=(times, numbers(self._decoding_times)),
            start=int(times[0]),
            packet_of_frame=by_time,
            entries=entries,
            skips_unreferenced=skips_unreferenced,
        )


def _builder(container: InputContainer, stream: VideoStream) -> _Builder | None:
    if not container.format.name.startswith(_CONTAINERS):
        return None
    decoder = stream.codec_context
    if decoder.name in _ONE_FRAME_PER_PACKET:
        return _Builder(TimedPictures())
    if decoder.name != "h264":
        return None
    try:
        return _Builder(HeadedPictures(HeaderReader(decoder.extradata or b"")))
    except UnusualStreamError:
        return None


def _has_gap(times: Numbers) -> bool:
    """Whether a frame may be missing: steps vary, but two of the usual ones are suspicious."""
    steps = np.diff(times)
    return len(steps) > 0 and bool(np.max(steps) > 1.9 * np.median(steps))


def holds_back(packet_of_frame: Numbers) -> int:
    """How many packets the decoder has to hold back to give the frames in order."""
    return int(np.max(packet_of_frame - np.arange(len(packet_of_frame))))


def reorder_depth(decoder: av.VideoCodecContext) -> int:
    """How many packets it does hold back: with fewer than it needs, it would drop frames."""
    if decoder.name != "h264":
        return 1 << 30  # these streams say how much they need
    return decoder.reorder_depth
