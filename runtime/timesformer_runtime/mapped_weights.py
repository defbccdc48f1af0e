"""Large weights of an ``.onnx`` file as references into it, so that they are mapped, not copied.

Weights that go through the protobuf parser are copied before they are packed for the processor,
which is half of the time that loading an int8 model takes. Those in a file beside the graph
("external data") are mapped into memory instead. This gives ONNX Runtime the same file as both: its
structure without the large weights, which say at which byte of it they are.

Only integer weights: those in floats have to lie at multiples of their size, and ONNX Runtime's
optimiser copies them all the same, which takes longer than parsing them.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# Field numbers of onnx.proto.
_MODEL_GRAPH = 7
_GRAPH_INITIALIZER = 5
_TENSOR_TYPE, _TENSOR_BYTES, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 2, 9, 13, 14
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_EXTERNAL = 1  # a value of TensorProto.DataLocation

_VARINT, _FIXED_64, _DELIMITED, _FIXED_32 = 0, 1, 2, 5  # wire types of protobuf
_LARGE = 1 << 16  # bytes; what is smaller costs no time
_BYTES = {2, 3, 21, 22}  # TensorProto.DataType: uint8, int8, uint4, int4


class MappedModel(NamedTuple):
    """A model whose large weights are in a file.

    Attributes:
        graph: The model without them, serialized.
        folder: Where the file is; ONNX Runtime has to be told.
    """

    graph: bytes
    folder: Path


def map_weights(path: Path) -> MappedModel | None:
    """Reads where the weights of a model are.

    Returns:
        None for a file that has no large integer weights, has weights elsewhere already, or is no
        sound model: ONNX Runtime can load it as it is, or says what is wrong.
    """
    try:
        file = path.resolve(strict=True)  # symbolic links may lead to other folders
        str(file).encode()  # ONNX Runtime opens only paths in UTF-8
        name = file.name.encode()
        with (
            file.open("rb") as opened,
            mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            graph = next(f for f in _fields(data, 0, len(data)) if f.number == _MODEL_GRAPH)
            weights = {field.start: field for field in _large_weights(data, graph)}
            if not weights:
                return None
            parts = (
                _reference(data, weights[field.start], name)
                if field.start in weights
                else data[field.start : field.end]
                for field in _fields(data, graph.contents, graph.end)
            )
            lean = _message(_MODEL_GRAPH, b"".join(parts))
            return MappedModel(data[: graph.start] + lean + data[graph.end :], file.parent)
    except (OSError, ValueError, LookupError, StopIteration):
        return None


class _Field(NamedTuple):
    """A field of a message: where it starts and ends, and where its contents start."""

    number: int
    start: int
    contents: int
    end: int


def _large_weights(data: mmap.mmap, graph: _Field) -> Iterator[_Field]:
    """The initializers that are to be mapped.

    Raises:
        ValueError: Some are in other files already, relative to the folder of this one.
    """
    for tensor in _fields(data, graph.contents, graph.end):
        if tensor.number != _GRAPH_INITIALIZER:
            continue
        fields = _by_number(data, tensor)
        if _TENSOR_EXTERNAL in fields:
            raise ValueError("external data")
        weights = fields.get(_TENSOR_BYTES)
        if weights is None or weights.end - weights.contents < _LARGE:
            continue
        if _varint(data, fields[_TENSOR_TYPE].contents)[0] in _BYTES:
            yield tensor


def _reference(data: mmap.mmap, tensor: _Field, name: bytes) -> bytes:
    """A tensor without its bytes, which are where they are in the file of this name."""
    weights = _by_number(data, tensor)[_TENSOR_BYTES]
    return _message(
        _GRAPH_INITIALIZER,
        data[tensor.contents : weights.start]
        + data[weights.end : tensor.end]
        + _entry(b"location", name)
        + _entry(b"offset", b"%d" % weights.contents)
        + _entry(b"length", b"%d" % (weights.end - weights.contents))
        + _encoded(_TENSOR_LOCATION << 3 | _VARINT)
        + _encoded(_EXTERNAL),
    )


def _by_number(data: mmap.mmap, message: _Field) -> dict[int, _Field]:
    return {field.number: field for field in _fields(data, message.contents, message.end)}


def _entry(key: bytes, value: bytes) -> bytes:
    return _message(_TENSOR_EXTERNAL, _message(_ENTRY_KEY, key) + _message(_ENTRY_VALUE, value))


def _message(number: int, contents: bytes) -> bytes:
    return _encoded(number << 3 | _DELIMITED) + _encoded(len(contents)) + contents


def _fields(data: mmap.mmap, position: int, end: int) -> Iterator[_Field]:
    """The fields of the message between two positions.

    Raises:
        ValueError, IndexError: It is none.
    """
    while position < end:
        start = position
        tag, contents = _varint(data, position)
        wire_type = tag & 7
        if wire_type == _VARINT:
            _, position = _varint(data, contents)
        elif wire_type == _DELIMITED:
            size, contents = _varint(data, contents)
            position = contents + size
        elif wire_type in (_FIXED_32, _FIXED_64):
            position = contents + (4 if wire_type == _FIXED_32 else 8)
        else:
            raise ValueError(f"wire type {wire_type}")
        if position > end:
            raise ValueError("a field that ends after its message")
        yield _Field(tag >> 3, start, contents, position)


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    """The integer at a position, and where it ends."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7


def _encoded(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])
