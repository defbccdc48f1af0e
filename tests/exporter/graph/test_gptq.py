"""Weights of 4 bits: GPTQ against its definition, and the graph that ONNX Runtime runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from timesformer_exporter.graph.four_bits import with_four_bits
from timesformer_exporter.graph.gptq import (
    Bytes,
    Matrix,
    activation_grams,
    pack,
    quantize_block_wise,
    round_columns,
)

Array = npt.NDArray[np.float64]
RANDOM = np.random.default_rng(0)


def _activations(rows: int, width: int) -> npt.NDArray[np.float32]:
    """Correlated activations, like a layer's, so that one weight can correct another's error."""
    mixed = RANDOM.normal(size=(rows, 6)) @ RANDOM.normal(size=(6, width))
    return (mixed + 0.1 * RANDOM.normal(size=(rows, width))).astype(np.float32)


def _dequantized(values: Bytes, scales: Matrix, zeros: Bytes, block: int) -> Array:
    levels = values.astype(np.float64) - zeros.repeat(block, axis=0)
    weights: Array = levels * scales.repeat(block, axis=0)
    return weights


def _by_definition(weight: Matrix, gram: Matrix, block: int) -> Array:
    """GPTQ as in the paper's derivation: each step inverts the Hessian of the free weights."""
    rest = weight.astype(np.float64)
    hessian = gram + 0.01 * np.diag(gram).mean() * np.eye(len(gram))
    scale = zero = np.zeros(0)
    for row in range(len(rest)):
        if row % block == 0:
            part = rest[row : row + block]
            low, high = np.minimum(part.min(axis=0), 0), np.maximum(part.max(axis=0), 0)
            scale = (high - low) / 15
            zero = np.round(-low / scale)
        rounded = (np.clip(np.round(rest[row] / scale) + zero, 0, 15) - zero) * scale
        inverse = np.linalg.inv(hessian[row:, row:])
        error = (rest[row] - rounded) / inverse[0, 0]
        rest[row:] -= np.outer(inverse[:, 0], error)
    return rest


def test_every_step_is_the_one_that_the_paper_derives() -> None:
    weight = RANDOM.normal(size=(24, 5)).astype(np.float32)
    rows = _activations(200, 24)
    gram = rows.T @ rows
    found = _dequantized(*quantize_block_wise(weight, gram, 8), 8)
    np.testing.assert_allclose(found, _by_definition(weight, gram, 8), rtol=0, atol=1e-5)


def test_outputs_are_nearer_than_with_the_nearest_weights() -> None:
    weight = RANDOM.normal(size=(64, 16)).astype(np.float32)
    rows, unseen = np.split(_activations(1000, 64), [500])
    nearest = quantize_block_wise(weight, np.eye(64, dtype=np.float32), 32)
    fitted = quantize_block_wise(weight, rows.T @ rows, 32)
    errors = [
        np.square(unseen @ (_dequantized(*found, 32) - weight)).mean()
        for found in (fitted, nearest)
    ]
    assert np.abs(_dequantized(*nearest, 32) - weight).max() <= nearest[1].max()
    assert errors[0] < 0.2 * errors[1]


def test_what_no_clip_uses_is_rounded_to_the_nearest() -> None:
    weight = RANDOM.normal(size=(8, 3)).astype(np.float32)
    values, scales, zeros = quantize_block_wise(weight, np.zeros((8, 8), np.float32), 4)
    assert np.abs(_dequantized(values, scales, zeros, 4) - weight).max() <= scales.max() / 2 + 1e-6
    zero = np.zeros((4, 2), np.float32)
    assert not _dequantized(*quantize_block_wise(zero, np.eye(4, dtype=np.float32), 4), 4).any()


def _nearest(weight: Matrix, largest: int) -> Array:
    scale = np.abs(weight).max(axis=0).astype(np.float64) / largest
    nearest: Array = np.round(weight / scale) * scale
    return nearest


