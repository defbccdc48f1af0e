"""Replaces large weights in a graph by references into its own file, so that they are not copied.

The protobuf parser copies weights before ONNX Runtime packs them for the processor; the copy takes
half of the time that loading an int8 model takes. ONNX Runtime maps weights in a file beside the
graph ("external data") into memory instead. So this module makes a graph without the large weights;
in their place, it has references to the bytes in the ``.onnx`` file itself.

Only integer weights become references: floats would have to lie at multiples of their size, and
ONNX Runtime's optimiser copies mapped floats as well, which takes longer than parsing them.

Where products of s8 weights overflow, the references lead to a temporary file instead, with the
weights as unsigned numbers. So ONNX Runtime maps and frees one weight after the other there, too.
(It also takes weights from memory, but then holds all of them until the model is loaded.)
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

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
_TENSOR_TYPE, _TENSOR_BYTES, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 2, 9, 13, 14
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_EXTERNAL = 1  # a value of TensorProto.DataLocation

_TEMPORARY = b"weights"
_LARGE = 1 << 16  # bytes; copying smaller weights costs no time
_BYTE_TYPES = {2, 3, 21, 22}  # TensorProto.DataType: uint8, int8, uint4, int4


@dataclasses.dataclass(frozen=True)
class MappedModel:
    """A model whose large weights are in a file.

    Attributes:
        graph: The model without these weights, serialized.
        folder: The folder of the file, for an option of ONNX Runtime.
        temporary: The folder, if it can be removed once the model is loaded; else None.
        cannot_overflow: True if no product can overflow; False if that is not known.
    """

    graph: bytes
    folder: Path
    temporary: tempfile.TemporaryDirectory[str] | None = None
    cannot_overflow: bool = False


def map_weights(path: Path, reader: MessageReader, *, unsigned: bool = False) -> MappedModel | None:
    """Replaces the large integer weights of a model by references into its file.

    Args:
        path: The model's file, which ONNX Runtime will open for the weights.
        reader: Reads the file's contents.
        unsigned: True to make s8 weights whose products could overflow unsigned. If there are such
            weights, and room for a temporary file, that file holds the weights.

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
        if changes.tensors:
            temporary = _write_temporary(reader, weights, changes.tensors)
            if temporary is not None:
                lean = _with_references(reader, graph, weights, _TEMPORARY, changes)
                return MappedModel(lean, Path(temporary.name), temporary, changes.complete)
        lean = _with_references(reader, graph, weights, file.name.encode(), UnsignedWeights())
        return MappedModel(lean, file.parent, None, changes.complete and not changes.tensors)
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


def _write_temporary(
    reader: MessageReader, weights: Mapping[int, Field], unsigned: Collection[int]
) -> tempfile.TemporaryDirectory[str] | None:
    """Writes weights into a temporary file, at the offsets that they have in the model's file.

    Returns:
        The file's folder; None where the system has no room for the file.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix="timesformer-", ignore_cleanup_errors=True)
    except OSError:
        return None
    try:
        folder.name.encode()  # ONNX Runtime opens only paths in UTF-8
        with (Path(folder.name) / _TEMPORARY.decode()).open("wb") as file:
            for start, field in weights.items():
                values = reader.contents(field)
                file.seek(field.contents)
                file.write(as_unsigned(values) if start in unsigned else values)
    except (OSError, UnicodeEncodeError):
        folder.cleanup()
        return None
    return folder


def _with_references(
    reader: MessageReader,
    graph: Field,
    weights: Mapping[int, Field],
    name: bytes,
    changes: UnsignedWeights,
) -> bytes:
    """Makes a model whose weights are in the file ``name``, at the offsets that they have here."""
    data = reader.data

    def part(field: Field) -> bytes:
        if field.start not in weights:
            return changes.parts.get(field.start, data[field.start : field.end])
        more = AS_UNSIGNED if field.start in changes.tensors else b""
        return _reference(reader, field, weights[field.start], name, more)

    parts = b"".join(map(part, reader.fields(graph)))
    return data[: graph.start] + message(_MODEL_GRAPH, parts + changes.more) + data[graph.end :]


def _reference(
    reader: MessageReader, tensor: Field, weights: Field, name: bytes, more: bytes
) -> bytes:
    """Makes a tensor that refers to its bytes in a file instead of holding them, and adds fields.

    Args:
        reader: Reads the model.
        tensor: The tensor.
        weights: Its bytes.
        name: The name of the file.
        more: The fields to add, in wire format.
    """
    return message(
        _GRAPH_INITIALIZER,
        reader.data[tensor.contents : weights.start]
        + reader.data[weights.end : tensor.end]
        + _entry(b"location", name)
        + _entry(b"offset", b"%d" % weights.contents)
        + _entry(b"length", b"%d" % (weights.end - weights.contents))
        + encoded(_TENSOR_LOCATION << 3 | VARINT)
        + encoded(_EXTERNAL)
        + more,
    )


def _entry(key: bytes, value: bytes) -> bytes:
    return message(_TENSOR_EXTERNAL, message(_ENTRY_KEY, key) + message(_ENTRY_VALUE, value))
