"""Finds the weights of 8-bit products that x86 processors without VNNI need as unsigned numbers.

There, u8 activations times s8 weights overflow: two products are added in 16 bits. u8 times u8 does
not overflow. So the runtime adds 128 to the weights and gives the products a zero point of 128.

ONNX Runtime's own remedy, ``session.x64quantprecision``, computes the same numbers as fast, but
loading a model with it takes twice the time, also where no weight needs it. It remains switched on
for weights that this module leaves as they are although they could overflow: small ones, those with
a zero point other than 0, those of operators other than MatMulInteger, and all weights in a graph
with subgraphs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from timesformer_runtime.model.wire_format import VARINT, Field, MessageReader, encoded, message

# Field numbers of onnx.proto.
_NODE, _INITIALIZER, _INPUT, _OUTPUT, _VALUE = 1, 5, 11, 12, 13  # of a graph
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 4, 5, 7
_ATTRIBUTE_GRAPHS = (6, 11)
_TENSOR_TYPE, _TENSOR_INTEGERS, _TENSOR_NAME, _TENSOR_BYTES = 2, 5, 8, 9
_VALUE_NAME = 1
_UINT8, _INT8 = 2, 3  # values of TensorProto.DataType

# A field for the end of a tensor: if a field comes twice, the last one counts.
AS_UNSIGNED = encoded(_TENSOR_TYPE << 3 | VARINT) + encoded(_UINT8)

_OFFSET = 128
_SAFE = 64  # 2 * 64 * 255 fits into signed 16 bits
_ZERO_POINT = b"timesformer_runtime.zero_point"


@dataclasses.dataclass(frozen=True)
class UnsignedWeights:
    """The weights to make unsigned, and how to change the graph so that it takes them.

    Attributes:
        tensors: The names of the weights, by the offsets of their tensors.
        parts: New bytes for other parts of the graph, by the offset of the old part.
        more: Fields to add to the graph, in wire format.
        complete: True if no other product can overflow.
    """

    tensors: Mapping[int, bytes] = dataclasses.field(default_factory=dict)
    parts: Mapping[int, bytes] = dataclasses.field(default_factory=dict)
    more: bytes = b""
    complete: bool = False


class _Node(NamedTuple):
    """A node of a graph; operators that are not standard ONNX have their domain before a dot."""

    field: Field
    operator: bytes
    inputs: tuple[bytes, ...]
    output: bytes  # the first
    has_subgraph: bool


def unsigned_weights(
    reader: MessageReader, graph: Field, large: Mapping[int, Field]
) -> UnsignedWeights:
    """Finds the s8 weights whose products could overflow.

    Args:
        reader: Reads the file's contents.
        graph: The graph.
        large: The bytes of the weights that may be changed, by the offset of their tensor.

    Raises:
        ValueError: The graph is damaged.
        IndexError: The graph is damaged.
    """
    products, complete = _products(reader, graph, large)
    safe = set()
    tensors: dict[int, bytes] = {}
    parts: dict[int, bytes] = {}
    for tensor in reader.messages(graph, _INITIALIZER):
        name = _text(reader, tensor, _TENSOR_NAME)
        if name not in products or not _is_int8(reader, tensor):
            continue
        if _is_safe(reader, tensor):
            safe.add(name)
            continue
        if tensor.start not in large:
            continue
        tensors[tensor.start] = name
        parts |= {node.field.start: _with_zero_point(reader, node) for node in products[name]}
    complete = complete and products.keys() <= safe | set(tensors.values())
    if not tensors:
        return UnsignedWeights(complete=complete)
    for value in reader.messages(graph, _VALUE):
        if _text(reader, value, _VALUE_NAME) in tensors.values():
            parts[value.start] = b""  # it states the type of the signed weight
    return UnsignedWeights(tensors, parts, _zero_point(), complete)


def as_unsigned(weights: memoryview) -> npt.NDArray[np.uint8]:
    """Adds 128 to signed bytes, which flips the highest bit of each."""
    return np.frombuffer(weights, np.uint8) ^ np.uint8(_OFFSET)


def _products(
    reader: MessageReader, graph: Field, large: Mapping[int, Field]
) -> tuple[Mapping[bytes, list[_Node]], bool]:
    """Finds the products u8 x s8 of each weight that has the zero point 0 and no other uses.

    Returns:
        The products of each weight, by the name of the weight; and True if all integer products
        of the graph are among them, or multiply s8 activations that a Clip bounds to 7 bits.
    """
    small = [
        tensor
        for tensor in reader.messages(graph, _INITIALIZER)
        if tensor.start not in large and _is_int8(reader, tensor)
    ]
    zeros = {b""} | {
        _text(reader, tensor, _TENSOR_NAME) for tensor in small if _is_zero(reader, tensor)
    }
    bounds = {_text(reader, tensor, _TENSOR_NAME) for tensor in small if _is_safe(reader, tensor)}
    other_uses = {
        _text(reader, value, _VALUE_NAME)
        for number in (_INPUT, _OUTPUT)
        for value in reader.messages(graph, number)
    }
    complete = True
    unsigned: set[bytes] = set()  # activations
    clipped: set[bytes] = set()  # activations that are s8 with values of 7 bits
    products: dict[bytes, list[_Node]] = {}
    for field in reader.messages(graph, _NODE):
        node = _read_node(reader, field)
        if node.has_subgraph:
            return {}, False
        inputs = [*node.inputs, b"", b"", b"", b""]
        if node.operator == b"DynamicQuantizeLinear":
            unsigned.add(node.output)
        elif node.operator == b"Clip" and bounds.issuperset(inputs[1:3]):
            clipped.add(node.output)
        elif node.operator == b"MatMulInteger" and inputs[0] in unsigned and inputs[1] in clipped:
            pass  # cannot overflow
        elif node.operator == b"MatMulInteger" and inputs[0] in unsigned and inputs[3] in zeros:
            products.setdefault(inputs.pop(1), []).append(node)
        elif _may_be_integer(node.operator):
            complete = False
        other_uses.update(inputs)
    found = {weight: nodes for weight, nodes in products.items() if weight not in other_uses}
    return found, complete and len(found) == len(products)


def _may_be_integer(operator: bytes) -> bool:
    """True for operators that compute in integers, or make weights for those; or if unknown."""
    domain, _, name = operator.lower().rpartition(b".")
    if domain not in (b"", b"com.microsoft"):
        return True
    if name == b"quantizelinear":  # other operators use what it makes
        return False
    return name.startswith(b"q") or any(part in name for part in (b"integer", b"quant"))


def _read_node(reader: MessageReader, field: Field) -> _Node:
    inputs, outputs = [], []
    operator = domain = b""
    has_subgraph = False
    for part in reader.fields(field):
        if part.number == _NODE_INPUT:
            inputs.append(reader.contents(part))
        elif part.number == _NODE_OUTPUT:
            outputs.append(reader.contents(part))
        elif part.number == _NODE_OPERATOR:
            operator = reader.contents(part)
        elif part.number == _NODE_DOMAIN:
            domain = reader.contents(part)
        elif part.number == _NODE_ATTRIBUTE:
            has_subgraph |= any(inner.number in _ATTRIBUTE_GRAPHS for inner in reader.fields(part))
    output = outputs[0] if outputs else b""
    full_name = domain + b"." + operator if domain else operator
    return _Node(field, full_name, tuple(inputs), output, has_subgraph)


def _is_safe(reader: MessageReader, tensor: Field) -> bool:
    """True for a tensor of weights of 7 bits."""
    field = next(reader.messages(tensor, _TENSOR_BYTES), None)
    if field is None or field.contents == field.end:
        return False
    values = np.frombuffer(reader.contents(field), np.int8)
    return bool(values.max() <= _SAFE and values.min() >= -_SAFE)


def _is_zero(reader: MessageReader, tensor: Field) -> bool:
    """True for a tensor of integers that holds nothing but zeros."""
    values = b"".join(
        reader.contents(field)
        for number in (_TENSOR_INTEGERS, _TENSOR_BYTES)
        for field in reader.messages(tensor, number)
    )
    return bool(values) and not any(values)


def _with_zero_point(reader: MessageReader, node: _Node) -> bytes:
    inputs = [*[*node.inputs, b""][:3], _ZERO_POINT]
    others = (part for part in reader.fields(node.field) if part.number != _NODE_INPUT)
    return message(
        _NODE,
        b"".join(message(_NODE_INPUT, name) for name in inputs)
        + b"".join(reader.data[part.start : part.end] for part in others),
    )


def _zero_point() -> bytes:
    value = message(_TENSOR_NAME, _ZERO_POINT) + message(_TENSOR_BYTES, bytes([_OFFSET]))
    return message(_INITIALIZER, value + AS_UNSIGNED)


def _is_int8(reader: MessageReader, tensor: Field) -> bool:
    return any(
        reader.integer(field) == _INT8
        for field in reader.fields(tensor)
        if field.number == _TENSOR_TYPE
    )


def _text(reader: MessageReader, part: Field, number: int) -> bytes:
    """The text in a field of a message; empty where the message does not have that field."""
    return next((reader.contents(field) for field in reader.messages(part, number)), b"")