def test_columns_on_one_scale_are_nearer_than_with_the_nearest_weights() -> None:
    weight = RANDOM.normal(size=(300, 16)).astype(np.float32)
    rows, unseen = np.split(_activations(1000, 300), [500])
    fitted = round_columns(weight, rows.T @ rows, 64)
    nearest = _nearest(weight, 64)
    scale = np.abs(weight).max(axis=0) / 64
    levels = fitted / scale
    np.testing.assert_allclose(levels, np.round(levels), rtol=0, atol=1e-4)
    assert (np.abs(levels).max(axis=0).round(4) == 64).all(), "the scale stays"
    errors = [np.square(unseen @ (found - weight)).mean() for found in (fitted, nearest)]
    assert errors[0] < 0.2 * errors[1]
    np.testing.assert_allclose(
        round_columns(weight, np.eye(300, dtype=np.float32), 64), nearest, rtol=0, atol=1e-6
    )
    zero = np.zeros((4, 2), np.float32)
    assert not round_columns(zero, np.eye(4, dtype=np.float32), 64).any()


def test_two_values_share_a_byte() -> None:
    assert pack(np.array([[1, 2, 15]], np.uint8)).tolist() == [[0x21, 0x0F]]


def _graph(width: int, shared: bool) -> onnx.ModelProto:
    """y = relu(x @ a) @ b; where shared, z = y @ a as well."""
    weights = {
        "a": RANDOM.normal(size=(width, 40)).astype(np.float32),
        "b": RANDOM.normal(size=(40, width)).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["y"]),
    ]
    if shared:
        nodes.append(helper.make_node("MatMul", ["y", "a"], ["z"]))
    output = "z" if shared else "y"
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "tokens", width])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _run(model: onnx.ModelProto, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (found,) = session.run(None, {"x": x})
    return np.asarray(found)


def test_grams_are_sums_over_all_tokens_of_all_clips() -> None:
    model = _graph(20, shared=True)
    before = model.SerializeToString()
    clips = [_activations(tokens, 20) for tokens in (7, 9)]
    grams = activation_grams(model, iter(clips))
    assert model.SerializeToString() == before
    a, b = (numpy_helper.to_array(tensor) for tensor in model.graph.initializer)
    x = np.concatenate(clips)
    hidden = np.maximum(x @ a, 0)
    y = hidden @ b
    np.testing.assert_allclose(grams["b"], hidden.T @ hidden, rtol=1e-4)
    np.testing.assert_allclose(grams["a"], x.T @ x + y.T @ y, rtol=1e-4, atol=0.1)


@pytest.mark.parametrize("width", [64, 44])  # 44 is not a multiple of the 32 that share a scale
def test_onnx_runtime_computes_with_the_quantized_weights(width: int, tmp_path: Path) -> None:
    model = _graph(width, shared=True)
    clips = [_activations(50, width) for _ in range(3)]
    expected = _run(model, clips[0][None])
    grams = activation_grams(model, iter(clips))
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    plain = []
    for name, weight in weights.items():
        padding = -len(weight) % 32
        padded = np.pad(weight, ((0, padding), (0, 0)))
        quantized = quantize_block_wise(padded, np.pad(grams[name], (0, padding)), 32)
        plain.append(_dequantized(*quantized, 32)[: len(weight)])
    quantized_graph = with_four_bits(model, iter(clips))
    onnx.save(quantized_graph, tmp_path / "q4.onnx")
    products = [node for node in quantized_graph.graph.node if node.op_type == "MatMulNBits"]
    assert len(products) == 3
    assert not weights.keys() & {tensor.name for tensor in quantized_graph.graph.initializer}
    found = _run(onnx.load(tmp_path / "q4.onnx"), clips[0][None])
    a, b = plain
    by_hand = (np.maximum(clips[0] @ a, 0) @ b) @ a
    np.testing.assert_allclose(found[0], by_hand, rtol=0, atol=1e-3 * np.abs(by_hand).max())
    error = np.sqrt(np.square(found - expected).mean() / np.square(expected).mean())
    assert 0 < error < 0.3


def test_weights_are_not_fit_to_nothing() -> None:
    with pytest.raises(ValueError, match="at least one"):
        with_four_bits(_graph(32, shared=False), iter(()))
