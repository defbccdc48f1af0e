"""Rounds weights to few bits with GPTQ (arXiv 2210.17323).

If each weight were rounded to the nearest value, the errors would add up. GPTQ rounds the weights
of a column one after the other. After each, it changes the weights that are not rounded yet so that
they make up for the error, as far as the model's activations on real clips allow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

Matrix = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
_Rows = npt.NDArray[np.float64]
# From a row's number and weights to integers, and to the weights that the integers stand for.
_Rounding: TypeAlias = Callable[[int, _Rows], tuple[_Rows, _Rows]]

_LEVELS = 15  # the largest value of 4 bits
_COLUMN_BLOCK = 128  # rows; changes only the speed where a whole column shares a scale
# Share of the Gram matrix's mean diagonal that is added to its diagonal. It keeps the corrections
# small in directions that the activations of no clip have.
_DAMPING = 0.01


def activation_grams(
    graph: onnx.ModelProto, clips: Iterable[npt.NDArray[np.generic]]
) -> dict[str, Matrix]:
    """Computes the Gram matrix X^T X of the inputs X of each matrix product.

    The rows of X are all tokens of all clips. The graph itself sums over them, so that memory does
    not grow with the number of tokens.

    Args:
        graph: A float32 graph with one input; it is left as it is.
        clips: The graph's input for one clip each, without the batch axis.

    Returns:
        The Gram matrices float32 [K, K], by the name of the weight [K, N].

    Raises:
        ValueError: ``clips`` is empty.
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
        raise ValueError("weights are fit to clips; give at least one")
    grams: dict[str, Matrix] = {}
    for node in products:  # several products may share a weight
        found = sums[node.input[0]]
        grams[node.input[1]] = grams[node.input[1]] + found if node.input[1] in grams else found
    return grams


def constant_products(
    graph: onnx.ModelProto, weights: Mapping[str, onnx.TensorProto]
) -> list[onnx.NodeProto]:
    """Lists the products of activations with those of the weights that are matrices [K, N]."""
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
        gram: The Gram matrix [K, K] from ``activation_grams``.
        block: The number of weights of a column that share a scale; K is a multiple of it.

    Returns:
        Values from 0 to 15 [K, N], scales [K / block, N] and zero points [K / block, N]. The
        quantized weight is (value - zero point) * scale.
    """
    blocks = len(weight) // block
    scales = np.empty((blocks, weight.shape[1]))
    zeros = np.empty((blocks, weight.shape[1]))

    def start(number: int, rest: _Rows) -> _Rounding:
        scale, zero = scales[number], zeros[number] = _scale_and_zero_point(rest)

        def nearest(_row: int, weights: _Rows) -> tuple[_Rows, _Rows]:
            values = np.clip(np.round(weights / scale) + zero, 0, _LEVELS)
            return values, (values - zero) * scale

        return nearest

    values = _round_in_turn(weight, gram, block, start)
    return values.astype(np.uint8), scales.astype(np.float32), zeros.astype(np.uint8)


def round_columns(weight: Matrix, gram: Matrix, largest: int) -> Matrix:
    """Rounds a matrix to multiples of a scale for each column, from -largest to largest.

    The largest weight of a column sets the scale. It becomes the largest multiple, so that a
    quantizer finds the scale again and keeps the rounded weights.

    Args:
        weight: float32 [K, N].
        gram: The Gram matrix [K, K] from ``activation_grams``.
        largest: The largest integer.

    Returns:
        The rounded weights, float32 [K, N].
    """
    peaks = np.abs(weight).argmax(axis=0)
    extremes = np.take_along_axis(weight, peaks[None], axis=0)[0].astype(np.float64)
    scale = np.abs(extremes) / largest
    scale[scale == 0] = 1.0

    def nearest(row: int, weights: _Rows) -> tuple[_Rows, _Rows]:
        values = np.clip(np.round(weights / scale), -largest, largest)
        values = np.where(peaks == row, np.round(extremes / scale), values)
        return values, values * scale

    values = _round_in_turn(weight, gram, _COLUMN_BLOCK, lambda _number, _rest: nearest)
    rounded: Matrix = (values * scale).astype(np.float32)
    return rounded


def _round_in_turn(
    weight: Matrix, gram: Matrix, block: int, start: Callable[[int, _Rows], _Rounding]
) -> _Rows:
    """Rounds the rows of a matrix one after the other; the later rows make up for the errors.

    Args:
        weight: float32 [K, N].
        gram: The Gram matrix [K, K].
        block: The number of rows after which the errors reach the rows of later blocks.
        start: Gets the number of a block and its rows, with all corrections of earlier blocks;
            returns the function that rounds a row of the block.

    Returns:
        The integers of all rows [K, N].
    """
    rest = weight.astype(np.float64)
    values = np.empty_like(rest)
    corrections = _corrections(gram)
    for number, begin in enumerate(range(0, len(rest), block)):
        end = min(begin + block, len(rest))
        rounded = start(number, rest[begin:end])
        errors = np.empty((end - begin, weight.shape[1]))
        for row in range(begin, end):
            values[row], found = rounded(row, rest[row])
            error = (rest[row] - found) / corrections[row, row]
            rest[row + 1 : end] -= np.outer(corrections[row, row + 1 : end], error)
            errors[row - begin] = error
        rest[end:] -= corrections[begin:end, end:].T @ errors
    return values


def pack(nibbles: Bytes) -> Bytes:
    """Packs two values of 4 bits into a byte along the last axis, the first into the low half."""
    if nibbles.shape[-1] % 2:
        nibbles = np.pad(nibbles, [(0, 0)] * (nibbles.ndim - 1) + [(0, 1)])
    packed: Bytes = nibbles[..., ::2] | (nibbles[..., 1::2] << np.uint8(4))
    return packed


def _corrections(gram: Matrix) -> npt.NDArray[np.float64]:
    """The change of the later weights for the error of each weight: upper triangular [K, K].

    This matrix is the Cholesky factor of the inverse of the damped Gram matrix.
    """
    damped = gram.astype(np.float64)
    diagonal = np.einsum("ii->i", damped)
    mean = float(diagonal.mean()) or 1.0
    diagonal[diagonal == 0] = mean  # an input that is always 0: its weights do not matter
    diagonal += _DAMPING * mean
    upper: npt.NDArray[np.float64] = np.linalg.cholesky(np.linalg.inv(damped)).T
    return upper


def _scale_and_zero_point(block: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], ...]:
    """Scales and zero points [N] for a range that holds all weights of a block's column, and 0."""
    low, high = np.minimum(block.min(axis=0), 0), np.maximum(block.max(axis=0), 0)
    scale = (high - low) / _LEVELS
    scale[scale == 0] = 1.0
    return scale, np.round(-low / scale)


def _with_grams(graph: onnx.ModelProto, inputs: Mapping[str, int]) -> onnx.ModelProto:
    """Copies a graph; the outputs of the copy are the Gram matrices of the named activations."""
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
