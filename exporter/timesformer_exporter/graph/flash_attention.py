"""Replaces the standard Attention operator by a faster one where sequences are long.

ONNX Runtime's CPU kernel of the standard operator keeps all attention probabilities in memory:
118 MB for each layer of joint attention over 8 frames. ONNX Runtime's own operator
MultiHeadAttention computes the probabilities in blocks that fit the cache, and is a third faster on
such sequences. Below some 300 tokens both operators take equally long.
"""

from __future__ import annotations

import onnx_ir as ir

_LONG = 300  # tokens


def use_flash_attention(model: ir.Model) -> int:
    """Replaces the standard operator where the sequences are long.

    Args:
        model: The graph, changed in place. Only opset 23's Attention on [batch, S, D] is replaced.

    Returns:
        The number of operators that were replaced.
    """
    long = [node for node in model.graph if node.op_type == "Attention" and _is_long(node)]
    for node in long:
        attributes = {
            "num_heads": node.attributes["q_num_heads"].as_int(),
            "scale": node.attributes["scale"].as_float(),
        }
        flash = ir.node(
            "MultiHeadAttention",
            list(node.inputs),
            attributes,
            domain="com.microsoft",
            name=node.name,
        )
        ir.convenience.replace_nodes_and_values(
            model.graph, node, [node], [flash], node.outputs[:1], flash.outputs
        )
    if long:
        model.opset_imports["com.microsoft"] = 1
    return len(long)


def _is_long(node: ir.Node) -> bool:
    """True for many queries with many keys; blocks do not make a single query (CLS) faster."""
    shapes = [value.shape if value is not None else None for value in node.inputs[:2]]
    return all(
        shape is not None and len(shape) == 3 and isinstance(shape[1], int) and shape[1] >= _LONG
        for shape in shapes
    )
