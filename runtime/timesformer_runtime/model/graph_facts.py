"""Reads what an ``.onnx`` file states about itself, without ONNX Runtime and without its weights.

So a file of a stranger can be described in milliseconds, before anything in it runs.
"""

from __future__ import annotations

import dataclasses
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path

from timesformer_runtime.errors import InvalidModelError
from timesformer_runtime.model.function_calls import count_operators, text
from timesformer_runtime.model.session import TensorInfo
from timesformer_runtime.model.wire_format import Buffer, Field, MessageReader

# Field numbers of onnx.proto.
_IR_VERSION, _PRODUCER, _PRODUCER_VERSION, _GRAPH, _OPSET, _METADATA = 1, 2, 3, 7, 8, 14
_GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 5, 11, 12
_TENSOR_NAME = 8  # of an initializer
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_NAME, _TYPE = 1, 2  # of an input or output
_TENSOR_TYPE, _ELEMENT_TYPE, _SHAPE = 1, 1, 2
_DIMENSION, _SIZE, _SIZE_NAME = 1, 1, 2
_KEY, _VALUE = 1, 2
_NEGATIVE = 1 << 63  # a negative int64 is read as this number or a larger one

# ONNX Runtime's names of TensorProto.DataType.
_TYPES = {
    **dict(enumerate(("float", "uint8", "int8", "uint16", "int16", "int32", "int64"), start=1)),
    **dict(enumerate(("string", "bool", "float16", "double", "uint32", "uint64"), start=8)),
    16: "bfloat16",
}


@dataclasses.dataclass(frozen=True)
class GraphFacts:
    """The statements of a file about itself.

    Attributes:
        inputs: The inputs of the graph.
        outputs: The outputs of the graph.
        metadata: The file's ``metadata_props``.
        opsets: The version of each domain of operators; ONNX's own domain is ``ai.onnx``.
        operators: The number of nodes of each operator, by domain and name.
        ir_version: The version of the file format.
        producer: The program that wrote the file, and its version; empty where it is not stated.
    """

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    metadata: Mapping[str, str]
    opsets: Mapping[str, int]
    operators: Mapping[str, Mapping[str, int]]
    ir_version: int
    producer: str


def read_graph_facts(path: Path) -> GraphFacts:
    """Reads what a file states about itself; ``source_of_file`` must have checked it.

    Raises:
        InvalidModelError: The file is not an ONNX model, or damaged.
    """
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            return _facts(data)
    except OSError as error:
        raise InvalidModelError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, LookupError) as error:
        raise InvalidModelError(
            f"{path}: it is not an ONNX model, or damaged ({error}); give a complete file, or "
            "export it again"
        ) from error


def _facts(data: Buffer) -> GraphFacts:
    reader = MessageReader(data)
    graphs = list(reader.messages(None, _GRAPH))
    if not graphs:
        raise ValueError("it has no graph")
    graph = graphs[-1]
    weights = {
        reader.contents(name)
        for tensor in reader.messages(graph, _GRAPH_INITIALIZER)
        for name in reader.messages(tensor, _TENSOR_NAME)
    }
    producer = (_text(reader, None, number) for number in (_PRODUCER, _PRODUCER_VERSION))
    operators: dict[str, dict[str, int]] = {}
    for (domain, name), count in sorted(count_operators(MessageReader(data)).items()):
        operators.setdefault(_domain(domain), {})[name] = count
    return GraphFacts(
        # Old files list the weights among the inputs.
        inputs=tuple(
            tensor
            for tensor in _tensors(reader, graph, _GRAPH_INPUT)
            if tensor.name.encode(errors="surrogateescape") not in weights
        ),
        outputs=tuple(_tensors(reader, graph, _GRAPH_OUTPUT)),
        metadata={
            _text(reader, entry, _KEY): _text(reader, entry, _VALUE)
            for entry in reader.messages(None, _METADATA)
        },
        opsets={
            _domain(_text(reader, opset, _OPSET_DOMAIN)): _integer(reader, opset, _OPSET_VERSION)
            for opset in reader.messages(None, _OPSET)
        },
        operators=operators,
        ir_version=_integer(reader, None, _IR_VERSION),
        producer=" ".join(filter(None, producer)),
    )


def _domain(name: str) -> str:
    return name or "ai.onnx"


def _tensors(reader: MessageReader, graph: Field, number: int) -> Iterator[TensorInfo]:
    """Gives the inputs or outputs of a graph, as a session describes them."""
    for value in reader.messages(graph, number):
        kind = "unknown"
        shape: list[int | str | None] = []
        for tensor in _descend(reader, value, _TYPE, _TENSOR_TYPE):
            element = _integer(reader, tensor, _ELEMENT_TYPE)
            kind = f"tensor({_TYPES.get(element, element)})"
            shape = [_size(reader, d) for d in _descend(reader, tensor, _SHAPE, _DIMENSION)]
        yield TensorInfo(_text(reader, value, _NAME), kind, tuple(shape))


def _descend(reader: MessageReader, message: Field, first: int, second: int) -> Iterator[Field]:
    for outer in reader.messages(message, first):
        yield from reader.messages(outer, second)


def _size(reader: MessageReader, dimension: Field) -> int | str | None:
    if any(field.number == _SIZE for field in reader.fields(dimension)):
        size = _integer(reader, dimension, _SIZE)
        return None if size >= _NEGATIVE else size  # some tools write -1 for an open size
    return _text(reader, dimension, _SIZE_NAME) or None


def _text(reader: MessageReader, message: Field | None, number: int) -> str:
    """The last text of this number in a message, as protobuf reads it; empty if there is none."""
    found = ""
    for field in reader.messages(message, number):
        found = text(reader.contents(field))
    return found


def _integer(reader: MessageReader, message: Field | None, number: int) -> int:
    """The last integer of this number in a message; 0 if there is none."""
    found = 0
    for field in reader.fields(message):
        if field.number == number:
            found = reader.integer(field)
    return found
