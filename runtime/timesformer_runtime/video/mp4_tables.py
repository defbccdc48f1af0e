"""Looks at what an MP4 or QuickTime file announces, before FFmpeg makes room for it.

Tables of samples can be written in a few bytes: "a hundred million of one byte each". FFmpeg makes
an entry of 24 bytes for each when it opens the file, and again for each part of an edit list. No
option of it limits that.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from timesformer_runtime.video.container import Media

_ReadAt = Callable[[int, int], bytes]  # a place, and how much

# Boxes that hold the tables, and those in which FFmpeg would find them too.
_PARENTS = frozenset(
    (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"moof", b"traf", b"udta", b"mvex")
)
_TABLES = frozenset((b"stsz", b"stts", b"elst", b"hdlr"))
_SOUND_HANDLERS = frozenset((b"soun", b"alis", b"url ", b"rsrc"))  # and where its data is
_DEEPEST = 10  # as FFmpeg
_OTHERS = 8  # times as many packets as the pictures have: sound in several languages, edits


def check_tables(media: Media) -> None:
    """Makes sure that a file does not announce far more packets than the limit.

    Files of other formats pass. What an MP4 file announces is checked against the limit itself
    when it is read.

    Raises:
        VideoLimitError: It announces too many.
        OSError: It cannot be read.
    """
    tracks = [_Track()]
    in_fragments = 0
    with _reader(media) as read_at:
        for kind, first in _boxes(media, read_at, 0, media.size(), 0):
            if kind == b"trak":
                tracks.append(_Track())
            elif kind == b"trun":
                in_fragments += _number(read_at(first + 4, 4))
            elif kind in _TABLES:
                tracks[-1].add(kind, read_at(first, 16))
    packets = in_fragments + sum(track.packets for track in tracks)
    if packets > _OTHERS * media.watch.limits.max_packets:
        media.watch.check_packets(packets)


@dataclasses.dataclass
class _Track:
    """What the boxes of a track say so far."""

    samples: int = 0
    edits: int = 1
    handlers: set[bytes] = dataclasses.field(default_factory=set)
    is_raw: bool = False  # each sample takes one unit of time

    @property
    def packets(self) -> int:
        """How many entries FFmpeg makes; raw sound is read in larger pieces."""
        is_sound = b"soun" in self.handlers and self.handlers <= _SOUND_HANDLERS
        return 0 if is_sound and self.is_raw else self.samples * self.edits

    def add(self, kind: bytes, start: bytes) -> None:
        """Takes the first bytes inside of a box."""
        if kind == b"stsz":
            self.samples = max(self.samples, _number(start[8:12]))
        elif kind == b"elst":
            self.edits = max(self.edits, _number(start[4:8]))
        elif kind == b"hdlr":
            self.handlers.add(start[8:12])
        elif kind == b"stts":
            self.is_raw = _number(start[4:8]) == 1 == _number(start[12:16])


def _boxes(
    media: Media, read_at: _ReadAt, start: int, end: int, depth: int
) -> Iterator[tuple[bytes, int]]:
    """The kind of each box, and where its content begins."""
    place = start
    while place + 8 <= end:
        media.watch.seconds_left()
        head = read_at(place, 16)
        size, kind, first = _number(head[:4]), head[4:8], place + 8
        if size == 1:
            size, first = _number(head[8:16]), place + 16
        elif size == 0:
            size = end - place
        if size < first - place:
            return
        stop = min(place + size, end)
        yield kind, first
        if kind in _PARENTS and depth < _DEEPEST:
            yield from _boxes(media, read_at, first, stop, depth + 1)
        place = stop


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")


@contextlib.contextmanager
def _reader(media: Media) -> Iterator[_ReadAt]:
    target = media.target
    if isinstance(target, str):
        with Path(target).open("rb", buffering=0) as opened:
            yield lambda place, count: os.pread(opened.fileno(), count, place)
        return

    def read_at(place: int, count: int) -> bytes:
        target.seek(place)
        return target.read(count)

    yield read_at
