"""In which order the pictures of an H.264 stream are shown, from their headers; many at a time.

Follows ITU-T H.264, section 8.2.1 (picture order count).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from timesformer_runtime.video.h264 import (
    HEADER_BYTES,
    IDR_SLICE,
    SLICE,
    HeaderReader,
    UnusualStreamError,
)
from timesformer_runtime.video.h264 import Sequence as ParameterSet

_PERIOD = 1 << 40  # larger than any picture order count
_LENGTH = 4  # bytes before a unit, in the packets that are read together
_WINDOW = 64  # bits of a header that are read together
HEAD_BYTES = _LENGTH + HEADER_BYTES

Numbers = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint64]


def is_one_slice(head: bytes, size: int) -> bool:
    """Whether a packet of this size that begins like this holds nothing but a slice."""
    kind = head[_LENGTH] & 0x1F if len(head) > _LENGTH else 0
    return int.from_bytes(head[:_LENGTH], "big") == size - _LENGTH and kind in {SLICE, IDR_SLICE}


def unit_of(head: bytes) -> bytes:
    """The unit at the beginning of a packet, or its beginning."""
    length = int.from_bytes(head[:_LENGTH], "big")
    return head[_LENGTH : _LENGTH + length]


def read_heads(
    reader: HeaderReader, heads: Sequence[bytes], sizes: Sequence[int]
) -> tuple[Numbers, npt.NDArray[np.bool_]]:
    """Reads the packets that hold nothing but a slice, with a length of 4 bytes before it.

    Args:
        reader: Knows the stream's parameter sets.
        heads: The first ``HEAD_BYTES`` of each packet; less where it is shorter, or what follows.
        sizes: Number of bytes of each packet.

    Returns:
        The fields of a ``Picture`` for each packet, int64 [N, 6], and which of them were read.
    """
    joined = b"".join(heads)
    if len(joined) < HEAD_BYTES * len(heads):
        joined = b"".join([head.ljust(HEAD_BYTES, b"\0") for head in heads])
    table = np.frombuffer(joined, dtype=np.uint8).reshape(len(heads), HEAD_BYTES)
    pictures, is_read = _read_table(table, reader.sequences)
    lengths = table[:, :_LENGTH].copy().view(">u4")[:, 0].astype(np.int64)
    return pictures, is_read & (lengths == np.array(sizes, dtype=np.int64) - _LENGTH)


def display_order(pictures: Numbers) -> Numbers:
    """Numbers that ascend in the order in which pictures are shown, int64 [N].

    Args:
        pictures: The fields of a ``Picture`` for each, in decoding order, int64 [N, 6].

    Raises:
        UnusualStreamError: A picture is missing.
    """
    is_idr, is_reference = pictures[:, 0] != 0, pictures[:, 1] != 0
    frame_num, frame_nums, order, orders = pictures[:, 2:].T
    numbers = np.arange(len(pictures))
    if not len(pictures) or not is_idr[0] or np.any(is_idr & ~is_reference):
        raise UnusualStreamError("a picture is missing")
    # The reference picture before each picture.
    before = np.maximum.accumulate(np.where(is_reference, numbers, 0))
    before = np.concatenate([[0], before[:-1]])
    following = (frame_num[before] + 1) % frame_nums
    if np.any(frame_num != np.where(is_idr, 0, following)):
        raise UnusualStreamError("a picture is missing")
    period = np.cumsum(is_idr)
    if not np.all(orders):
        if np.any(orders):
            raise UnusualStreamError("two ways to count")
        return period * _PERIOD + numbers
    # Only low bits are stored: the nearest number to that of the reference picture is meant.
    steps = (order - np.where(is_idr, 0, order[before])) % orders
    steps -= np.where(steps > orders // 2, orders, 0)
    references = np.flatnonzero(is_reference)
    sums = np.cumsum(steps[references])
    starts = np.maximum.accumulate(np.where(is_idr[references], np.arange(len(references)), 0))
    counts = np.zeros(len(pictures), dtype=np.int64)
    counts[references] = sums - sums[starts] + steps[references[starts]]
    counts = np.where(is_reference, counts, counts[before] + steps)
    return period * _PERIOD + counts


def _read_table(
    table: npt.NDArray[np.uint8], sequences: Mapping[int, ParameterSet]
) -> tuple[Numbers, npt.NDArray[np.bool_]]:
    """The fields of plain slice headers, and which rows could be read like this."""
    length = table[:, :_LENGTH].copy().view(">u4")[:, 0].astype(np.int64)
    kind = table[:, _LENGTH] & 0x9F  # with the bit that must be 0
    body = table[:, _LENGTH + 1 : _LENGTH + 1 + _WINDOW // 4]
    is_idr = kind == IDR_SLICE
    is_read = is_idr | (kind == SLICE)
    cursor = _Cursor(body)
    is_read &= cursor.exp_golomb() == 0  # first_mb_in_slice
    cursor.exp_golomb()  # slice_type
    layout = _layouts(sequences)[np.minimum(cursor.exp_golomb(), 256)]
    frame_num_bits, order_bits, plane_bits, is_known = layout.T
    is_read &= is_known != 0
    cursor.number(plane_bits)
    frame_num = cursor.number(frame_num_bits)
    cursor.exp_golomb(where=is_idr)  # idr_pic_id
    order = cursor.number(order_bits)
    is_read &= cursor.is_inside & (cursor.position <= 8 * np.minimum(length - 1, _unescaped(body)))
    fields = (
        is_idr,
        table[:, _LENGTH] & 0x60 != 0,
        frame_num,
        1 << frame_num_bits,
        order,
        np.where(order_bits > 0, 1 << order_bits, 0),
    )
    return np.stack([np.asarray(field, dtype=np.int64) for field in fields], axis=1), is_read


def _unescaped(body: npt.NDArray[np.uint8]) -> Numbers:
    """How many bytes of each row come before one that prevents start codes, and shifts the rest."""
    zero, three = body == 0, body == 3
    escapes = zero[:, :-2] & zero[:, 1:-1] & three[:, 2:]
    first = escapes.argmax(axis=1).astype(np.int64)
    return np.where(escapes.any(axis=1), first + 2, np.int64(body.shape[1]))


def _layouts(sequences: Mapping[int, ParameterSet]) -> Numbers:
    """Bits of a slice header's fields for each picture parameter set, and whether it is known."""
    layouts = np.zeros((257, 4), dtype=np.int64)
    for number, sequence in sequences.items():
        if number < 256:
            planes = 2 * sequence.has_colour_planes
            layouts[number] = sequence.frame_num_bits, sequence.order_bits, planes, 1
    return layouts


