"""The printed number of multiply-adds is that of the written graph."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from timesformer_exporter.graph.multiply_adds import count_multiply_adds
from timesformer_exporter.graph.trace import trace
from timesformer_exporter.model.inference_form import InferenceForm

from tests.tiny_models import ATTENTION_TYPES, random_model, tiny_config


@pytest.mark.parametrize(
    ("attention_type", "task"),
    [
        *((attention_type, "video-classification") for attention_type in ATTENTION_TYPES),
        ("divided_space_time", "feature-extraction"),
    ],
)
def test_the_count_is_that_of_the_graph(attention_type: str, task: str, tmp_path: Path) -> None:
    config = tiny_config(attention_type, image_size=(32, 48))
    form = InferenceForm(random_model(config), task, attention_operator=True)
    names = ("logits",) if form.classifies else ("last_hidden_state", "features")
    path = tmp_path / "model.onnx"
    trace(form, config, input_name="pixel_values", output_names=names, opset=23).save(path)
    clip = np.zeros((1, 3, 3, 32, 48), dtype=np.float32)
    counted = count_multiply_adds(config, task, rewritten=True)
    assert sum(map(_multiply_adds, _computed(path, clip))) == counted.exported


def _computed(path: Path, clip: np.ndarray) -> list[dict[str, Any]]:
    """ONNX Runtime's profile: each node that it ran, with the shapes of its inputs."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_profiling = True
    options.profile_file_prefix = str(path.with_suffix(""))
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    session.run(None, {"pixel_values": clip})
    events = json.loads(Path(session.end_profiling()).read_text())
    return [event["args"] for event in events if event["name"].endswith("_kernel_time")]


def _multiply_adds(node: dict[str, Any]) -> int:
    shapes: list[list[int]] = [next(iter(shape.values())) for shape in node["input_type_shape"]]
    if node["op_name"] in ("MatMul", "Gemm"):
        outputs: list[int] = next(iter(node["output_type_shape"][0].values()))
        return math.prod(outputs) * shapes[0][-1]
    if node["op_name"] == "Attention":
        (batch, queries, size), (_, keys, _) = shapes[:2]
        return 2 * batch * queries * keys * size
    assert node["op_name"] not in ("Conv", "Einsum", "FusedMatMul")
    return 0
