"""Counts a graph's nodes after its functions are inlined, as ONNX Runtime does on loading.

A file of a few kilobytes can define thirty functions, each of which calls the previous one twice:
inlined, they have a billion nodes.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Iterator, Mapping

from timesformer_runtime.model.wire_format import Field, MessageReader

# Field numbers of onnx.proto.
_MODEL_GRAPH, _MODEL_FUNCTION = 7, 25
_GRAPH_NODE = 1
_FUNCTION_NAME, _FUNCTION_NODE, _FUNCTION_DOMAIN, _FUNCTION_OVERLOAD = 1, 7, 10, 13
_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN, _NODE_OVERLOAD = 4, 5, 7, 8
_ATTRIBUTE_GRAPHS = (6, 11)

_Name = tuple[bytes, ...]  # of an operator or function: domain, name, overload
_Calls = collections.Counter[_Name]

_ONNX_DOMAIN = b"ai.onnx"  # the default domain, which may also be left out


def count_nodes(reader: MessageReader) -> float:
    """Counts the nodes of a graph with all functions inlined.

    Returns:
        Infinity where a function calls itself; 0 for a graph without functions, whose nodes need
        no count.

    Raises:
        ValueError, IndexError: The file is not a model.
    """
    functions = {
        _name(reader, function, _FUNCTION_DOMAIN, _FUNCTION_NAME, _FUNCTION_OVERLOAD): _calls(
            reader, function, _FUNCTION_NODE
        )
        for function in reader.messages(None, _MODEL_FUNCTION)
    }
    if not functions:
        return 0
    graphs = [_calls(reader, graph, _GRAPH_NODE) for graph in reader.messages(None, _MODEL_GRAPH)]
    sizes = _sizes(functions)
    return sum(_size(calls, sizes) for calls in graphs)


def count_operators(reader: MessageReader) -> Mapping[tuple[str, str], int]:
    """Counts the nodes of each operator, in all graphs and in the bodies of all functions.

    Returns:
        The numbers of nodes, by domain (empty for ONNX's own) and name.

    Raises:
        ValueError, IndexError: The file is not a model.
    """
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    for number, nodes in ((_MODEL_GRAPH, _GRAPH_NODE), (_MODEL_FUNCTION, _FUNCTION_NODE)):
        for body in reader.messages(None, number):
            for (domain, name, _overload), count in _calls(reader, body, nodes).items():
                counts[text(domain), text(name)] += count
    return counts


def text(contents: bytes) -> str:
    """Decodes a text of a file; bytes that are not UTF-8 become surrogates."""
    return contents.decode(errors="surrogateescape")


def _name(reader: MessageReader, message: Field, *numbers: int) -> _Name:
    texts = dict.fromkeys(numbers, b"")
    for field in reader.fields(message):
        if field.number in texts:
            texts[field.number] = reader.contents(field)
    domain, *rest = texts.values()
    return (b"" if domain == _ONNX_DOMAIN else domain, *rest)


def _calls(reader: MessageReader, body: Field, number: int) -> _Calls:
    """Counts the calls of each operator and function in a body, nested graphs included."""
    calls: _Calls = collections.Counter()
    bodies = [(body, number)]
    while bodies:
        for node in reader.messages(*bodies.pop()):
            calls[_name(reader, node, _NODE_DOMAIN, _NODE_OPERATOR, _NODE_OVERLOAD)] += 1
            bodies += [(graph, _GRAPH_NODE) for graph in _graphs_of(reader, node)]
    return calls


def _graphs_of(reader: MessageReader, node: Field) -> Iterator[Field]:
    for attribute in reader.messages(node, _NODE_ATTRIBUTE):
        for number in _ATTRIBUTE_GRAPHS:
            yield from reader.messages(attribute, number)


def _sizes(functions: Mapping[_Name, _Calls]) -> dict[_Name, float]:
    """Counts the nodes of each function, with the functions that it calls inlined."""
    sizes: dict[_Name, float] = {}
    waiting = list(functions)
    begun: set[_Name] = set()
    while waiting:
        name = waiting[-1]
        missing = [
            called for called in functions[name] if called in functions and called not in sizes
        ]
        if name in sizes or not missing or name in begun:
            # If sizes are still missing after the function was begun, the function calls itself.
            size = math.inf if missing else _size(functions[name], sizes)
            sizes.setdefault(name, size)
            waiting.pop()
        else:
            begun.add(name)
            waiting += missing
    return sizes


def _size(calls: _Calls, sizes: Mapping[_Name, float]) -> float:
    return sum((count * sizes.get(name, 1.0) for name, count in calls.items()), 0.0)
