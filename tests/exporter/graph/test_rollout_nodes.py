"""The parts of a graph that only attention rollout needs, in int8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from timesformer_exporter.graph.quantize import write_variant
from timesformer_exporter.graph.rollout_nodes import only_for_rollout, use_integer_scores
from timesformer_exporter.graph.trace import GraphOutputs, save_graph, trace
from timesformer_exporter.model import attention_rollout, inference_form
from timesformer_exporter.model.attention_rollout import ROLLOUT, Rollout
from timesformer_exporter.model.inference_form import InferenceForm
from timesformer_runtime.model.unsigned_weights import unsigned_weights
from timesformer_runtime.model.wire_format import MessageReader

from tests.tiny_models import random_model, tiny_config

LAYERS, TOKENS, BLOCK = 3, 13, 5
GRAPH = 7  # the field's number in a model


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Graphs with and without rollout in blocks of queries, in fp32 and int8."""
    monkeypatch.setattr(inference_form, "LONG", TOKENS)
    monkeypatch.setattr(attention_rollout, "_BLOCK", BLOCK)
    config = tiny_config("joint_space_time", num_hidden_layers=LAYERS)
    model = random_model(config)
    files = {}
    for name, rollout in (("plain", None), ("rollout", Rollout())):
        form = InferenceForm(
            model, "video-classification", attention_operator=True, rollout=rollout
        )
        path = tmp_path / f"{name}.onnx"
        names = GraphOutputs(rollout=rollout).names(config)
        save_graph(trace(form, config, output_names=names).model, path)
        files[name] = path
        for target in ("vnni", "avx2"):
            files[f"{name} {target}"] = tmp_path / f"{name}_{target}.onnx"
            write_variant(path, files[f"{name} {target}"], "int8", target)
    return files


def _run(path: Path, clips: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return list(session.run(None, {"pixel_values": clips}))


def _operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize("target", ["vnni", "avx2"])
def test_scores_are_int8_and_logits_stay_equal(files: dict[str, Path], target: str) -> None:
    plain, graph = (_operators(files[f"{name} {target}"]) for name in ("plain", "rollout"))
    blocks = -(-TOKENS // BLOCK) * (LAYERS - 1)  # the last layer has one query
    assert graph.count("MatMulInteger") == plain.count("MatMulInteger") + blocks
    assert graph.count("Clip") == plain.count("Clip") + LAYERS - 1, "blocks share the keys"
    for batch in (1, 3):
        shape = (batch, 3, 3, 32, 32)
        clips = np.random.default_rng(batch).standard_normal(shape, dtype=np.float32)
        (expected,) = _run(files[f"plain {target}"], clips)
        logits, found = _run(files[f"rollout {target}"], clips)
        if target == "avx2":  # 8-bit weights are wrong on some processors here
            _, exact = _run(files["rollout"], clips)
            np.testing.assert_allclose(found, exact, atol=0.02 * exact.max())
        np.testing.assert_array_equal(logits, expected)


def test_the_runtime_sees_that_no_score_can_overflow(files: dict[str, Path]) -> None:
    """Else the file would load slowly on processors without VNNI."""
    reader = MessageReader(files["rollout avx2"].read_bytes())
    graph = next(reader.messages(None, GRAPH))
    assert unsigned_weights(reader, graph, large={}).complete


def test_keys_may_all_be_zero() -> None:
    shapes = {"queries": [2, 5, 8], "keys": [2, 8, 7], ROLLOUT: [2, 5, 7]}
    values = {
        name: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    }
    nodes = [
        helper.make_node("MatMul", ["queries", "keys"], ["scores"], "product"),
        helper.make_node("Softmax", ["scores"], [ROLLOUT], "shares"),
    ]
    *inputs, output = values.values()
    graph = helper.make_graph(nodes, "rollout", inputs, [output])
    assert use_integer_scores(graph) == 1
    opsets = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    arrays = {name: np.ones(shapes[name], np.float32) for name in ("queries", "keys")}
    arrays["keys"] *= 0
    (found,) = session.run(None, arrays)
    np.testing.assert_allclose(found, np.full(shapes[ROLLOUT], 1 / 7), rtol=1e-6)


def test_only_the_last_steps_belong_to_rollout(files: dict[str, Path]) -> None:
    assert only_for_rollout(onnx.load(files["plain"]).graph) == []
    graph = onnx.load(files["rollout"]).graph
    only = only_for_rollout(graph)
    others = [node.op_type for node in graph.node if node.name not in only]
    # A Where puts nodes of rollout in order, and gives on what the logits need.
    others = [operator for operator in others if operator != "Where"]
    assert sorted(others) == sorted(_operators(files["plain"]))
