"""Reads messages in the wire format of protobuf, in which ``.onnx`` files are written.

The ``onnx`` package can do this, but it parses, and so copies, all weights; and a runtime should
not need it.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import NamedTuple

Buffer = bytes | mmap.mmap

VARINT, FIXED_64, DELIMITED, FIXED_32 = 0, 1, 2, 5  # wire types

_LONGEST_VARINT = 10  # bytes of 7 bits each, for 64 bits
_LARGEST_TAG = (1 << 32) - 1
_MOST_FIELDS = 300_000  # a large model has some 10,000; many more take minutes in Python


class Field(NamedTuple):
    """A field of a message: its number and wire type, and three offsets in the file.

    Attributes:
        number: Its number in the message.
        wire_type: One of the constants of this module.
        start: Offset of the field.
        contents: Offset of its contents.
        end: Offset after the field.
    """

    number: int
    wire_type: int
    start: int
    contents: int
    end: int


class MessageReader:
    """Reads the fields of one file's messages.

    Args:
        data: The file's contents.

    Attributes:
        data: As given.
    """

    def __init__(self, data: Buffer) -> None:
        self.data = data
        self._fields_left = _MOST_FIELDS

    def fields(self, message: Field | None = None) -> Iterator[Field]:
        """Gives the fields of a message; of the whole file by default.

        Raises:
            ValueError: The data is not a message, or the file has far more fields than a model
                needs.
            IndexError: The data ends in the middle of a field.
        """
        offset, end = (0, len(self.data)) if message is None else message[-2:]
        while offset < end:
            field = self._field(offset)
            if field.end > end:
                raise ValueError("a field that ends after its message")
            offset = field.end
            yield field

    def messages(self, message: Field | None, number: int) -> Iterator[Field]:
        """Gives the delimited fields of a number: nested messages, texts or bytes."""
        return (
            field
            for field in self.fields(message)
            if field.number == number and field.wire_type == DELIMITED
        )

    def contents(self, field: Field) -> bytes:
        """The bytes of a delimited field."""
        return self.data[field.contents : field.end]

    def integer(self, field: Field) -> int:
        """The value of a varint field; 0 for a field of another wire type."""
        return self._varint(field.contents)[0] if field.wire_type == VARINT else 0

    def integers(self, field: Field) -> list[int]:
        """The values of a repeated varint field: of one of its fields, or of all, packed into one.

        Raises:
            IndexError: The data ends in the middle of a value.
        """
        if field.wire_type == VARINT:
            return [self.integer(field)]
        values = []
        offset = field.contents
        while offset < field.end:
            value, offset = self._varint(offset)
            values.append(value)
        return values

    def _field(self, start: int) -> Field:
        """Reads where the field at an offset, its contents and its end are."""
        self._fields_left -= 1
        if self._fields_left < 0:
            raise ValueError(f"more than {_MOST_FIELDS} fields")
        tag, contents = self._varint(start)
        tag &= _LARGEST_TAG  # as protobuf itself does
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise ValueError("a field of number 0")
        if wire_type == VARINT:
            return Field(number, wire_type, start, contents, self._varint(contents)[1])
        if wire_type == DELIMITED:
            size, contents = self._varint(contents)
            return Field(number, wire_type, start, contents, contents + size)
        if wire_type in (FIXED_32, FIXED_64):
            end = contents + (4 if wire_type == FIXED_32 else 8)
            return Field(number, wire_type, start, contents, end)
        raise ValueError(f"wire type {wire_type}")

    def _varint(self, offset: int) -> tuple[int, int]:
        """Reads the integer at an offset; returns it and the offset after it."""
        value = self.data[offset]
        if value < 128:  # as most are
            return value, offset + 1
        value = 0
        for count in range(_LONGEST_VARINT):
            byte = self.data[offset + count]
            value |= (byte & 127) << 7 * count
            if byte < 128:
                return value, offset + count + 1
        raise ValueError("an integer of more than 64 bits")


def message(number: int, contents: bytes) -> bytes:
    """Encodes a delimited field."""
    return encoded(number << 3 | DELIMITED) + encoded(len(contents)) + contents


def encoded(value: int) -> bytes:
    """Encodes a varint."""
    rest = bytearray()
    while value > 127:
        rest.append(value & 127 | 128)
        value >>= 7
    return bytes([*rest, value])
