"""Seeks to the wanted frames of a video, and decodes only what they need."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from timesformer_runtime.video.container import OpenVideo
from timesformer_runtime.video.decoding import Decoded, FrameCollector
from timesformer_runtime.video.index.frame_index import FrameIndex
from timesformer_runtime.video.pixels import Rendering
from timesformer_runtime.video.pyav import av

if TYPE_CHECKING:
    from timesformer_runtime.video.container import Packet


def decode_selected(
    video: OpenVideo,
    index: FrameIndex,
    wanted: Sequence[int],
    rendering: Rendering | None = None,
    cached_packets: Sequence[Packet] | None = None,
) -> Decoded | None:
    """Seeks to the wanted frames, and decodes only the packets that they need.

    Args:
        video: The open file, at any offset.
        index: Which packet gives which frame.
        wanted: Indices of frames, ascending.
        rendering: Makes an array of each wanted frame.
        cached_packets: All packets of the stream, if the caller has read them already; then this
            function does not seek.

    Returns:
        Exactly the frames that ``decode_all`` gives; None where the packets or frames are not those
        that the index lists.
    """
    decoded = Decoded(count=len(index.pts), start=index.start)
    collector = FrameCollector(video, rendering or Rendering(), decoded)
    for packet_range in _packet_ranges(index, wanted):
        try:
            packets = _packets_of(packet_range, video, index, cached_packets)
            if not _decode_range(video, index, packet_range, packets, collector, decoded):
                return None
        except av.FFmpegError:
            return None
    return decoded


@dataclasses.dataclass
class _PacketRange:
    """Packets that the decoder gets one after the other, because some wanted frames need them.

    Attributes:
        start: Number of the first packet, a keyframe.
        last: Number of the last packet, which belongs to the range.
        wanted: Maps the number of a packet to the index of the wanted frame in that packet.
    """

    start: int
    last: int
    wanted: dict[int, int]


def _packet_ranges(index: FrameIndex, wanted: Sequence[int]) -> list[_PacketRange]:
    """Lists the ranges of packets that the wanted frames need; joins ranges that overlap."""
    ranges: list[_PacketRange] = []
    for frame in wanted:
        packet = int(index.packet_of_frame[frame])
        keyframe = index.keyframe_for(packet)
        if not ranges or keyframe > ranges[-1].last:
            ranges.append(_PacketRange(keyframe, packet, {}))
        ranges[-1].last = max(ranges[-1].last, packet)
        ranges[-1].wanted[packet] = frame
    return ranges


def _decode_range(
    video: OpenVideo,
    index: FrameIndex,
    packet_range: _PacketRange,
    packets: Iterator[tuple[Packet | None, int]],
    collector: FrameCollector,
    decoded: Decoded,
) -> bool:
    """Decodes a range and renders its wanted frames; False where the index turns out wrong."""
    decoder = video.stream.codec_context
    decoder.skip_frame = "DEFAULT"
    is_skipping = False
    frame_of_pts: dict[int | None, int] = {}
    packet_pts: list[int] = []
    frame_pts: list[int] = []
    for packet, number in packets:
        if packet is not None:
            if packet.pts is None:
                return False
            packet_pts.append(packet.pts)
            if number in packet_range.wanted:
                frame_of_pts[packet.pts] = packet_range.wanted[number]
            if index.can_skip_unreferenced and is_skipping != (number not in packet_range.wanted):
                is_skipping = not is_skipping
                decoder.skip_frame = "NONREF" if is_skipping else "DEFAULT"
        for frame in video.decode(packet):
            if frame.pts is None or not _is_usable(frame, index):
                return False
            frame_pts.append(frame.pts)
            if frame.pts in frame_of_pts:
                video.watch.check_pixels(frame.width, frame.height)
                decoded.sizes.add((frame.height, frame.width))
                collector.add(frame_of_pts[frame.pts], frame)
    # A damaged timestamp can put a wanted packet before the start of the range.
    has_all_packets = len(packet_pts) == packet_range.last - packet_range.start + 1
    has_all_wanted = len(frame_of_pts) == len(packet_range.wanted)
    if not has_all_packets or not has_all_wanted or not frame_of_pts.keys() <= set(frame_pts):
        return False
    return _are_in_order(frame_pts, packet_pts, skips=index.can_skip_unreferenced)


def _is_usable(frame: av.VideoFrame, index: FrameIndex) -> bool:
    # Where the decoder skips frames, their number does not show that a packet holds only one field
    # of a frame.
    may_be_field = index.can_skip_unreferenced and frame.interlaced_frame
    return not frame.is_corrupt and not may_be_field


def _packets_of(
    packet_range: _PacketRange,
    video: OpenVideo,
    index: FrameIndex,
    cached_packets: Sequence[Packet] | None,
) -> Iterator[tuple[Packet | None, int]]:
    """Gives the packets of a range with their numbers, and then None, to end the decoding.

    Stops early where the file does not give the packets in the order of the index.
    """
    start, last = packet_range.start, packet_range.last
    if cached_packets is not None:
        video.stream.codec_context.flush_buffers()
        for number in range(start, last + 1):
            yield cached_packets[number], number
        yield None, last
        return
    first, following = _seek(video, index, start)
    expected_pts = index.pts[first : last + 1].tolist()
    for number, (pts, packet) in enumerate(zip(expected_pts, following, strict=False), first):
        if packet.pts != pts:
            return
        if number >= start:
            yield packet, number
    yield None, last


def _seek(video: OpenVideo, index: FrameIndex, start: int) -> tuple[int, Iterator[Packet]]:
    """Seeks to a packet or to one before it.

    Returns:
        The number of the packet at which the file then stands, and the packets from there; no
        packets where the file cannot seek that far back.
    """
    for times in (index.pts, index.dts):  # some containers seek by pts, others by dts
        video.container.seek(int(times[start]), stream=video.stream, backward=True)
        following = video.packets()
        first = next(following, None)
        number = None if first is None else index.number_of(first)
        if first is not None and number is not None and number <= start:
            return number, itertools.chain([first], following)
    return start, iter(())


def _are_in_order(frame_pts: list[int], packet_pts: list[int], *, skips: bool) -> bool:
    """Checks that frames came out in order, and, if the decoder skips none, one for each packet."""
    if frame_pts != sorted(set(frame_pts)):
        return False
    if skips:
        return True
    # Frames that are shown before the keyframe may be missing: they need packets before the range.
    first = packet_pts[0]
    return [pts for pts in frame_pts if pts >= first] == sorted(
        pts for pts in packet_pts if pts >= first
    )
