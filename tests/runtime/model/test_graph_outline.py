"""Facts that are read before ONNX Runtime loads a graph: batch axis, arithmetic on shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from timesformer_runtime.model.graph_outline import GraphOutline, outline

from tests.tiny_graphs import TinyGraph


def graph_with_shapes(weights_are_inputs: bool = False) -> onnx.ModelProto:
    """``y = reshape(x + w, [shape(x)[0], 1 + 1]) + w``, and a node that only the shape decides."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], name="shape of x"),
        helper.make_node("Gather", ["shape", "zero"], ["batch"], name="batch"),
        helper.make_node("Concat", ["batch", "two"], ["wanted"], name="wanted", axis=0),
        helper.make_node("Add", ["x", "w"], ["sum"], name="sum"),
        helper.make_node("Reshape", ["sum", "wanted"], ["flat"], name="reshape"),
        helper.make_node("Add", ["flat", "w"], ["y"], name="y"),
        helper.make_node("Add", ["two", "two"], ["four"], name="y"),  # a name that is not unique
    ]
    arrays = {"zero": np.array([0]), "two": np.array([2]), "w": np.ones(2, dtype=np.float32)}
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["clips", 2])]
    if weights_are_inputs:  # as in files of old exporters
        inputs.insert(0, helper.make_tensor_value_info("w", TensorProto.FLOAT, [2]))
    graph = helper.make_graph(
        nodes,
        "shapes",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize("weights_are_inputs", [False, True])
def test_outline(tmp_path: Path, weights_are_inputs: bool) -> None:
    model = graph_with_shapes(weights_are_inputs)
    expected = GraphOutline(
        "clips", frozenset({("Shape", "shape of x"), ("Gather", "batch"), ("Concat", "wanted")})
    )
    assert outline(model.SerializeToString()) == expected
    onnx.save(model, tmp_path / "shapes.onnx")
    assert outline(tmp_path / "shapes.onnx") == expected


def test_a_node_with_a_graph_in_it_may_depend_on_any_value() -> None:
    model = graph_with_shapes()
    body = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["inner"])],
        "body",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    model.graph.node.insert(
        1, helper.make_node("If", ["two"], ["zero_"], then_branch=body, else_branch=body, name="if")
    )
    assert ("If", "if") not in outline(model.SerializeToString()).shape_arithmetic


@pytest.mark.parametrize("axis", [1, 2])
def test_a_batch_axis_that_is_a_number(axis: int) -> None:
    graph = TinyGraph(shape=(axis, 4, 3, 24, 24)).proto()
    assert outline(graph.SerializeToString()).batch_axis is None


@pytest.mark.parametrize(
    "content", [b"", b"no model", TinyGraph().proto().SerializeToString()[:90]]
)
def test_a_damaged_file_has_an_empty_outline(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "damaged.onnx").write_bytes(content)
    assert outline(content) == outline(tmp_path / "damaged.onnx") == GraphOutline()
    assert outline(tmp_path / "missing.onnx") == GraphOutline()
