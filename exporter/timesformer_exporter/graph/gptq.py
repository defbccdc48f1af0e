"""Weights of 4 bits that answer as the float ones do: GPTQ (arXiv 2210.17323).

Rounding each weight to the nearest value makes errors that add up. Here the weights of a column
are rounded one after the other, and those that are still free make up for the error of the last,
as far as the model's activations on real clips say that they can.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

Matrix = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

_LEVELS = 15  # the largest value of 4 bits
_DAMPING = 0.01  # of the mean diagonal: what keeps directions that no clip showed in check


def activation_grams(
    graph: onnx.ModelProto, clips: Iterable[npt.NDArray[np.generic]]
) -> dict[str, Matrix]:
    """How the inputs of each matrix product vary together, summed over all tokens of all clips.

    The sums are made in the graph, so that memory does not grow with the tokens.

    Args:
        graph: A float32 graph with one input; it is left as it is.
        clips: The graph's input for one clip each, without the batch axis.

    Returns:
        float32 [K, K] by the name of the weight [K, N].

    Raises:
        ValueError: There is no clip.
    """
    weights = {tensor.name: tensor for tensor in graph.graph.initializer}
    products = constant_products(graph, weights)
    inputs = {node.input[0]: weights[node.input[1]].dims[0] for node in products}
    session = onnxruntime.InferenceSession(
        _with_grams(graph, inputs).SerializeToString(), _options(), ["CPUExecutionProvider"]
    )
    (graph_input,) = session.get_inputs()
    names = [_gram(name) for name in inputs]
    sums: dict[str, Matrix] = {}
    for clip in clips:
        products_of_clip = session.run(names, {graph_input.name: clip[None]})
        for name, values in zip(inputs, products_of_clip, strict=True):
            sums[name] = sums[name] + values if name in sums else values
    if not sums:
        raise ValueError("weights of 4 bits are fit to clips; give at least one")
    grams: dict[str, Matrix] = {}
    for node in products:  # a weight may have several inputs
        found = sums[node.input[0]]
        grams[node.input[1]] = grams[node.input[1]] + found if node.input[1] in grams else found
    return grams


def constant_products(
    graph: onnx.ModelProto, weights: Mapping[str, onnx.TensorProto]
) -> list[onnx.NodeProto]:
    """The matrix products of activations with these weights, where they are [K, N]."""
    return [
        node
        for node in graph.graph.node
        if node.op_type == "MatMul"
        and node.input[1] in weights
        and len(weights[node.input[1]].dims) == 2
    ]


def quantize_block_wise(weight: Matrix, gram: Matrix, block: int) -> tuple[Bytes, Matrix, Bytes]:
    """Quantizes a matrix to 4 bits, with a scale and a zero point for each block of a column.

    Args:
        weight: float32 [K, N].
        gram: From ``activation_grams``, [K, K].
        block: How many weights of a column share a scale; it divides K.

    Returns:
        Values from 0 to 15 [K, N], scales [K / block, N] and zero points [K / block, N]; a weight
        is (value - zero point) * scale.
    """
    rest = weight.astype(np.float64)
    values = np.empty(weight.shape, np.uint8)
    blocks = len(weight) // block
    scales = np.empty((blocks, weight.shape[1]))
    zeros = np.empty((blocks, weight.shape[1]))
    spread = _spread(gram)
    for number in range(blocks):
        start, end = number * block, (number + 1) * block
        scale, zero = _grid(rest[start:end])
        errors = np.empty((block, weight.shape[1]))
        for row in range(start, end):
            values[row] = np.clip(np.round(rest[row] / scale) + zero, 0, _LEVELS)
            error = (rest[row] - (values[row] - zero) * scale) / spread[row, row]
            rest[row + 1 : end] -= np.outer(spread[row, row + 1 : end], error)
            errors[row - start] = error
        rest[end:] -= spread[start:end, end:].T @ errors
        scales[number], zeros[number] = scale, zero
    return values, scales.astype(np.float32), zeros.astype(np.uint8)


def pack(nibbles: Bytes) -> Bytes:
    """Two values of 4 bits a byte along the last axis, the first one in the low half."""
    if nibbles.shape[-1] % 2:
        nibbles = np.pad(nibbles, [(0, 0)] * (nibbles.ndim - 1) + [(0, 1)])
    packed: Bytes = nibbles[..., ::2] | (nibbles[..., 1::2] << np.uint8(4))
    return packed


def _spread(gram: Matrix) -> npt.NDArray[np.float64]:
    """How the error of one weight is made up for by the later ones: upper triangular [K, K]."""
    damped = gram.astype(np.float64)
    diagonal = np.einsum("ii->i", damped)
    mean = float(diagonal.mean()) or 1.0
    diagonal[diagonal == 0] = mean  # never used: nothing to make up for
    diagonal += _DAMPING * mean
    upper: npt.NDArray[np.float64] = np.linalg.cholesky(np.linalg.inv(damped)).T
    return upper


def _grid(block: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], ...]:
    """Scales and zero points [N] that reach from the least to the largest weight, and to 0."""
    low, high = np.minimum(block.min(axis=0), 0), np.maximum(block.max(axis=0), 0)
    scale = (high - low) / _LEVELS
    scale[scale == 0] = 1.0
    return scale, np.round(-low / scale)


def _with_grams(graph: onnx.ModelProto, inputs: Mapping[str, int]) -> onnx.ModelProto:
    """A copy of a graph that also puts out the products of its activations with themselves."""
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    del copy.graph.output[:]
    for name, width in inputs.items():
        rows, shape = f"{_gram(name)}/rows", f"{_gram(name)}/shape"
        copy.graph.initializer.append(
            onnx.numpy_helper.from_array(np.array([-1, width], np.int64), shape)
        )
        copy.graph.node.extend(
            [
                onnx.helper.make_node("Reshape", [name, shape], [rows]),
                onnx.helper.make_node("Gemm", [rows, rows], [_gram(name)], transA=1),
            ]
        )
        copy.graph.output.append(
            onnx.helper.make_tensor_value_info(_gram(name), onnx.TensorProto.FLOAT, [width, width])
        )
    return copy


def _gram(name: str) -> str:
    return f"{name}/gram"


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return options
