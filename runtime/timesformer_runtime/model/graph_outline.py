"""Reads two facts from an ``.onnx`` file that a session on another device than the CPU needs.

ONNX Runtime tells neither of them before it has loaded the file. ``graph_facts`` reads all that a
file states, for people.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import NamedTuple

from timesformer_runtime.model.wire_format import DELIMITED, Field, MessageReader

# Field numbers of onnx.proto.
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT = 1, 5, 11
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OPERATOR, _NODE_ATTRIBUTE = 1, 2, 3, 4, 5
_ATTRIBUTE_GRAPHS = (6, 11)
_TENSOR_NAME = 8
_VALUE_NAME = 1
_SHAPE_OF_INPUT = (2, 1, 2)  # fields in a value: its type, the type of a tensor, and its shape
_SHAPE_DIMENSION = 1
_DIMENSION_NAME = 2

_ASK_FOR_SHAPES = (b"Shape", b"Size")


class GraphOutline(NamedTuple):
    """The facts about a graph that matter to a device other than the CPU.

    Attributes:
        batch_axis: Name of the first dimension of the first input; None where it is a number.
        shape_arithmetic: Operator and name of each node whose result depends only on the shape of
            the input, and not on its values.
    """

    batch_axis: str | None = None
    shape_arithmetic: frozenset[tuple[str, str]] = frozenset()


def outline(graph: Path | bytes) -> GraphOutline:
    """Reads the outline of a graph, given as a path or as the contents of a file.

    A file that is damaged or not a model has an empty outline: ONNX Runtime says what is wrong.
    """
    if isinstance(graph, bytes):
        return _outline(MessageReader(graph))
    try:
        with (
            graph.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            return _outline(MessageReader(data))
    except (OSError, ValueError):
        return GraphOutline()


def _outline(reader: MessageReader) -> GraphOutline:
    try:
        graph = next(reader.messages(None, _MODEL_GRAPH), None)
        if graph is None:
            return GraphOutline()
        weights = {
            _text(reader, t, _TENSOR_NAME) for t in reader.messages(graph, _GRAPH_INITIALIZER)
        }
        inputs = {
            name: value
            for value in reader.messages(graph, _GRAPH_INPUT)
            if (name := _text(reader, value, _VALUE_NAME)) not in weights
        }
        first = next(iter(inputs.values()), None)
        return GraphOutline(
            None if first is None else _first_dimension(reader, first),
            _shape_arithmetic(reader, graph, set(inputs)),
        )
    except (ValueError, IndexError):
        return GraphOutline()


def _shape_arithmetic(
    reader: MessageReader, graph: Field, values: set[bytes]
) -> frozenset[tuple[str, str]]:
    """Finds the nodes that do not depend on ``values``, the names of the graph's inputs.

    Nodes come after those whose results they use, so one pass is enough. ONNX Runtime tells a
    node's operator and name; two nodes may have both in common.
    """
    found: dict[bool, set[tuple[str, str]]] = {True: set(), False: set()}
    depending = set(values)
    for node in reader.messages(graph, _GRAPH_NODE):
        operator = _text(reader, node, _NODE_OPERATOR)
        depends = operator not in _ASK_FOR_SHAPES and (
            any(reader.contents(name) in depending for name in reader.messages(node, _NODE_INPUT))
            or _has_graph(reader, node)  # which may use any value
        )
        if depends:
            depending |= {reader.contents(name) for name in reader.messages(node, _NODE_OUTPUT)}
        name = _text(reader, node, _NODE_NAME)
        found[depends].add((operator.decode(errors="replace"), name.decode(errors="replace")))
    return frozenset(found[False] - found[True])


def _first_dimension(reader: MessageReader, value: Field) -> str | None:
    """Reads the name of a tensor's first dimension; None where the dimension has no name."""
    part: Field | None = value
    for number in (*_SHAPE_OF_INPUT, _SHAPE_DIMENSION):
        part = None if part is None else next(reader.messages(part, number), None)
    if part is None:
        return None
    return _text(reader, part, _DIMENSION_NAME).decode() or None


def _has_graph(reader: MessageReader, node: Field) -> bool:
    return any(
        field.number in _ATTRIBUTE_GRAPHS
        for attribute in reader.messages(node, _NODE_ATTRIBUTE)
        for field in reader.fields(attribute)
        if field.wire_type == DELIMITED
    )


def _text(reader: MessageReader, message: Field, number: int) -> bytes:
    return next((reader.contents(field) for field in reader.messages(message, number)), b"")
