"""Finds streams of very many units before FFmpeg does: it takes up to 12 KB for each.

A picture of H.264, HEVC or VVC consists of NAL units; of four bytes each, a packet of a few
megabytes has a million. No option of FFmpeg limits them, and it splits packets already when it
opens a file. Units that end at start codes are found inside those that have a length too, so that
no container is safe. Where FFmpeg can do without its parsers, packets are looked at before they
are decoded: there units are also counted by their lengths.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from timesformer_runtime.errors import TimesformerError, unreadable
from timesformer_runtime.video.file import SeekableFile
from timesformer_runtime.video.limits import Watch

if TYPE_CHECKING:
    import av

MOST_UNITS = 1 << 14  # of one picture; 8K pictures have some thousand at most
_START_CODE = b"\0\0\1"
_HARMLESS = 4 * MOST_UNITS  # bytes: too few for so many units
_VVC = "vvc"
_SPLIT_AS_READ = frozenset({"hevc", _VVC})  # by FFmpeg's parsers, before anything is decoded
_CODECS = _SPLIT_AS_READ | {"h264"}
_AV1_NAME = b"av01"  # in AVI and IVF, where capitals may stand for small letters
_PLACE_OF_LENGTH_SIZE = {"h264": 4, "hevc": 21}  # in the decoder's configuration
_TS_PACKET, _TS_SYNC = 188, 0x47  # bytes, and the first of them
_AV1_DECODERS = frozenset({"libdav1d", "libaom-av1", "av1"})


class CountedFile:
    """A file object that counts the start codes in what is read of it.

    It ends at the limit while FFmpeg opens it, which then tells the codec of what it saw: other
    formats have bytes that look like start codes. Afterwards it raises.

    Args:
        file: What to read.
        watch: Ends reading with the time: FFmpeg's own timeout ignores file objects.
        name: Its ending tells FFmpeg the format where nothing else does.
        tables: Where the tables of an MP4 file are. They are not counted when they are read for
            the first time, in a row: packets may be said to lie there too.
        ends_at_av1: Whether it ends at the name that AVI and IVF have for that codec as well.

    Attributes:
        is_over: Whether there were more than the limit.
        names_av1: Whether it ended there.
        error: What went wrong first while FFmpeg read it, which may have passed over it.
    """

    def __init__(
        self,
        file: SeekableFile,
        watch: Watch,
        name: str = "",
        tables: range = range(0),
        *,
        ends_at_av1: bool = False,
    ) -> None:
        self.name = name
        self.is_over = self.names_av1 = False
        self.error: BaseException | None = None
        self.tell = file.tell
        self._file = file
        self._watch = watch
        self._tables = tables
        self._following = -1  # the place after the table that was read last
        self._count = 0
        self._is_counting = self._is_opening = True
        self._ends_at_av1 = ends_at_av1
        self._last = b""  # in which a name may begin

    def read(self, size: int, /) -> bytes:
        """Reads up to so many bytes.

        Raises:
            VideoLimitError: The time is over, or a packet has too many units.
        """
        self._watch.seconds_left()
        if self.is_over or self.names_av1:
            return b""
        place = self._file.tell() if self._is_counting and self._tables else 0
        data = self._file.read(size)
        if self._ends_at_av1:
            self._look_for_av1(data)
        if self._is_counting and not (self._tables and self._is_table(place, len(data))):
            self._count += data.count(_START_CODE)
            self.is_over = self._count > MOST_UNITS
            if not self._is_opening:
                self._watch.check_units(self._count, MOST_UNITS)
        return b"" if self.is_over or self.names_av1 else data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Goes to a place and gives it; -1 where there is none, as before the beginning."""
        if whence == os.SEEK_SET and offset < 0:
            return -1
        try:
            return self._file.seek(offset, whence)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        return -1

    def note(self, error: BaseException) -> None:
        """Keeps an error, unless there was another one before."""
        self.error = self.error or error

    def raise_error(self) -> None:
        """Raises the error that was noted, such as an interrupt.

        Raises:
            InvalidVideoError: The file cannot be read.
            BaseException: What else was noted.
        """
        error = self.error
        if isinstance(error, OSError | ValueError) and not isinstance(error, TimesformerError):
            raise unreadable(self._watch.name, error) from error
        if error is not None:
            raise error

    def stop_counting(self) -> None:
        """Reads all of it from now on."""
        self._is_counting = self.is_over = False

    def end_opening(self) -> None:
        """From now on the limit is that of one packet, and an error."""
        self._is_opening = self._ends_at_av1 = False
        self.expect_packet()

    def expect_packet(self) -> None:
        """Starts to count for the next packet."""
        self._count = 0

    def _look_for_av1(self, data: bytes) -> None:
        if not self._last and len(data) > 20 * _TS_PACKET and set(data[::_TS_PACKET]) == {_TS_SYNC}:
            self._ends_at_av1 = False  # FFmpeg finds no AV1 in MPEG-TS
            return
        seen = self._last + data.lower()
        self._last = seen[1 - len(_AV1_NAME) :]
        self.names_av1 = _AV1_NAME in seen

    def _is_table(self, place: int, count: int) -> bool:
        """Whether bytes that were read belong to tables, and nothing was read since they began."""
        has_begun = self._following >= 0
        if not has_begun and (place + count <= self._tables.start or place >= self._tables.stop):
            return False
        if (has_begun and place != self._following) or place >= self._tables.stop:
            self._tables = range(0)
            return False
        self._following = place + count
        return True


def is_av1(codec: av.CodecContext) -> bool:
    """Whether FFmpeg's parser would take kilobytes for each unit, whatever its size."""
    return codec.name in _AV1_DECODERS


def has_units(codec: av.CodecContext) -> bool:
    """Whether FFmpeg splits the packets of this codec into units."""
    return codec.name in _CODECS


def splits_as_read(codec: av.CodecContext) -> bool:
    """Whether FFmpeg splits packets of this codec already when it reads them."""
    return codec.name in _SPLIT_AS_READ


def check_packet(packet: av.Packet[Any] | None, codec: av.CodecContext, watch: Watch) -> None:
    """Makes sure that a packet has not far too many units.

    Raises:
        VideoLimitError: It has.
    """
    if packet is not None and packet.size > _HARMLESS and has_units(codec):
        data = bytes(packet)
        watch.check_units(data.count(_START_CODE), MOST_UNITS)
        watch.check_units(_count_by_lengths(data, _length_size(codec)), MOST_UNITS)


def _length_size(codec: av.CodecContext) -> int:
    """How many bytes say how long a unit is; 0 where start codes separate them."""
    record = codec.extradata or b""
    if codec.name == _VVC:  # five bits that are set, then two of the size less one
        return (record[0] >> 1 & 3) + 1 if record and record[0] >= 0xF8 else 0
    place = _PLACE_OF_LENGTH_SIZE.get(codec.name, 0)
    return (record[place] & 3) + 1 if record[:1] == b"\1" and len(record) > place else 0


def _count_by_lengths(data: bytes, size: int) -> int:
    count = place = 0
    while size and place < len(data) and count <= MOST_UNITS:
        place += size + int.from_bytes(data[place : place + size], "big")
        count += 1
    return count
