"""Loops over frames and attention in blocks change how a graph is computed, not what."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir
import onnxruntime
import pytest
import torch
from timesformer_exporter.config import TimesformerConfig
from timesformer_exporter.flash_attention import use_flash_attention
from timesformer_exporter.frame_loops import loop_over_frames
from timesformer_exporter.inference_form import InferenceForm
from timesformer_exporter.trace import GraphOutputs, TracedModel, trace

from tests.tiny_models import random_model, tiny_config


def _graph(config: TimesformerConfig, task: str = "video-classification") -> onnx_ir.Model:
    form = InferenceForm(random_model(config), task, attention_operator=True)
    return trace(form, config, output_names=GraphOutputs(task).names(config)).model


def _run(model: onnx_ir.Model, clips: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
    graph = onnx_ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return list(session.run(None, {"pixel_values": clips}))


def _clips(config: TimesformerConfig, batch: int) -> npt.NDArray[np.float32]:
    shape = (batch, config.num_frames, config.num_channels, *config.image_hw)
    return torch.randn(shape, generator=torch.Generator().manual_seed(batch)).numpy()


def _agree(found: list[npt.NDArray[np.float32]], expected: list[npt.NDArray[np.float32]]) -> None:
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6 * float(np.abs(b).max()))


@pytest.mark.parametrize(
    ("attention_type", "fields", "task", "loops"),
    [
        # Around each temporal attention and each mean of CLS.
        ("divided_space_time", {}, "video-classification", 5),
        ("divided_space_time", {"num_frames": 4, "hidden_act": "relu"}, "feature-extraction", 5),
        # The classifier's last layer takes CLS out of the tokens for its only query.
        ("space_only", {"image_size": (32, 48)}, "video-classification", 2),
        ("space_only", {"hidden_act": "gelu_new"}, "feature-extraction", 1),
        ("joint_space_time", {}, "video-classification", 0),
        ("divided_space_time", {"num_frames": 1}, "video-classification", 0),
    ],
    ids=str,
)
def test_loops_over_frames_change_no_value(
    attention_type: str, fields: dict[str, Any], task: str, loops: int
) -> None:
    config = tiny_config(attention_type, **fields)
    model = _graph(config, task)
    batches = [_clips(config, batch) for batch in (1, 2, 3)]
    expected = [_run(model, clips) for clips in batches]
    assert loop_over_frames(model) == loops
    for clips, values in zip(batches, expected, strict=True):
        _agree(_run(model, clips), values)


def test_a_graph_with_its_insides_as_outputs_can_be_looped_too() -> None:
    config = tiny_config()
    outputs = GraphOutputs(hidden_states=True, attentions=True)
    names = outputs.names(config)
    model = trace(TracedModel(random_model(config), outputs), config, output_names=names).model
    clips = _clips(config, 2)
    expected = _run(model, clips)
    loop_over_frames(model)
    assert [output.name for output in model.graph.outputs] == list(names)
    _agree(_run(model, clips), expected)


@pytest.mark.parametrize("attention_type", ["divided_space_time", "joint_space_time"])
def test_attention_over_long_sequences_goes_block_by_block(attention_type: str) -> None:
    config = tiny_config(attention_type, image_size=288)
    model = _graph(config)
    clips = _clips(config, 2)
    expected = _run(model, clips)
    # The last layer has a single query, and temporal attention three keys.
    assert use_flash_attention(model) == 1
    _agree(_run(model, clips), expected)
    loop_over_frames(model)
    _agree(_run(model, clips), expected)


def test_attention_over_short_sequences_stays() -> None:
    assert use_flash_attention(_graph(tiny_config("joint_space_time"))) == 0
