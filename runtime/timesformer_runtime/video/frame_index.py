"""Finds out, without decoding, which packet of a file holds which frame.

That is only known where every packet is known to give one frame and the timestamps to be in the
order in which frames come out. For H.264 the pictures' headers prove it. For HEVC, VP9 and AV1
their rules promise it while no packet is missing, and ``decoding`` checks it for all that it
decodes. For any other file there is no index, and it has to be decoded from its start. What stays
unseen is damage inside the data of a picture that no wanted frame needs.
"""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import av
import numpy as np
import numpy.typing as npt

from timesformer_runtime.video.container import InputContainer, OpenVideo, VideoStream
from timesformer_runtime.video.h264 import HeaderReader, UnusualStreamError

if TYPE_CHECKING:
    from timesformer_runtime.video.container import Packet

# Containers whose packets carry timestamps for display, and that can seek by time.
_CONTAINERS = ("mov", "matroska", "mpegts")
_ONE_FRAME_PER_PACKET = frozenset({"hevc", "vp9", "libdav1d", "av1", "libaom-av1"})
_HOLE = bytes(8)  # how a lost part of a file usually looks


@dataclasses.dataclass(frozen=True)
class FrameIndex:
    """The packets of a stream in decoding order, and the frames in the order they come out.

    Attributes:
        times: Presentation timestamp of each packet, int64 [N].
        decoding_times: Decoding timestamp of each packet, int64 [N].
        packet_of_frame: Which packet gives a frame, int64 [N].
        entries: The packets at which decoding can start, ascending, int64; the first is 0.
        skips_unreferenced: Whether the decoder can leave out pictures that no other needs.
    """

    times: npt.NDArray[np.int64]
    decoding_times: npt.NDArray[np.int64]
    packet_of_frame: npt.NDArray[np.int64]
    entries: npt.NDArray[np.int64]
    skips_unreferenced: bool

    def entry_for(self, number: int) -> int:
        """The last entry from which the packet with this number can be decoded."""
        candidates = self.entries[: np.searchsorted(self.entries, number, side="right")]
        # A picture that is shown before the entry may depend on pictures before the entry.
        earlier = candidates[self.times[candidates] <= self.times[number]]
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
    """What reading all packets of a stream without decoding them tells.

    Attributes:
        packets: Number of packets that should give a frame.
        index: Which packet gives which frame; None where that is not certain.
        extent: How much of the stream there is.
    """

    packets: int
    index: FrameIndex | None
    extent: Extent


class _UnknownOrderError(Exception):
    """The packets do not tell which frames they give."""


def scan(video: OpenVideo) -> Scan:
    """Reads all packets of a stream, from where the container stands to its end."""
    builder = _builder(video.container, video.stream)
    count = discarded = 0
    first = end = None
    try:
        for packet in video.packets():
            count += 1
            discarded += packet.is_discard
            time = packet.dts if packet.pts is None else packet.pts
            if time is not None:
                stop = time + (packet.duration or 0)
                first = time if first is None else min(first, time)
                end = stop if end is None else max(end, stop)
            if builder is not None:
                builder = builder.add(packet)
    except av.FFmpegError:  # the file ends badly: decoding it will show how much of it is there
        builder = None
    index = None if builder is None else builder.finish(video.stream.codec_context)
    return Scan(count - discarded, index, _extent(video.stream, count, first, end))


def _extent(stream: VideoStream, packets: int, first: int | None, end: int | None) -> Extent:
    unit = stream.time_base
    if unit is None or first is None or end is None:
        return Extent(packets, None, None)
    return Extent(packets, float(first * unit), float(end * unit))


class _Builder:
    """Collects packets; gives up as soon as they do not tell which frames they give."""

    def __init__(self, read_picture: Callable[[Packet], _Picture], *, has_headers: bool) -> None:
        self._read_picture = read_picture
        self._has_headers = has_headers
        self._times = array("q")
        self._decoding_times = array("q")
        self._orders = array("q")
        self._entries = array("q")

    def add(self, packet: Packet) -> _Builder | None:
        if packet.pts is None or packet.is_corrupt or packet.is_discard:
            return None
        try:
            picture = self._read_picture(packet)
        except (_UnknownOrderError, UnusualStreamError):
            return None
        if picture.is_entry:
            self._entries.append(len(self._times))
        self._times.append(packet.pts)
        self._decoding_times.append(packet.pts if packet.dts is None else packet.dts)
        self._orders.append(picture.order)
        return self

    def finish(self, decoder: av.VideoCodecContext) -> FrameIndex | None:
        """The index, unless the timestamps contradict the order of the pictures."""
        times, orders = _numbers(self._times), _numbers(self._orders)
        entries = _numbers(self._entries)
        if not len(entries) or entries[0] != 0:
            return None
        by_time = np.argsort(times, kind="stable")
        if by_time[0] != 0 or np.any(np.diff(times[by_time]) == 0):
            return None
        if np.any(np.diff(orders[by_time]) <= 0) or _delay(by_time) > _reorder_depth(decoder):
            return None
        if not self._has_headers and _has_gap(times[by_time]):
            return None
        return FrameIndex(
            times, _numbers(self._decoding_times), by_time, entries, self._has_headers
        )


class _Picture(NamedTuple):
    is_entry: bool
    order: int  # ascending in the order in which frames come out


def _builder(container: InputContainer, stream: VideoStream) -> _Builder | None:
    if not container.format.name.startswith(_CONTAINERS):
        return None
    decoder = stream.codec_context
    if decoder.name in _ONE_FRAME_PER_PACKET:
        return _Builder(_read_by_timestamp, has_headers=False)
    if decoder.name != "h264":
        return None
    try:
        reader = HeaderReader(decoder.extradata or b"")
    except UnusualStreamError:
        return None

    def read_header(packet: Packet) -> _Picture:
        return _Picture(*reader.read(bytes(packet)))

    return _Builder(read_header, has_headers=True)


def _read_by_timestamp(packet: Packet) -> _Picture:
    if bytes(memoryview(packet)[: len(_HOLE)]) == _HOLE or packet.pts is None:
        raise _UnknownOrderError
    return _Picture(packet.is_keyframe, packet.pts)


def _numbers(values: array[int]) -> npt.NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def _has_gap(times: npt.NDArray[np.int64]) -> bool:
    """Whether a frame may be missing: steps vary, but two of the usual ones are suspicious."""
    steps = np.diff(times)
    return len(steps) > 0 and bool(np.max(steps) > 1.9 * np.median(steps))


def _delay(packet_of_frame: npt.NDArray[np.int64]) -> int:
    """How many packets the decoder has to hold back to give the frames in order."""
    return int(np.max(packet_of_frame - np.arange(len(packet_of_frame))))


def _reorder_depth(decoder: av.VideoCodecContext) -> int:
    """How many packets it does hold back: with fewer than it needs, it would drop frames."""
    if decoder.name != "h264":
        return 1 << 30  # these streams say how much they need
    return decoder.reorder_depth
