"""The count of integer products in ONNX Runtime's optimised graph, and the graphs it refuses."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from timesformer_exporter.errors import OutputWriteError, UnquantizedWeightError
from timesformer_exporter.graph import quantize
from timesformer_exporter.graph.integer_products import (
    IntegerProducts,
    check_against_overflow,
    count_integer_products,
    float_products,
)
from timesformer_exporter.graph.quantize import write_variant

WEIGHT = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)


def _write(path: Path, nodes: list[onnx.NodeProto], **weights: np.ndarray) -> Path:
    """A float graph from ``x`` [batch, 8] to ``y``."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def test_products_that_share_a_weight_count_each(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        helper.make_node("MatMul", ["a", "w"], ["b"], name="second"),
        helper.make_node("Gemm", ["b", "classifier.weight"], ["y"], name="head", transB=1),
    ]
    source = _write(
        tmp_path / "m.onnx", nodes, **{"w": WEIGHT, "classifier.weight": WEIGHT.T.copy()}
    )
    assert float_products(onnx.load(source).graph) == ["w", "w", "classifier.weight"]
    found = write_variant(source, tmp_path / "int8.onnx", "int8", "avx2")
    assert found == IntegerProducts(2, ("classifier.weight",))


@pytest.mark.parametrize("transposed", [False, True])
def test_a_weight_that_onnx_runtime_renames_keeps_our_name(
    transposed: bool, tmp_path: Path
) -> None:
    """Each version of ONNX Runtime and of its quantizer renames weights in its own way."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        helper.make_node("Gemm", ["a", "classifier.weight"], ["y"], name="head"),
    ]
    weights = {"w": WEIGHT, "classifier.weight": WEIGHT[::-1].copy()}
    source = onnx.load(_write(tmp_path / "m.onnx", nodes, **weights)).graph
    renamed = onnx.GraphProto()
    renamed.CopyFrom(source)
    head = weights["classifier.weight"]
    values = numpy_helper.from_array(head.T.copy() if transposed else head, "of its own")
    renamed.initializer[1].CopyFrom(values)
    renamed.node[1].input[1] = "of its own"
    assert float_products(renamed, source) == ["w", "classifier.weight"]
    renamed.initializer[1].CopyFrom(numpy_helper.from_array(WEIGHT * 2, "of its own"))
    assert float_products(renamed, source) == ["w", "of its own"], "another weight"


def test_a_transposed_weight_that_the_quantizer_passes_over(tmp_path: Path) -> None:
    """ONNX Runtime folds the transposition only after the quantizer has looked for constants."""
    nodes = [
        helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t"], ["y"], name="product"),
    ]
    source = _write(tmp_path / "m.onnx", nodes, w=WEIGHT)
    with pytest.raises(UnquantizedWeightError, match=r"1 weight\(s\) stayed in float"):
        write_variant(source, tmp_path / "int8.onnx", "int8")


@pytest.mark.parametrize("operator", ["MatMul", "Einsum"])
def test_one_product_left_in_float(
    operator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quantizer may convert only some of the products, or may not know an operator."""
    monkeypatch.setattr(quantize, "_integer_nodes", lambda _graph: ["first"])
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        _product(operator, ["a", "v"], ["y"], name="second"),
    ]
    source = _write(tmp_path / "m.onnx", nodes, w=WEIGHT, v=WEIGHT + 1)
    with pytest.raises(UnquantizedWeightError, match=r"1 weight\(s\) stayed in float.*: v;"):
        write_variant(source, tmp_path / "int8.onnx", "int8", "avx2")


@pytest.mark.parametrize("operator", ["MatMul", "Einsum"])
def test_a_shared_weight_that_is_dequantized_for_one_product(operator: str, tmp_path: Path) -> None:
    """Some versions of the quantizer dequantize a weight for a product that stays in float."""
    shared = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        _product(operator, ["a", "w"], ["y"]),
    ]
    source = onnx.load(_write(tmp_path / "m.onnx", shared, w=WEIGHT)).graph
    scales = np.abs(WEIGHT).max(axis=0) / 127
    integers = np.round(WEIGHT / scales).astype(np.int8)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["u8", "scale", "zero"]),
        helper.make_node("MatMulInteger", ["u8", "w_int8", "zero"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["scale", "w_scale"], ["scales"]),
        helper.make_node("Mul", ["floats", "scales"], ["a"]),
        helper.make_node("DequantizeLinear", ["w_int8", "w_scale"], ["w"], axis=1),
        _product(operator, ["a", "w"], ["y"]),
    ]
    path = _write(tmp_path / "int8.onnx", nodes, w_int8=integers, w_scale=scales)
    # ONNX Runtime gives the second reason where it folds the weight to float.
    reasons = r"1 of 2 matrix products are computed in integers|1 weight\(s\) stayed in float"
    with pytest.raises(UnquantizedWeightError, match=reasons):
        count_integer_products(path, source)


