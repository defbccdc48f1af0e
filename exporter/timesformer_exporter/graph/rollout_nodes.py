"""Finds the nodes that only attention rollout needs, and makes the slowest of them int8.

Rollout of a long sequence computes the products of queries and keys a second time, which is most of
its work. In int8 the queries are u8 and the keys s8, both with one scale that is computed at run
time. The keys have 7 bits: such products never overflow, whatever the processor. A Clip states
these bounds in the graph, where the runtime finds them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

from timesformer_exporter.model.attention_rollout import ROLLOUT

_LARGEST = 64  # 2 * 64 * 255 fits into signed 16 bits
_CONSTANTS = {
    "rollout_largest": np.array(_LARGEST, np.float32),
    "rollout_least_scale": np.array(1e-30, np.float32),  # keys may all be 0
    "rollout_zero": np.array(0, np.int8),
    "rollout_lower": np.array(-_LARGEST, np.int8),
    "rollout_upper": np.array(_LARGEST, np.int8),
}


def only_for_rollout(graph: onnx.GraphProto) -> list[str]:
    """The names of the nodes that only attention rollout needs; none where it is not an output."""
    outputs = {output.name for output in graph.output}
    if ROLLOUT not in outputs:
        return []
    needed = outputs - {ROLLOUT}  # of the other outputs
    only = []
    for node in reversed(graph.node):  # sorted: a value is made before its first use
        if needed.isdisjoint(node.output):
            only.append(node.name)
        else:  # a condition only puts operators in order; see ``computed_after``
            needed.update(node.input[1:] if node.op_type == "Where" else node.input)
    return only


def use_integer_scores(graph: onnx.GraphProto) -> int:
    """Makes the products of queries and keys int8 that only attention rollout needs.

    Args:
        graph: The graph, changed in place.

    Returns:
        The number of products that were replaced.
    """
    only = set(only_for_rollout(graph))
    before_softmax = {node.input[0] for node in graph.node if node.op_type == "Softmax"}
    nodes: list[onnx.NodeProto] = []
    quantized: set[str] = set()  # keys: all blocks of queries share them
    count = 0
    for node in graph.node:
        is_score = node.op_type == "MatMul" and not before_softmax.isdisjoint(node.output)
        if not is_score or node.name not in only:
            nodes.append(node)
            continue
        keys = node.input[1]
        if keys not in quantized:
            quantized.add(keys)
            nodes += _quantize_keys(keys)
        nodes += _integer_product(node.input[0], keys, node.output[0])
        count += 1
    if count:
        del graph.node[:]
        graph.node.extend(nodes)
        graph.initializer.extend(
            numpy_helper.from_array(value, name) for name, value in _CONSTANTS.items()
        )
    return count


def _quantize_keys(keys: str) -> Iterator[onnx.NodeProto]:
    """Yields nodes that make keys s8: ``KEYS_q`` with the scale ``KEYS_scale``."""
    steps = {
        "abs": ("Abs", [keys]),
        "max": ("ReduceMax", [f"{keys}_abs"]),
        "step": ("Div", [f"{keys}_max", "rollout_largest"]),
        "scale": ("Max", [f"{keys}_step", "rollout_least_scale"]),
        "s8": ("QuantizeLinear", [keys, f"{keys}_scale", "rollout_zero"]),
        "q": ("Clip", [f"{keys}_s8", "rollout_lower", "rollout_upper"]),
    }
    for ending, (operator, inputs) in steps.items():
        name = f"{keys}_{ending}"
        attributes = {"keepdims": 0} if operator == "ReduceMax" else {}
        yield helper.make_node(operator, inputs, [name], name, **attributes)


def _integer_product(queries: str, keys: str, scores: str) -> Iterator[onnx.NodeProto]:
    """Yields nodes for queries times keys, in the form that ONNX Runtime joins to one operator."""
    quantized = [f"{queries}_{ending}" for ending in ("q", "scale", "zero")]
    steps = {
        "integer": ("MatMulInteger", [quantized[0], f"{keys}_q", quantized[2], "rollout_zero"]),
        "float": ("Cast", [f"{scores}_integer"]),
        "scale": ("Mul", [quantized[1], f"{keys}_scale"]),
    }
    yield helper.make_node("DynamicQuantizeLinear", [queries], quantized, quantized[0])
    for ending, (operator, inputs) in steps.items():
        name = f"{scores}_{ending}"
        attributes = {"to": onnx.TensorProto.FLOAT} if operator == "Cast" else {}
        yield helper.make_node(operator, inputs, [name], name, **attributes)
    yield helper.make_node("Mul", [f"{scores}_float", f"{scores}_scale"], [scores], scores)
