"""Replaces large weights in a graph by references into its own file, so that they are not copied.

The protobuf parser copies weights before ONNX Runtime packs them for the processor; the copy takes
half of the time that loading an int8 model takes. ONNX Runtime maps weights in a file beside the
graph ("external data") into memory instead. So this module makes a graph without the large weights;
in their place, it has references to the bytes in the ``.onnx`` file itself.

Only integer weights become references: floats would have to lie at multiples of their size, and
ONNX Runtime's optimiser copies mapped floats as well, which takes longer than parsing them.

Where products of s8 weights overflow, ONNX Runtime gets these weights as unsigned numbers: arrays
in memory that is mapped from a temporary file. The file has no name, so that it goes with the
process, even if that is killed.
"""

from __future__ import annotations

import dataclasses
import mmap
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from timesformer_runtime.model.unsigned_weights import (
    AS_UNSIGNED,
    UnsignedWeights,
    as_unsigned,
    unsigned_weights,
)
from timesformer_runtime.model.wire_format import VARINT, Field, MessageReader, encoded, message

# Field numbers of onnx.proto.
_MODEL_GRAPH = 7
_GRAPH_INITIALIZER = 5
_TENSOR_SHAPE, _TENSOR_TYPE, _TENSOR_BYTES = 1, 2, 9
_TENSOR_EXTERNAL, _TENSOR_LOCATION = 13, 14
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_EXTERNAL = 1  # a value of TensorProto.DataLocation

_LARGE = 1 << 16  # bytes; copying smaller weights costs no time
_BYTE_TYPES = {2, 3, 21, 22}  # TensorProto.DataType: uint8, int8, uint4, int4

Weights: TypeAlias = dict[str, npt.NDArray[np.uint8]]


@dataclasses.dataclass(frozen=True)
class MappedModel:
    """A model whose large weights are in a file.

    Attributes:
        graph: The model without these weights, serialized.
        folder: The folder of the file, for an option of ONNX Runtime.
        unsigned: The weights that were made unsigned, by name: ONNX Runtime must get them, because
            the graph refers to them beyond the end of the file.
        cannot_overflow: True if no product can overflow; False if that is not known.
    """

    graph: bytes
    folder: Path
    unsigned: Weights = dataclasses.field(default_factory=dict)
    cannot_overflow: bool = False


def map_weights(path: Path, reader: MessageReader, *, unsigned: bool = False) -> MappedModel | None:
    """Replaces the large integer weights of a model by references into its file.

    Args:
        path: The model's file, which ONNX Runtime will open for the weights.
        reader: Reads the file's contents.
        unsigned: True to make s8 weights whose products could overflow unsigned, if the system has
            room for a temporary file with them.

    Returns:
        None for a file without large integer weights, with weights in other files, or with damage:
        ONNX Runtime can load it as it is, or says what is wrong.
    """
    try:
        file = path.resolve(strict=True)  # symbolic links may lead to other folders
        str(file).encode()  # ONNX Runtime opens only paths in UTF-8
        graph = next(reader.messages(None, _MODEL_GRAPH))
        weights = _large_weights(reader, graph)
        if not weights:
            return None
        changes = unsigned_weights(reader, graph, weights) if unsigned else UnsignedWeights()
        arrays: Weights = {}
        try:
            arrays = _unsigned_copies(reader, graph, weights, changes)
        except OSError:  # no room
            changes = UnsignedWeights()
        lean = _with_references(reader, graph, weights, file.name.encode(), changes)
        return MappedModel(lean, file.parent, arrays, changes.complete)
    except (OSError, ValueError, LookupError, StopIteration):
        return None


def _large_weights(reader: MessageReader, graph: Field) -> dict[int, Field]:
    """Finds the bytes of the initializers to map, by the offsets at which the initializers start.

    Raises:
        ValueError: Some weights are in other files already.
    """
    found = {}
    for tensor in reader.messages(graph, _GRAPH_INITIALIZER):
        fields = {field.number: field for field in reader.fields(tensor)}
        if _TENSOR_EXTERNAL in fields:
            raise ValueError("external data")
        weights = fields.get(_TENSOR_BYTES)
        if weights is None or weights.end - weights.contents < _LARGE:
            continue
        if reader.integer(fields[_TENSOR_TYPE]) in _BYTE_TYPES:
            found[tensor.start] = weights
    return found


