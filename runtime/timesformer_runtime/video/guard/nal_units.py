"""Refuses packets of very many NAL units before FFmpeg splits them, at up to 12 KB for each unit.

A frame of H.264, HEVC or VVC consists of NAL units. At four bytes each, a packet of a few megabytes
has a million NAL units. No option of FFmpeg limits their number, and FFmpeg's parsers split packets
already while FFmpeg opens a file. The parsers also find NAL units by start codes inside a unit that
states its length. So any container can hold such a packet.

``GuardedFile`` counts start codes in everything that FFmpeg reads. ``check_packet`` counts the
start codes of a packet before FFmpeg decodes the packet, and also counts NAL units by the lengths
that they state.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from timesformer_runtime.errors import TimesformerError, unreadable
from timesformer_runtime.video.file import SeekableFile
from timesformer_runtime.video.limits import Watch

if TYPE_CHECKING:
    from timesformer_runtime.video.pyav import av

MAX_NAL_UNITS = 1 << 14  # of one frame; 8K frames have some thousand at most
_START_CODE = b"\0\0\1"
_HARMLESS_BYTES = 4 * MAX_NAL_UNITS  # a packet has no more NAL units than a quarter of its bytes
_VVC = "vvc"
_SPLIT_BY_PARSER = frozenset({"hevc", _VVC})  # before anything is decoded
_NAL_UNIT_CODECS = _SPLIT_BY_PARSER | {"h264"}
_AV1_NAME = b"av01"  # in AVI and IVF files, in small letters or capitals
_OFFSET_OF_LENGTH_SIZE = {"h264": 4, "hevc": 21}  # in the decoder's configuration record
_TS_PACKET, _TS_SYNC = 188, 0x47  # bytes of an MPEG-TS packet, and the first of them
_AV1_DECODERS = frozenset({"libdav1d", "libaom-av1", "av1"})


class GuardedFile:
    """The file object that FFmpeg reads; counts start codes, and keeps the time limit.

    While FFmpeg opens the file, too many start codes make it end early. FFmpeg then still tells the
    codec, and the caller opens the file again where that codec has no NAL units: any bytes may look
    like start codes. Once the file is open, too many start codes in a packet are an error.

    Args:
        file: The file object of the video.
        watch: Ends reading when the time is over: FFmpeg's own timeout ignores file objects.
        name: A path; its suffix tells FFmpeg the format where nothing else does.
        tables: The offsets of the sample tables in an MP4 file. Tables look like start codes, so
            they do not count when FFmpeg reads them for the first time, in a row. Later they count:
            a file may say that packets are there, too.
        stops_at_av1: True to let the file seem to end at the name by which AVI and IVF call AV1.

    Attributes:
        name: As given.
        exceeds_limit: True if there were too many start codes.
        mentions_av1: True if the file seemed to end at the name of AV1.
        error: The first error while FFmpeg read the file; FFmpeg may have ignored it.
    """

    def __init__(
        self,
        file: SeekableFile,
        watch: Watch,
        name: str = "",
        tables: range = range(0),
        *,
        stops_at_av1: bool = False,
    ) -> None:
        self.name = name
        self.exceeds_limit = self.mentions_av1 = False
        self.error: BaseException | None = None
        self.tell = file.tell
        self._file = file
        self._watch = watch
        self._tables = tables
        self._end_of_read_tables = -1  # an offset, once tables were read
        self._count = 0  # of start codes
        self._is_counting = self._is_opening = True
        self._stops_at_av1 = stops_at_av1
        self._last_bytes = b""  # of the previous read: the name of AV1 may begin in them

    def read(self, size: int, /) -> bytes:
        """Reads at most ``size`` bytes.

        Raises:
            VideoLimitError: The time is over, or a packet has too many NAL units.
        """
        self._watch.check_time()
        if self.exceeds_limit or self.mentions_av1:
            return b""
        offset = self._file.tell() if self._is_counting and self._tables else 0
        data = self._file.read(size)
        if self._stops_at_av1:
            self._look_for_av1(data)
        if self._is_counting and not (self._tables and self._is_table(offset, len(data))):
            self._count += data.count(_START_CODE)
            self.exceeds_limit = self._count > MAX_NAL_UNITS
            if not self._is_opening:
                self._watch.check_nal_units(self._count, MAX_NAL_UNITS)
        return b"" if self.exceeds_limit or self.mentions_av1 else data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Moves to an offset and returns it; -1 for an offset before the beginning."""
        if whence == os.SEEK_SET and offset < 0:
            return -1
        try:
            return self._file.seek(offset, whence)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        return -1

    def note_error(self, error: BaseException) -> None:
        """Stores an error, unless there is an earlier one."""
        self.error = self.error or error

    def raise_error(self) -> None:
        """Raises the stored error, if any; it may be an interrupt.

        Raises:
            InvalidVideoError: The file cannot be read.
            BaseException: Any other error, unchanged.
        """
        error = self.error
        if isinstance(error, OSError | ValueError) and not isinstance(error, TimesformerError):
            raise unreadable(self._watch.name, error) from error
        if error is not None:
            raise error

    def stop_counting(self) -> None:
        """Stops counting start codes, so that FFmpeg can read everything from now on."""
        self._is_counting = self.exceeds_limit = False

    def finish_opening(self) -> None:
        """Counts by packet from now on, not in the whole file; too many are then an error."""
        self._is_opening = self._stops_at_av1 = False
        self.begin_packet()

    def begin_packet(self) -> None:
        """Starts to count for the next packet."""
        self._count = 0

    def _look_for_av1(self, data: bytes) -> None:
        is_first = not self._last_bytes
        if is_first and len(data) > 20 * _TS_PACKET and set(data[::_TS_PACKET]) == {_TS_SYNC}:
            self._stops_at_av1 = False  # FFmpeg finds no AV1 in MPEG-TS
            return
        seen = self._last_bytes + data.lower()
        self._last_bytes = seen[1 - len(_AV1_NAME) :]
        self.mentions_av1 = _AV1_NAME in seen

    def _is_table(self, offset: int, count: int) -> bool:
        """True for bytes of tables that FFmpeg reads in a row for the first time."""
        has_begun = self._end_of_read_tables >= 0
        is_outside = offset + count <= self._tables.start or offset >= self._tables.stop
        if not has_begun and is_outside:
            return False
        is_elsewhere = has_begun and offset != self._end_of_read_tables
        if is_elsewhere or offset >= self._tables.stop:
            self._tables = range(0)
            return False
        self._end_of_read_tables = offset + count
        return True


