"""Replaces large weights in a graph by references into its own file, so that they are not copied.

The protobuf parser copies weights before ONNX Runtime packs them for the processor; the copy takes
half of the time that loading an int8 model takes. ONNX Runtime maps weights in a file beside the
graph ("external data") into memory instead. So this module makes a graph without the large weights;
in their place, it has references to the bytes in the ``.onnx`` file itself.

Only integer weights become references: floats would have to lie at multiples of their size, and
ONNX Runtime's optimiser copies mapped floats as well, which takes longer than parsing them.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from timesformer_runtime.model.wire_format import VARINT, Field, MessageReader, encoded, message

# Field numbers of onnx.proto.
_MODEL_GRAPH = 7
_GRAPH_INITIALIZER = 5
_TENSOR_TYPE, _TENSOR_BYTES, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 2, 9, 13, 14
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_EXTERNAL = 1  # a value of TensorProto.DataLocation

_LARGE = 1 << 16  # bytes; copying smaller weights costs no time
_BYTE_TYPES = {2, 3, 21, 22}  # TensorProto.DataType: uint8, int8, uint4, int4


class MappedModel(NamedTuple):
    """A model whose large weights are in a file.

    Attributes:
        graph: The model without these weights, serialized.
        folder: The folder of the file, for an option of ONNX Runtime.
    """

    graph: bytes
    folder: Path


def map_weights(path: Path, reader: MessageReader) -> MappedModel | None:
    """Replaces the large integer weights of a model by references into its file.

    Args:
        path: The model's file, which ONNX Runtime will open for the weights.
        reader: Reads the file's contents.

    Returns:
        None for a file without large integer weights, with weights in other files, or with damage:
        ONNX Runtime can load it as it is, or says what is wrong.
    """
    try:
        file = path.resolve(strict=True)  # symbolic links may lead to other folders
        str(file).encode()  # ONNX Runtime opens only paths in UTF-8
        name = file.name.encode()
        graph = next(reader.messages(None, _MODEL_GRAPH))
        weights = _large_weights(reader, graph)
        if not weights:
            return None
        data = reader.data
        parts = (
            _reference(reader, field, weights[field.start], name)
            if field.start in weights
            else data[field.start : field.end]
            for field in reader.fields(graph)
        )
        lean = message(_MODEL_GRAPH, b"".join(parts))
        return MappedModel(data[: graph.start] + lean + data[graph.end :], file.parent)
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


def _reference(reader: MessageReader, tensor: Field, weights: Field, name: bytes) -> bytes:
    """Makes a tensor that refers to its bytes in the file ``name`` instead of holding them."""
    return message(
        _GRAPH_INITIALIZER,
        reader.data[tensor.contents : weights.start]
        + reader.data[weights.end : tensor.end]
        + _entry(b"location", name)
        + _entry(b"offset", b"%d" % weights.contents)
        + _entry(b"length", b"%d" % (weights.end - weights.contents))
        + encoded(_TENSOR_LOCATION << 3 | VARINT)
        + encoded(_EXTERNAL),
    )


def _entry(key: bytes, value: bytes) -> bytes:
    return message(_TENSOR_EXTERNAL, message(_ENTRY_KEY, key) + message(_ENTRY_VALUE, value))
