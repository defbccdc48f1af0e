"""Finds boxes in an MP4 or QuickTime file wherever FFmpeg would read them.

Boxes contain boxes. FFmpeg looks for boxes of any kind in every box that can contain others. Some
of these have fields of their own before the boxes, and some headers are compressed.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator
from typing import NamedTuple

from timesformer_runtime.errors import VideoLimitError
from timesformer_runtime.video.file import ReadAt, VideoFile

_PARENTS = frozenset(
    (
        *(b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"dinf", b"tref", b"udta", b"mvex"),
        *(b"moof", b"traf", b"wave", b"sinf", b"schi", b"ilst"),
    )
)
# Parents with fields before their children; the length of the fields depends on other boxes, so
# this module finds the children by name.
_PARENTS_WITH_FIELDS = frozenset((b"meta", b"stsd", b"iprp"))
_SAMPLE_TABLES = frozenset((b"stsz", b"stts", b"ctts", b"stsc", b"stco", b"co64", b"stss", b"trun"))
_MAX_DEPTH = 12  # FFmpeg stops at 11
_COMPRESSED_HEAD = 24  # bytes before the data of a compressed header; the last four are its length
_MAX_COMPRESSED_HEADER = 1 << 24  # bytes; only QuickTime of the nineties wrote compressed headers
_CHUNK = 1 << 20  # bytes to search for names at a time
_BOXES_PER_PACKET = 16  # a file may have max_packets times this many boxes


class Box(NamedTuple):
    """A box.

    Attributes:
        kind: Its name of four letters.
        start: The offset of its content.
        end: The offset after its content.
        read_at: Reads bytes at an offset, in the file or in a decompressed header.
    """

    kind: bytes
    start: int
    end: int
    read_at: ReadAt

    def read(self, count: int) -> bytes:
        """Reads bytes from the start of the content; they may reach beyond the end of the box."""
        return self.read_at(self.start, count)


def find_boxes(video_file: VideoFile, kinds: Collection[bytes]) -> Iterator[Box]:
    """Gives the boxes of these kinds, in order; boxes of other kinds may be among them.

    Raises:
        VideoLimitError: There are far more boxes than allowed packets, or a compressed header is
            longer than any real one.
        OSError: The file cannot be read.
    """
    limit = _BOXES_PER_PACKET * video_file.watch.limits.max_packets
    with video_file.random_access() as read_at:
        finder = _Finder(video_file, frozenset(kinds))
        for count, box in enumerate(finder.all_boxes(read_at, video_file.size()), start=1):
            video_file.watch.check_time()
            if count > limit:
                raise VideoLimitError(
                    f"{video_file.name} has more than {limit} boxes, {_BOXES_PER_PACKET} times as "
                    "many as packets are allowed; give a shorter video, or raise `max_packets`"
                )
            yield box


class _Finder:
    """Walks through the boxes of a file, and notes fragments to which FFmpeg may jump."""

    def __init__(self, video_file: VideoFile, kinds: frozenset[bytes]) -> None:
        self._file = video_file
        self._kinds = kinds | {b"cmov", b"sidx"}
        # Offsets at which a ``sidx`` box says that fragments begin, and no box was found so far.
        self._fragments: set[int] = set()

    def all_boxes(self, read_at: ReadAt, size: int) -> Iterator[Box]:
        """Gives all boxes of a file, and then those to which FFmpeg jumps when it seeks."""
        yield from self._boxes_between(0, size, b"root", read_at, 0)
        seen: set[int] = set()
        while hidden := self._fragments - seen:
            seen |= hidden
            for offset in hidden:
                for box in self._boxes_between(offset, size, b"root", read_at, 0):
                    yield box
                    if box.kind == b"mdat":
                        break

    def _boxes_between(
        self, start: int, end: int, parent: bytes, read_at: ReadAt, depth: int
    ) -> Iterator[Box]:
        """Gives the boxes from one offset to another, each before the boxes in it."""
        offset = start
        while offset + 8 <= end and depth <= _MAX_DEPTH:
            if depth == 0:
                self._fragments.discard(offset)
            head = read_at(offset, 16)
            size, kind, content = to_int(head[:4]), head[4:8], offset + 8
            if kind in {b"trak", b"mdat"} and parent not in {b"root", b"moov"}:
                return  # FFmpeg reads no further there
            if size == 1:
                size, content = to_int(head[8:16]), offset + 16
            elif size == 0:
                size = end - offset
            if size < content - offset:
                return
            if kind in {b"free", b"hoov"} and head[12:16] in {b"mvhd", b"cmov"}:
                kind = b"moov"  # an editing program removed the box by renaming it
            box_end = min(offset + size, end)
            yield from self._with_children(Box(kind, content, box_end, read_at), depth)
            offset = box_end

    def _with_children(self, box: Box, depth: int) -> Iterator[Box]:
        """Gives a box, and then the boxes in it."""
        yield box
        if box.kind in _PARENTS:
            yield from self._boxes_between(box.start, box.end, box.kind, box.read_at, depth + 1)
        elif box.kind in _PARENTS_WITH_FIELDS:
            yield from self._children_by_name(box, depth)
        elif box.kind == b"sidx":
            self._fragments.update(_listed_fragments(box))
        elif box.kind == b"cmov":
            header = self._decompressed(box)
            yield from self._boxes_between(
                0,
                len(header),
                b"moov",
                lambda offset, count: header[offset : offset + count],
                depth + 1,
            )

    def _children_by_name(self, parent: Box, depth: int) -> Iterator[Box]:
        """Gives all bytes that look like a box of the wanted kinds, at any depth in the parent."""
        for start in range(parent.start, parent.end, _CHUNK):
            data = parent.read_at(start, min(_CHUNK + 7, parent.end - start))
            for kind in self._kinds:
                at = data.find(kind, 4)
                while at >= 0:
                    offset = start + at - 4
                    size = to_int(data[at - 4 : at])
                    is_open = size in {0, 1}  # up to the parent's end, or as a 64-bit size says
                    end = parent.end if is_open else offset + size
                    if is_open or (size >= 8 and end <= parent.end):
                        content = offset + (16 if size == 1 else 8)
                        box = Box(kind, content, end, parent.read_at)
                        yield from self._with_children(box, depth + 1)
                    at = data.find(kind, at + 1)

    def _decompressed(self, box: Box) -> bytes:
        """Decompresses a header; empty if its data are damaged, where FFmpeg fails as well."""
        head = box.read(_COMPRESSED_HEAD)
        length = to_int(head[-4:])
        if length > _MAX_COMPRESSED_HEADER or box.end - box.start > _MAX_COMPRESSED_HEADER:
            raise VideoLimitError(
                f"{self._file.name} has a compressed header of {length} bytes, above the limit of "
                f"{_MAX_COMPRESSED_HEADER}; copy it to a new file with another program"
            )
        data = box.read_at(box.start + _COMPRESSED_HEAD, box.end - box.start - _COMPRESSED_HEAD)
        try:
            return zlib.decompressobj().decompress(data, length + 1)
        except zlib.error:
            return b""


def _listed_fragments(index: Box) -> Iterator[int]:
    """Gives the offsets of the fragments that a ``sidx`` box lists; they follow it in a row."""
    is_long = index.read(1) == b"\1"
    before = 20 if is_long else 16
    head = index.read(before + 12)
    offset = index.end + to_int(head[before : before + 8] if is_long else head[before : before + 4])
    before += 8 if is_long else 4
    rows = index.read_at(index.start + before + 4, 12 * to_int(head[before + 2 : before + 4]))
    for start in range(0, len(rows), 12):
        yield offset
        offset += to_int(rows[start : start + 4])


def find_sample_tables(video_file: VideoFile) -> range:
    """Finds the offsets of all sample tables, from the first to the last.

    Returns:
        The offsets; empty where the file has no tables, or has them in a compressed header.

    Raises:
        OSError: The file cannot be read.
    """
    start, end = video_file.size(), 0
    for box in find_boxes(video_file, _SAMPLE_TABLES):
        if box.kind == b"cmov":
            return range(0)
        if box.kind in _SAMPLE_TABLES:
            start, end = min(start, box.start), max(end, box.end)
    return range(start, end)


def to_int(data: bytes) -> int:
    """Reads bytes as an unsigned big-endian number."""
    return int.from_bytes(data, "big")
