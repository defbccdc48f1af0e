"""Makes the q4 variant: ONNX Runtime's operator MatMulNBits, with weights that GPTQ quantized.

The operator computes in float. With ``accuracy_level`` 4 it would compute in int8, which takes 1.25
times as long for as many tokens as a clip has, and is less accurate.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import onnx

from timesformer_exporter.graph.gptq import (
    Matrix,
    activation_grams,
    constant_products,
    pack,
    quantize_block_wise,
)

_BLOCK = 32  # weights of a column that share a scale and a zero point
_DOMAIN = "com.microsoft"


def with_four_bits(
    graph: onnx.ModelProto, clips: Iterable[npt.NDArray[np.generic]]
) -> onnx.ModelProto:
    """Replaces the weights of a graph's matrix products by weights of 4 bits.

    Args:
        graph: The float32 graph, changed in place.
        clips: The clips that the weights are fit to: the graph's input for one clip each, without
            the batch axis.

    Returns:
        ``graph`` itself.
    """
    grams = activation_grams(graph, clips)
    weights = {tensor.name: tensor for tensor in graph.graph.initializer if tensor.name in grams}
    for name, tensor in weights.items():
        values = onnx.numpy_helper.to_array(tensor)
        graph.graph.initializer.extend(_quantized(name, values, grams[name]))
        graph.graph.initializer.remove(tensor)
    for node in constant_products(graph, weights):
        rows, columns = weights[node.input[1]].dims
        node.op_type, node.domain = "MatMulNBits", _DOMAIN
        node.input[1:] = _part_names(node.input[1])
        attributes = {
            "K": rows,
            "N": columns,
            "bits": 4,
            "block_size": _BLOCK,
        }
        node.attribute.extend(onnx.helper.make_attribute(*item) for item in attributes.items())
    if _DOMAIN not in {opset.domain for opset in graph.opset_import}:
        graph.opset_import.append(onnx.helper.make_opsetid(_DOMAIN, 1))
    return graph


def _quantized(name: str, weight: Matrix, gram: Matrix) -> list[onnx.TensorProto]:
    """Quantizes a weight [K, N]; MatMulNBits takes its parts with N as the first axis."""
    padding = -len(weight) % _BLOCK
    values, scales, zeros = quantize_block_wise(
        np.pad(weight, ((0, padding), (0, 0))), np.pad(gram, (0, padding)), _BLOCK
    )
    blocks = values.T.reshape(weight.shape[1], -1, _BLOCK)
    parts = pack(blocks), np.ascontiguousarray(scales.T), pack(zeros.T)
    return [
        onnx.numpy_helper.from_array(part, part_name)
        for part, part_name in zip(parts, _part_names(name), strict=True)
    ]


def _part_names(weight: str) -> list[str]:
    return [f"{weight}_q4", f"{weight}_scales", f"{weight}_zero_points"]