def is_av1(codec: av.CodecContext) -> bool:
    """True for AV1, whose parser in FFmpeg takes kilobytes for an OBU of any size."""
    return codec.name in _AV1_DECODERS


def has_nal_units(codec: av.CodecContext) -> bool:
    """True if packets of this codec consist of NAL units."""
    return codec.name in _NAL_UNIT_CODECS


def parser_splits_packets(codec: av.CodecContext) -> bool:
    """True if FFmpeg's parser splits packets of this codec into NAL units while it reads them."""
    return codec.name in _SPLIT_BY_PARSER


def check_packet(packet: av.Packet[Any] | None, codec: av.CodecContext, watch: Watch) -> None:
    """Checks that a packet does not have far too many NAL units.

    Raises:
        VideoLimitError: The packet has too many NAL units.
    """
    if packet is not None and packet.size > _HARMLESS_BYTES and has_nal_units(codec):
        data = bytes(packet)
        watch.check_nal_units(data.count(_START_CODE), MAX_NAL_UNITS)
        watch.check_nal_units(_count_by_lengths(data, _length_size(codec)), MAX_NAL_UNITS)


def _length_size(codec: av.CodecContext) -> int:
    """Reads how many bytes state the length of a NAL unit; 0 where start codes separate them."""
    record = codec.extradata or b""
    if codec.name == _VVC:  # five bits that are set, then two of the size less one
        return (record[0] >> 1 & 3) + 1 if record and record[0] >= 0xF8 else 0
    offset = _OFFSET_OF_LENGTH_SIZE.get(codec.name, 0)
    return (record[offset] & 3) + 1 if record[:1] == b"\1" and len(record) > offset else 0


def _count_by_lengths(data: bytes, length_size: int) -> int:
    """Counts NAL units, each of which follows its length; stops above the limit."""
    count = offset = 0
    while length_size and offset < len(data) and count <= MAX_NAL_UNITS:
        offset += length_size + int.from_bytes(data[offset : offset + length_size], "big")
        count += 1
    return count
