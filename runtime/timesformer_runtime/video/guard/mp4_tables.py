"""Counts the packets that an MP4 or QuickTime file announces, before FFmpeg allocates them.

A sample table can announce packets in a few bytes: "a hundred million of one byte each". FFmpeg
allocates an entry of 24 bytes or more for each packet when it opens the file, and again for each
part of an edit list. No option of FFmpeg limits that.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from timesformer_runtime.errors import VideoLimitError
from timesformer_runtime.video.file import VideoFile
from timesformer_runtime.video.guard.mp4_boxes import Box, find_boxes, to_int

_SIZES, _OFFSETS = (b"stsz", b"stz2"), (b"stco", b"co64")
_KINDS = frozenset((*_SIZES, *_OFFSETS, b"stts", b"stsc", b"elst", b"hdlr", b"trun"))
# A track with one of these handlers is not an audio track, even where it has b"soun", too: the
# metadata of a track may have a handler of its own.
_NOT_AUDIO = frozenset((b"vide", b"subp", b"clcp"))
_SAMPLES_PER_ENTRY = 160  # of uncompressed audio, at least
# All tracks together may have so many times max_packets: some files have audio in many languages.
_TRACKS_FACTOR = 8
# Packets with their repetitions by edits, 36 bytes each, may be so many times max_packets. FFmpeg
# goes on from each edit to a keyframe, or to the end if there is none: so each edit counts as if it
# repeated all packets. This allows an hour of video and audio with 120 edits.
_EDITS_FACTOR = 16


def check_sample_tables(video_file: VideoFile) -> None:
    """Checks that a file does not announce far more packets than the limit.

    Files of other formats pass. Reading an MP4 file later counts its packets against the limit
    itself.

    Raises:
        VideoLimitError: The file announces too many packets.
        OSError: The file cannot be read.
    """
    track = _Track()
    packets = repeated = 0
    for box in find_boxes(video_file, _KINDS):
        if box.kind == b"trak":
            packets += track.packets()
            repeated += track.packets() * track.edits
            track = _Track()
        elif box.kind == b"trun":
            packets += to_int(box.read(8)[4:])
        elif box.kind in _KINDS:
            track.add(box)
    packets += track.packets()
    repeated += track.packets() * track.edits
    limit = video_file.watch.limits.max_packets
    if packets > _TRACKS_FACTOR * limit:
        video_file.watch.check_packets(packets)
    if repeated > _EDITS_FACTOR * limit:
        raise VideoLimitError(
            f"{video_file.name} has edit lists by which its packets may become {repeated}, more "
            f"than {_EDITS_FACTOR} times the limit of {limit}; write its edits into a new file, or "
            "raise `max_packets`"
        )


@dataclasses.dataclass
class _Track:
    """The facts that the boxes of a track state. Of two boxes of one kind FFmpeg may use either.

    Attributes:
        samples: Number of samples that the tables of sizes list.
        chunks: Number of chunks that the tables of offsets list.
        listed_edits: Number of edits in the edit lists.
        handlers: The handlers, such as ``vide``.
        has_unit_durations: For each table of durations, True if every sample lasts one tick.
        chunk_runs: The rows of each table of runs: chunks in a row that have equally many samples.
    """

    samples: int = 0
    chunks: int = 0
    listed_edits: int = 0
    handlers: set[bytes] = dataclasses.field(default_factory=set)
    has_unit_durations: set[bool] = dataclasses.field(default_factory=set)
    chunk_runs: list[bytes] = dataclasses.field(default_factory=list)

    @property
    def edits(self) -> int:
        """The number of times that FFmpeg may list the packets."""
        return max(1, self.listed_edits)

    def packets(self) -> int:
        """Counts the entries that FFmpeg allocates without edits.

        FFmpeg reads many samples of uncompressed audio as one packet.
        """
        is_audio = b"soun" in self.handlers and not self.handlers & _NOT_AUDIO
        if is_audio and self.has_unit_durations == {True}:
            return sum(_uncompressed_entries(runs, self.chunks) for runs in self.chunk_runs)
        return self.samples

    def add(self, box: Box) -> None:
        """Adds the facts that a box states."""
        start = box.read(24)
        if box.kind in _SIZES:
            self.samples += to_int(start[8:12])
        elif box.kind in _OFFSETS:
            self.chunks += to_int(start[4:8])
        elif box.kind == b"elst":
            self.listed_edits += _edits(box, start)
        elif box.kind == b"hdlr":
            self.handlers.add(start[8:12])
        elif box.kind == b"stts":
            self.has_unit_durations.add(to_int(start[4:8]) == 1 == to_int(start[12:16]))
        elif box.kind == b"stsc":
            self.chunk_runs.append(_runs(box))


def _edits(box: Box, start: bytes) -> int:
    """Counts the edits by the size of the box, as FFmpeg does.

    An empty edit at the start only delays the track, and does not count.
    """
    entry, time = (20, start[16:24]) if start[:1] == b"\1" else (12, start[12:16])
    count = max(0, box.end - box.start - 8) // entry
    return count - (count > 0 and not time.strip(b"\xff"))


def _runs(box: Box) -> bytes:
    """Reads the rows of a table of runs, 12 bytes each, as far as they are in the box."""
    count = min(to_int(box.read(8)[4:]), (box.end - box.start - 8) // 12)
    return box.read(8 + 12 * max(0, count))[8:]


def _uncompressed_entries(runs: bytes, chunks: int) -> int:
    """Counts the entries for the chunks of uncompressed audio, from the rows of a table of runs."""
    table = np.frombuffer(runs[: len(runs) // 12 * 12], dtype=">u4").astype(np.int64)
    firsts, samples, _ = table.reshape(-1, 3).T
    lengths = np.abs(np.diff(firsts, append=chunks + 1))  # wrong ones wrap around in FFmpeg
    return int(np.sum(lengths * np.ceil(samples / _SAMPLES_PER_ENTRY)))