def _product(
    operator: str, inputs: list[str], outputs: list[str], name: str = ""
) -> onnx.NodeProto:
    attributes = {"equation": "bi,ij->bj"} if operator == "Einsum" else {}
    return helper.make_node(operator, inputs, outputs, name=name, **attributes)


def test_a_product_that_got_lost(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="only")]
    source = _write(tmp_path / "m.onnx", nodes, w=WEIGHT)
    write_variant(source, tmp_path / "int8.onnx", "int8")
    graph = onnx.load(source).graph
    assert count_integer_products(tmp_path / "int8.onnx", graph) == IntegerProducts(1, ())
    graph.node.append(helper.make_node("MatMul", ["y", "w"], ["z"], name="lost"))
    with pytest.raises(UnquantizedWeightError, match="1 of 2 matrix products are computed in int"):
        count_integer_products(tmp_path / "int8.onnx", graph)


def test_a_full_disk_is_not_called_a_wrong_graph(
    tmp_path: Path,
    limit_files: Callable[[int], AbstractContextManager[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error is right while the quantizer writes temporary files and in the optimisation."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="only")]
    source, target = _write(tmp_path / "m.onnx", nodes, w=WEIGHT), tmp_path / "int8.onnx"
    write_variant(source, target, "int8")
    full = pytest.raises(OutputWriteError, match=r"int8\.onnx cannot be written")
    with limit_files(100), full:
        count_integer_products(target, onnx.load(source).graph)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    with limit_files(100), pytest.raises(OutputWriteError) as caught:
        write_variant(source, target, "int8")
    assert caught.value.path.is_relative_to(tmp_path / "tmp")
    assert not list((tmp_path / "tmp").iterdir())
    with limit_files(source.stat().st_size + 100), full:
        write_variant(source, target, "int8")


def test_products_in_the_body_of_a_loop(tmp_path: Path) -> None:
    row = helper.make_tensor_value_info("row", TensorProto.FLOAT, [8])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 8])
    body = helper.make_graph(
        [
            helper.make_node("Unsqueeze", ["row", "axes"], ["rows"]),
            helper.make_node("MatMul", ["rows", "w"], ["out"], name="inside"),
        ],
        "body",
        [row],
        [out],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="outside"),
        helper.make_node("Scan", ["a"], ["b"], body=body, num_scan_inputs=1),
        helper.make_node("Squeeze", ["b", "axes_1"], ["y"]),
    ]
    axes = {"axes": np.array([0], dtype=np.int64), "axes_1": np.array([1], dtype=np.int64)}
    source = _write(tmp_path / "m.onnx", nodes, w=WEIGHT, **axes)
    graph = onnx.load(source).graph
    assert float_products(graph) == ["w", "w"]
    with pytest.raises(UnquantizedWeightError, match=r"2 weight\(s\) stayed in float.*: w, w;"):
        count_integer_products(source, graph)


def test_8_bit_weights_outside_the_loop_that_uses_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime's option against overflow does not reach such weights."""
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    row = helper.make_tensor_value_info("row", TensorProto.UINT8, [1, 8])
    out = helper.make_tensor_value_info("out", TensorProto.INT32, [1, 8])
    product = helper.make_node("MatMulInteger", ["row", "w"], ["out"])
    body = helper.make_graph([product], "body", [row], [out])
    path = tmp_path / "m.onnx"
    for weight in (64, 65):  # 2 * 255 * 65 is beyond 16 bits
        graph = helper.make_graph(
            [helper.make_node("Scan", ["x"], ["y"], body=body, num_scan_inputs=1)],
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.UINT8, ["n", 1, 8])],
            [helper.make_tensor_value_info("y", TensorProto.INT32, ["n", 1, 8])],
            [numpy_helper.from_array(np.full((8, 8), weight, dtype=np.int8), "w")],
        )
        opsets = [helper.make_opsetid("", 18)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
        if weight == 64:
            check_against_overflow(path)
    with pytest.raises(UnquantizedWeightError, match=r"1 integer matrix product\(s\) overflow"):
        check_against_overflow(path)


def test_embeddings_are_no_products(tmp_path: Path) -> None:
    offsets = np.ones((4, 8), dtype=np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="product"),
        helper.make_node("Add", ["a", "offsets"], ["y"]),
    ]
    source = _write(tmp_path / "m.onnx", nodes, w=WEIGHT, offsets=offsets)
    assert write_variant(source, tmp_path / "int8.onnx", "int8") == IntegerProducts(1, ())
