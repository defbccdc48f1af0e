"""Looks at what an MP4 or QuickTime file announces, before FFmpeg makes room for it.

Tables of samples can be written in a few bytes: "a hundred million of one byte each". FFmpeg makes
an entry of 24 bytes or more for each when it opens the file, and again for each part of an edit
list. No option of it limits that.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from timesformer_runtime.errors import VideoLimitError
from timesformer_runtime.video.file import VideoFile
from timesformer_runtime.video.guard.mp4_boxes import Box, find_boxes, number

_SIZES, _OFFSETS = (b"stsz", b"stz2"), (b"stco", b"co64")
_TABLES = frozenset((*_SIZES, *_OFFSETS, b"stts", b"stsc", b"elst", b"hdlr", b"trun"))
# The handlers that make something else of sound; metadata has handlers as well.
_NO_SOUND = frozenset((b"vide", b"subp", b"clcp"))
_RAW_AT_ONCE = 160  # samples of raw sound, at least, that are one entry
_OTHERS = 8  # times as many packets as the pictures have: sound in several languages
# So many times with those that edits repeat, 36 bytes each. From each edit FFmpeg goes on to a
# keyframe, and without one to the end: each counts as if it repeated everything. That is an hour of
# pictures and sound with 120 edits.
_EDITED = 16


def check_tables(video_file: VideoFile) -> None:
    """Makes sure that a file does not announce far more packets than the limit.

    Files of other formats pass. What an MP4 file announces is checked against the limit itself
    when it is read.

    Raises:
        VideoLimitError: It announces too many.
        OSError: It cannot be read.
    """
    track = _Track()
    packets = repeated = 0
    for box in find_boxes(video_file, _TABLES):
        if box.kind == b"trak":
            packets += track.packets()
            repeated += track.packets() * track.edits
            track = _Track()
        elif box.kind == b"trun":
            packets += number(box.read(8)[4:])
        elif box.kind in _TABLES:
            track.add(box)
    packets += track.packets()
    repeated += track.packets() * track.edits
    limit = video_file.watch.limits.max_packets
    if packets > _OTHERS * limit:
        video_file.watch.check_packets(packets)
    if repeated > _EDITED * limit:
        raise VideoLimitError(
            f"{video_file.name} has edit lists by which its packets may become {repeated}, more "
            f"than {_EDITED} times the limit of {limit}; write its edits into a new file, or raise "
            "max_packets"
        )


@dataclasses.dataclass
class _Track:
    """What the boxes of a track state so far; of two boxes of a kind FFmpeg may take either."""

    samples: int = 0
    chunks: int = 0
    listed_edits: int = 0
    handlers: set[bytes] = dataclasses.field(default_factory=set)
    steps: set[bool] = dataclasses.field(default_factory=set)  # whether each sample takes one unit
    runs: list[bytes] = dataclasses.field(default_factory=list)

    @property
    def edits(self) -> int:
        """How often FFmpeg may list the packets."""
        return max(1, self.listed_edits)

    def packets(self) -> int:
        """How many entries FFmpeg makes, without edits; raw sound is read in larger pieces."""
        is_sound = b"soun" in self.handlers and not self.handlers & _NO_SOUND
        if is_sound and self.steps == {True}:
            return sum(_raw_entries(rows, self.chunks) for rows in self.runs)
        return self.samples

    def add(self, box: Box) -> None:
        """Takes what a box says."""
        start = box.read(24)
        if box.kind in _SIZES:
            self.samples += number(start[8:12])
        elif box.kind in _OFFSETS:
            self.chunks += number(start[4:8])
        elif box.kind == b"elst":
            self.listed_edits += _edits(box, start)
        elif box.kind == b"hdlr":
            self.handlers.add(start[8:12])
        elif box.kind == b"stts":
            self.steps.add(number(start[4:8]) == 1 == number(start[12:16]))
        elif box.kind == b"stsc":
            self.runs.append(_runs(box))


def _edits(box: Box, start: bytes) -> int:
    """How many edits FFmpeg finds: it goes by the size. A first one that is empty only delays."""
    entry, time = (20, start[16:24]) if start[:1] == b"\1" else (12, start[12:16])
    count = max(0, box.stop - box.first - 8) // entry
    return count - (count > 0 and not time.strip(b"\xff"))


def _runs(box: Box) -> bytes:
    """The rows of a table of chunks, 12 bytes each, as far as they are there."""
    count = min(number(box.read(8)[4:]), (box.stop - box.first - 8) // 12)
    return box.read(8 + 12 * max(0, count))[8:]


def _raw_entries(runs: bytes, chunks: int) -> int:
    """How many entries chunks of raw sound are, by the runs of chunks of one length."""
    table = np.frombuffer(runs[: len(runs) // 12 * 12], dtype=">u4").astype(np.int64)
    firsts, samples, _ = table.reshape(-1, 3).T
    lengths = np.abs(np.diff(firsts, append=chunks + 1))  # wrong ones wrap around in FFmpeg
    return int(np.sum(lengths * np.ceil(samples / _RAW_AT_ONCE)))
