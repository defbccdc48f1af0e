"""Indexes an MP4 or QuickTime file by its own table: far faster than reading its packets.

The table says where in the file each packet is, so only the pictures' headers are read.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import av
import numpy as np

from timesformer_runtime.video.container import Media, OpenVideo
from timesformer_runtime.video.frame_index import (
    Extent,
    FrameIndex,
    Scan,
    holds_back,
    reorder_depth,
)
from timesformer_runtime.video.h264 import HeaderReader, Picture, UnusualStreamError
from timesformer_runtime.video.h264_order import (
    HEAD_BYTES,
    display_order,
    read_heads,
)
from timesformer_runtime.video.limits import Watch
from timesformer_runtime.video.mp4_boxes import read_from
from timesformer_runtime.video.picture_order import Numbers

_POSITION, _SIZE, _STAMP = range(3)
_KEYFRAME = 1  # FFmpeg's flag of an entry
_SHORT = 500  # packets; those of a shorter video are read faster than its table is checked
_BLOCK = 4096  # headers that are read together
_LAST = 64  # packets; no fewer than a decoder may hold back
_DENSE = 2048  # bytes from one to the next: closer than that, reading everything is faster
_LARGEST = 1 << 24  # bytes of a packet that is read in whole for its header


def find_table(media: Media, video: OpenVideo) -> Numbers | None:
    """Position, size and decoding time of every packet, int64 [N, 3]; None where none tells."""
    if not isinstance(media.target, str) or video.stream.codec_context.name != "h264":
        return None
    samples = video.stream.index_entries
    # In a fragmented file, and where only a part is played, the table is not all there is to know.
    if not video.container.format.name.startswith("mov") or len(samples) != video.stream.frames:
        return None
    if len(samples) < _SHORT:
        return None
    video.watch.check_packets(len(samples))
    rows = [value for s in samples for value in (s.pos, s.size, s.timestamp, s.flags)]
    table = np.array(rows, dtype=np.int64).reshape(-1, 4)
    if np.any(table[:, 3] & ~_KEYFRAME):  # what is decoded but not shown
        return None
    table = table[:, :3]
    return table if _is_plausible(table, media.size()) else None


def _is_plausible(table: Numbers, size: int) -> bool:
    """Whether a file of this size can hold these packets, one after the other in time."""
    ends = table[:, _POSITION] + table[:, _SIZE]
    if np.any(table[:, :_STAMP] <= 0) or np.max(ends) > size:
        return False
    if np.sum(table[:, _SIZE]) > size:  # they overlap: there is no end to reading them
        return False
    return bool(np.all(np.diff(table[:, _STAMP]) > 0))


def scan_table(media: Media, video: OpenVideo, table: Numbers) -> Scan:
    """The same as ``frame_index.scan``; without an index where the table is not to be trusted."""
    return Scan(len(table), _index(media, video, table), _extent(video, table[:, _STAMP]))


def _index(media: Media, video: OpenVideo, table: Numbers) -> FrameIndex | None:
    stamps = table[:, _STAMP]
    start = _first_time(video, stamps)
    if start is None:
        return None
    try:
        orders, entries = _read_headers(Path(str(media.target)), video, table)
    except (UnusualStreamError, OSError):
        return None
    packet_of_frame = np.argsort(orders, kind="stable")
    if entries[0] != 0 or packet_of_frame[0] != 0:
        return None
    if holds_back(packet_of_frame) > reorder_depth(video.stream.codec_context):
        return None
    return FrameIndex(
        stamps=stamps,
        has_decoding_stamps=True,
        seek_times=(stamps,),
        start=start,
        packet_of_frame=packet_of_frame,
        entries=entries,
        skips_unreferenced=True,
    )


def _first_time(video: OpenVideo, stamps: Numbers) -> int | None:
    """When the first packet is shown; None where the packets are not those of the table."""
    container, stream = video.container, video.stream
    try:
        first = next(video.packets(), None)
        container.seek(int(stamps[-1]), stream=stream, backward=True, any_frame=True)
        last = [packet.dts for packet in itertools.islice(video.packets(), _LAST)]
    except av.FFmpegError:
        return None
    is_whole = 0 < len(last) < _LAST and last == stamps[-len(last) :].tolist()
    return first.pts if first is not None and first.dts == stamps[0] and is_whole else None


def _read_headers(path: Path, video: OpenVideo, table: Numbers) -> tuple[Numbers, Numbers]:
    """Numbers that ascend as the pictures are shown, and where decoding can start."""
    reader = HeaderReader(video.stream.codec_context.extradata or b"")
    if reader.length_size != 4:
        raise UnusualStreamError("lengths of another size")
    pictures = np.empty((len(table), len(Picture._fields)), dtype=np.int64)
    with path.open("rb", buffering=0) as file:
        for first in range(0, len(table), _BLOCK):
            block = table[first : first + _BLOCK]
            read = _read_block(reader, file.fileno(), block, video.watch)
            pictures[first : first + _BLOCK] = read
    return display_order(pictures), np.flatnonzero(pictures[:, 0])


def _read_block(reader: HeaderReader, descriptor: int, table: Numbers, watch: Watch) -> Numbers:
    watch.seconds_left()
    positions, sizes = table[:, _POSITION].tolist(), table[:, _SIZE].tolist()
    first, last = min(positions), max(positions)
    if last - first < _DENSE * len(positions):
        span = read_from(descriptor, last - first + HEAD_BYTES, first)
        heads = [span[position - first : position - first + HEAD_BYTES] for position in positions]
    else:
        heads = [read_from(descriptor, HEAD_BYTES, position) for position in positions]
    pictures, is_read = read_heads(reader, heads, sizes)
    for number in np.flatnonzero(~is_read).tolist():
        watch.seconds_left()
        if sizes[number] > _LARGEST:
            raise UnusualStreamError("a packet that is too large to be read for its header")
        pictures[number] = reader.read(read_from(descriptor, sizes[number], positions[number]))
    return pictures


def _extent(video: OpenVideo, stamps: Numbers) -> Extent:
    unit = video.stream.time_base
    if unit is None:
        return Extent(len(stamps), None, None)
    step = int(np.median(np.diff(stamps))) if len(stamps) > 1 else 0
    return Extent(len(stamps), float(stamps[0] * unit), float((stamps[-1] + step) * unit))
