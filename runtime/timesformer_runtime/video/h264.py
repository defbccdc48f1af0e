"""Reads the headers of H.264 pictures: what a packet holds, without decoding it.

Exact frames without decoding everything need to know that each packet holds one whole picture,
in which order the pictures are shown, and which of them no other picture depends on. Whatever is
unusual (fields, lost pictures, damage) ends the reading: such a file is decoded from its start.

Follows ITU-T H.264, section 7.3 (syntax).
"""

from collections.abc import Iterator
from typing import NamedTuple

SLICE, IDR_SLICE = 1, 5
HEADER_BYTES = 48  # of a slice; the fields that are read here take far fewer
_SPS, _PPS = 7, 8
_PARTITIONS = frozenset({2, 3, 4})
_START_CODE = b"\0\0\1"
# Profiles whose sequence parameter set describes its chroma format.
_HIGH_PROFILES = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})


class UnusualStreamError(Exception):
    """The headers do not promise one whole, progressive picture per packet."""


class DamagedPacketError(UnusualStreamError):
    """A packet will hardly give a picture."""


class Picture(NamedTuple):
    """What the header of a coded picture says."""

    is_idr: int  # decoding can start here: nothing after it depends on anything before it
    is_reference: int  # other pictures may depend on it
    frame_num: int  # counts reference pictures,
    frame_nums: int  # modulo this
    order: int  # in which pictures are shown,
    orders: int  # modulo this; 0 where they are shown as they come


class Sequence(NamedTuple):
    """The fields of a sequence parameter set that a slice header's layout depends on."""

    frame_num_bits: int
    order_bits: int  # 0 where pictures are shown as they come
    has_colour_planes: bool


class HeaderReader:
    """Reads the pictures of one stream.

    Args:
        extradata: The decoder configuration of the container: an avcC record or Annex B.

    Attributes:
        length_size: Bytes of the length before each unit; 0 where start codes divide them.

    Raises:
        UnusualStreamError: It is neither, or has parameter sets that are not supported here.
    """

    def __init__(self, extradata: bytes) -> None:
        self.length_size = 0
        self._sequences: dict[int, Sequence] = {}
        self._sequence_of_picture_set: dict[int, int] = {}
        if extradata[:1] == b"\1":
            self._read_avcc(extradata)
        else:
            for unit in _between_start_codes(extradata):
                self._read_parameters(unit)

    @property
    def sequences(self) -> dict[int, Sequence]:
        """The sequence that each picture parameter set refers to."""
        return {
            number: self._sequences[sequence]
            for number, sequence in self._sequence_of_picture_set.items()
            if sequence in self._sequences
        }

    def read(self, packet: bytes) -> Picture:
        """Reads one packet.

        Raises:
            UnusualStreamError: It does not hold exactly one whole frame.
        """
        picture: Picture | None = None
        for unit in self._units(packet):
            kind = unit[0] & 31
            if unit[0] & 0x80:  # forbidden_zero_bit
                raise DamagedPacketError("damage")
            if kind in {_SPS, _PPS}:
                self._read_parameters(unit)
            elif kind in _PARTITIONS:
                raise UnusualStreamError("data partitioning")
            elif kind in {SLICE, IDR_SLICE} and len(unit) > 1 and unit[1] & 0x80:
                if picture is not None:  # first_mb_in_slice is 0 once in a picture
                    raise UnusualStreamError("several pictures in a packet")
                picture = self.read_slice(unit)
        if picture is None:
            raise UnusualStreamError("no picture in a packet")
        return picture

    def _units(self, packet: bytes) -> Iterator[bytes]:
        if not self.length_size:
            yield from _between_start_codes(packet)
            return
        position = 0
        while position < len(packet):
            start = position + self.length_size
            length = int.from_bytes(packet[position:start], "big")
            if not 0 < length <= len(packet) - start:
                raise DamagedPacketError("a unit's length does not fit its packet")
            yield packet[start : start + length]
            position = start + length

    def _read_avcc(self, record: bytes) -> None:
        if len(record) < 7:
            raise UnusualStreamError("a decoder configuration without parameter sets")
        self.length_size = (record[4] & 3) + 1
        position = 5
        for mask in (31, 255):  # sequence, then picture parameter sets
            count = record[position] & mask if position < len(record) else 0
            position += 1
            for _ in range(count):
                length = int.from_bytes(record[position : position + 2], "big")
                position += 2
                self._read_parameters(record[position : position + length])
                position += length

    def _read_parameters(self, unit: bytes) -> None:
        if unit and unit[0] & 31 == _SPS:
            number, sequence = _read_sequence(unit)
            if self._sequences.setdefault(number, sequence) != sequence:
                raise UnusualStreamError("parameters that change")
        elif unit and unit[0] & 31 == _PPS:
            bits = _Bits(unit[1:])
            number, of = bits.exp_golomb(), bits.exp_golomb()
            if self._sequence_of_picture_set.setdefault(number, of) != of:
                raise UnusualStreamError("parameters that change")

    def read_slice(self, unit: bytes) -> Picture:
        """Reads a unit that is the first slice of a picture; its beginning is enough.

        Raises:
            UnusualStreamError: It is something else.
        """
        if unit[0] & 0x9F not in {SLICE, IDR_SLICE} or not unit[1:2] or not unit[1] & 0x80:
            raise UnusualStreamError("no picture in a packet")
        is_idr, is_reference = unit[0] & 31 == IDR_SLICE, bool(unit[0] & 0x60)
        bits = _Bits(unit[1:HEADER_BYTES])
        bits.exp_golomb()  # first_mb_in_slice
        bits.exp_golomb()  # slice_type
        picture_set = bits.exp_golomb()
        sequence = self._sequences.get(self._sequence_of_picture_set.get(picture_set, -1))
        if sequence is None:
            raise UnusualStreamError("a slice without its parameter sets")
        if sequence.has_colour_planes:
            bits.number(2)
        frame_num = bits.number(sequence.frame_num_bits)
        if is_idr:
            bits.exp_golomb()  # idr_pic_id
        order = bits.number(sequence.order_bits)
        orders = 1 << sequence.order_bits if sequence.order_bits else 0
        frame_nums = 1 << sequence.frame_num_bits
        return Picture(is_idr, is_reference, frame_num, frame_nums, order, orders)


