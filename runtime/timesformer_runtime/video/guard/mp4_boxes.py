"""Finds boxes in an MP4 or QuickTime file wherever FFmpeg would read them.

Boxes lie in boxes. FFmpeg looks for any kind in all of those that hold others, in some of them
behind fields of their own, and in headers that are compressed.
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
# Whatever lies in these is found by its name: fields come first, of lengths that others decide.
_UNEVEN = frozenset((b"meta", b"stsd", b"iprp"))
_TABLES = frozenset((b"stsz", b"stts", b"ctts", b"stsc", b"stco", b"co64", b"stss", b"trun"))
_DEEPEST = 12  # FFmpeg gives up at 11
_COMPRESSED_HEAD = 24  # bytes in a compressed header before its data; the last four are its length
_LONGEST_HEADER = 1 << 24  # bytes; only QuickTime of the nineties compressed them
_PIECE = 1 << 20  # bytes that are read at a time
_BOXES = 16  # times as many as there may be packets


class Box(NamedTuple):
    """A box: its kind, where its content begins and ends, and what reads there."""

    kind: bytes
    first: int
    stop: int
    read_at: ReadAt

    def read(self, count: int) -> bytes:
        """The first bytes of its content, or what is behind where it has fewer."""
        return self.read_at(self.first, count)


def find_boxes(video_file: VideoFile, kinds: Collection[bytes]) -> Iterator[Box]:
    """The boxes of these kinds, in order; those of other kinds may be among them.

    Raises:
        VideoLimitError: There are far more boxes than there may be packets, or a compressed
            header is longer than any that is needed.
        OSError: The file cannot be read.
    """
    limit = _BOXES * video_file.watch.limits.max_packets
    with video_file.reader() as read_at:
        found = _Finder(video_file, frozenset(kinds))
        for count, box in enumerate(found.everywhere(read_at, video_file.size()), start=1):
            video_file.watch.seconds_left()
            if count > limit:
                raise VideoLimitError(
                    f"{video_file.name} has more than {limit} boxes, {_BOXES} times as many as "
                    "packets are allowed; give a shorter video, or raise max_packets"
                )
            yield box


class _Finder:
    def __init__(self, video_file: VideoFile, kinds: frozenset[bytes]) -> None:
        self._file = video_file
        self._kinds = kinds | {b"cmov", b"sidx"}
        self._fragments: set[int] = set()  # where they are said to begin, and no box does

    def everywhere(self, read_at: ReadAt, size: int) -> Iterator[Box]:
        """All boxes of a file, and those to which FFmpeg jumps when it seeks."""
        yield from self.below(b"root", read_at, 0, size, 0)
        seen: set[int] = set()
        while hidden := self._fragments - seen:
            seen |= hidden
            for place in hidden:
                for box in self.below(b"root", read_at, place, size, 0):
                    yield box
                    if box.kind == b"mdat":
                        break

    def below(
        self, parent: bytes, read_at: ReadAt, start: int, end: int, depth: int
    ) -> Iterator[Box]:
        """The boxes from here to there, each before those in it."""
        place = start
        while place + 8 <= end and depth <= _DEEPEST:
            if depth == 0:
                self._fragments.discard(place)
            head = read_at(place, 16)
            size, kind, first = number(head[:4]), head[4:8], place + 8
            if kind in {b"trak", b"mdat"} and parent not in {b"root", b"moov"}:
                return  # FFmpeg reads no further there
            if size == 1:
                size, first = number(head[8:16]), place + 16
            elif size == 0:
                size = end - place
            if size < first - place:
                return
            if kind in {b"free", b"hoov"} and head[12:16] in {b"mvhd", b"cmov"}:
                kind = b"moov"  # which an editor took out
            stop = min(place + size, end)
            yield from self._all_of(Box(kind, first, stop, read_at), depth)
            place = stop

    def _all_of(self, box: Box, depth: int) -> Iterator[Box]:
        yield box
        if box.kind in _PARENTS:
            yield from self.below(box.kind, box.read_at, box.first, box.stop, depth + 1)
        elif box.kind in _UNEVEN:
            yield from self._named(box, depth)
        elif box.kind == b"sidx":
            self._fragments.update(_listed_fragments(box))
        elif box.kind == b"cmov":
            header = self._decompressed(box)
            yield from self.below(
                b"moov",
                lambda place, count: header[place : place + count],
                0,
                len(header),
                depth + 1,
            )

    def _named(self, parent: Box, depth: int) -> Iterator[Box]:
        """Finds by name whatever may be a box of the wanted kinds, at any depth."""
        for start in range(parent.first, parent.stop, _PIECE):
            data = parent.read_at(start, min(_PIECE + 7, parent.stop - start))
            for kind in self._kinds:
                at = data.find(kind, 4)
                while at >= 0:
                    place = start + at - 4
                    size = number(data[at - 4 : at])
                    is_open = size in {0, 1}  # to the parent's end, or as a long number says
                    stop = parent.stop if is_open else place + size
                    if is_open or (size >= 8 and stop <= parent.stop):
                        first = place + (16 if size == 1 else 8)
                        yield from self._all_of(Box(kind, first, stop, parent.read_at), depth + 1)
                    at = data.find(kind, at + 1)

    def _decompressed(self, box: Box) -> bytes:
        """A compressed header; empty where it is none, and FFmpeg gives up as well."""
        head = box.read(_COMPRESSED_HEAD)
        length = number(head[-4:])
        if length > _LONGEST_HEADER or box.stop - box.first > _LONGEST_HEADER:
            raise VideoLimitError(
                f"{self._file.name} has a compressed header of {length} bytes, above the limit of "
                f"{_LONGEST_HEADER}; copy it to a new file with another program"
            )
        data = box.read_at(box.first + _COMPRESSED_HEAD, box.stop - box.first - _COMPRESSED_HEAD)
        try:
            return zlib.decompressobj().decompress(data, length + 1)
        except zlib.error:
            return b""


def _listed_fragments(box: Box) -> Iterator[int]:
    """Where the fragments begin that an index lists, one after the other behind it."""
    is_long = box.read(1) == b"\1"
    before = 20 if is_long else 16
    head = box.read(before + 12)
    place = box.stop + number(head[before : before + 8] if is_long else head[before : before + 4])
    before += 8 if is_long else 4
    rows = box.read_at(box.first + before + 4, 12 * number(head[before + 2 : before + 4]))
    for start in range(0, len(rows), 12):
        yield place
        place += number(rows[start : start + 4])


def find_tables(video_file: VideoFile) -> range:
    """Where the tables of samples are; empty where there are none, or compressed ones.

    Raises:
        OSError: The file cannot be read.
    """
    first, stop = video_file.size(), 0
    for box in find_boxes(video_file, _TABLES):
        if box.kind == b"cmov":
            return range(0)
        if box.kind in _TABLES:
            first, stop = min(first, box.first), max(stop, box.stop)
    return range(first, stop)


def number(data: bytes) -> int:
    """Bytes as an unsigned number."""
    return int.from_bytes(data, "big")