def _unsigned_copies(
    reader: MessageReader, graph: Field, weights: Mapping[int, Field], changes: UnsignedWeights
) -> Weights:
    """Makes weights unsigned, in memory that is mapped from a temporary file without a name.

    Each weight has a mapping of its own. When nothing needs its array any more, the mapping closes;
    the file's room is free again when the last mapping has closed.

    Raises:
        OSError: The system has no room for the file.
    """
    arrays: Weights = {}
    if not changes.tensors:
        return arrays
    with tempfile.TemporaryFile() as file, memoryview(reader.data) as data:
        for tensor in reader.messages(graph, _GRAPH_INITIALIZER):
            if tensor.start not in changes.tensors:
                continue
            field = weights[tensor.start]
            values = as_unsigned(data[field.contents : field.end])
            offset = file.seek(-file.tell() % mmap.ALLOCATIONGRANULARITY, os.SEEK_CUR)
            file.write(values.data)
            file.flush()
            # Not read-only, because NumPy does not lend read-only arrays to other libraries.
            memory = mmap.mmap(file.fileno(), len(values), access=mmap.ACCESS_COPY, offset=offset)
            array = np.frombuffer(memory, np.uint8).reshape(_shape(reader, tensor))
            arrays[changes.tensors[tensor.start].decode()] = array
    return arrays


def _shape(reader: MessageReader, tensor: Field) -> tuple[int, ...]:
    """Reads the shape of a tensor; its sizes are fields of their own, or packed into one."""
    sizes: list[int] = []
    for field in reader.fields(tensor):
        if field.number == _TENSOR_SHAPE:
            sizes += reader.integers(field)
    return tuple(sizes)


def _with_references(
    reader: MessageReader,
    graph: Field,
    weights: Mapping[int, Field],
    name: bytes,
    changes: UnsignedWeights,
) -> bytes:
    """Makes a model whose weights are in the file ``name``, at the offsets that they have here.

    Weights that were made unsigned are not in the file. The references to them lead beyond its end,
    so that ONNX Runtime fails rather than take the signed weights for unsigned ones.
    """
    data = reader.data

    def part(field: Field) -> bytes:
        if field.start not in weights:
            return changes.parts.get(field.start, data[field.start : field.end])
        if field.start in changes.tensors:
            return _reference(reader, field, weights[field.start], name, len(data), AS_UNSIGNED)
        return _reference(reader, field, weights[field.start], name, weights[field.start].contents)

    parts = b"".join(map(part, reader.fields(graph)))
    return data[: graph.start] + message(_MODEL_GRAPH, parts + changes.more) + data[graph.end :]


def _reference(
    reader: MessageReader,
    tensor: Field,
    weights: Field,
    name: bytes,
    offset: int,
    more: bytes = b"",
) -> bytes:
    """Makes a tensor that refers to its bytes in a file instead of holding them, and adds fields.

    Args:
        reader: Reads the model.
        tensor: The tensor.
        weights: Its bytes.
        name: The name of the file.
        offset: The offset in the file.
        more: The fields to add, in wire format.
    """
    return message(
        _GRAPH_INITIALIZER,
        reader.data[tensor.contents : weights.start]
        + reader.data[weights.end : tensor.end]
        + _entry(b"location", name)
        + _entry(b"offset", b"%d" % offset)
        + _entry(b"length", b"%d" % (weights.end - weights.contents))
        + encoded(_TENSOR_LOCATION << 3 | VARINT)
        + encoded(_EXTERNAL)
        + more,
    )


def _entry(key: bytes, value: bytes) -> bytes:
    return message(_TENSOR_EXTERNAL, message(_ENTRY_KEY, key) + message(_ENTRY_VALUE, value))