def _between_start_codes(data: bytes) -> Iterator[bytes]:
    start = data.find(_START_CODE)
    while start >= 0:
        stop = data.find(_START_CODE, start + 3)
        unit = data[start + 3 : stop if stop >= 0 else len(data)]
        if unit:
            yield unit
        start = stop


def _read_sequence(unit: bytes) -> tuple[int, Sequence]:
    bits = _Bits(unit[1:])
    profile = bits.number(8)
    bits.number(16)  # constraints and level
    number = bits.exp_golomb()
    has_colour_planes = _skip_chroma_format(bits) if profile in _HIGH_PROFILES else False
    frame_num_bits = bits.exp_golomb() + 4
    order_type = bits.exp_golomb()
    if order_type not in {0, 2}:
        raise UnusualStreamError("picture order by a cycle")
    order_bits = bits.exp_golomb() + 4 if order_type == 0 else 0
    bits.exp_golomb()  # max_num_ref_frames
    bits.number(1)  # gaps_in_frame_num_value_allowed_flag
    bits.exp_golomb()  # width
    bits.exp_golomb()  # height
    if not bits.number(1):  # frame_mbs_only_flag
        raise UnusualStreamError("pictures may be fields")
    return number, Sequence(frame_num_bits, order_bits, has_colour_planes)


def _skip_chroma_format(bits: "_Bits") -> bool:
    chroma_format = bits.exp_golomb()
    has_colour_planes = chroma_format == 3 and bool(bits.number(1))
    bits.exp_golomb()  # bit depth of luma
    bits.exp_golomb()  # bit depth of chroma
    bits.number(1)  # lossless bypass
    if bits.number(1):
        for index in range(12 if chroma_format == 3 else 8):
            if bits.number(1):
                _skip_scaling_list(bits, 16 if index < 6 else 64)
    return has_colour_planes


def _skip_scaling_list(bits: "_Bits", size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.signed_exp_golomb()) % 256
        last = following or last


class _Bits:
    """Bits of a unit's payload, after the removal of emulation prevention bytes."""

    def __init__(self, payload: bytes) -> None:
        payload = payload.replace(b"\0\0\3", b"\0\0")
        self._value = int.from_bytes(payload, "big")
        self._left = len(payload) * 8

    def number(self, bits: int) -> int:
        self._left -= bits
        if self._left < 0:
            raise UnusualStreamError("a header ends early")
        return (self._value >> self._left) & ((1 << bits) - 1)

    def exp_golomb(self) -> int:
        rest = self._value & ((1 << self._left) - 1)
        zeros = self._left - rest.bit_length()
        if zeros > 32:
            raise UnusualStreamError("a header holds a number that is too large")
        return self.number(2 * zeros + 1) - 1

    def signed_exp_golomb(self) -> int:
        code = self.exp_golomb()
        return (code + 1) // 2 if code % 2 else -(code // 2)