class _Cursor:
    """Reads bits of many rows at once, each from a position of its own."""

    def __init__(self, body: npt.NDArray[np.uint8]) -> None:
        words = np.ascontiguousarray(body).view(">u8").astype(np.uint64)
        self._first, self._second = words[:, 0], words[:, 1]
        self.position: Numbers = np.zeros(len(body), dtype=np.int64)
        self.is_inside: npt.NDArray[np.bool_] = np.ones(len(body), dtype=bool)

    def number(self, bits: Numbers) -> Numbers:
        window = self._window()
        value = np.where(bits > 0, window >> (64 - np.maximum(bits, 1)).astype(np.uint64), 0)
        self._advance(bits)
        return value.astype(np.int64)

    def exp_golomb(self, where: npt.NDArray[np.bool_] | None = None) -> Numbers:
        window = self._window()
        # The exponent of a float is its number of bits; 32 of them are exact.
        _, length = np.frexp((window >> np.uint64(32)).astype(np.float64))
        zeros = 32 - length.astype(np.int64)
        self.is_inside &= zeros <= 16
        zeros = np.minimum(zeros, 16)
        value = (window >> (63 - 2 * zeros).astype(np.uint64)).astype(np.int64) - 1
        self._advance(2 * zeros + 1 if where is None else np.where(where, 2 * zeros + 1, 0))
        return value

    def _window(self) -> Bits:
        shift = self.position.astype(np.uint64)
        rest = self._second >> (np.uint64(64) - np.maximum(shift, np.uint64(1)))
        window: Bits = (self._first << shift) | np.where(shift > 0, rest, np.uint64(0))
        return window

    def _advance(self, bits: Numbers) -> None:
        position = self.position + bits
        self.is_inside &= position < _WINDOW
        self.position = np.minimum(position, _WINDOW - 1)
