"""Attention in blocks changes the operators of a graph, not its results."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir
import onnxruntime
import pytest
import torch
from timesformer_exporter.graph.flash_attention import use_flash_attention
from timesformer_exporter.graph.trace import trace
from timesformer_exporter.model.config import TimesformerConfig
from timesformer_exporter.model.inference_form import InferenceForm

from tests.tiny_models import random_model, tiny_config


def _graph(config: TimesformerConfig) -> onnx_ir.Model:
    form = InferenceForm(random_model(config), "video-classification", attention_operator=True)
    return trace(form, config).model


def _run(model: onnx_ir.Model, clips: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    graph = onnx_ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"pixel_values": clips})[0])


@pytest.mark.parametrize("attention_type", ["divided_space_time", "joint_space_time"])
def test_attention_over_long_sequences_goes_block_by_block(attention_type: str) -> None:
    config = tiny_config(attention_type, image_size=288)
    model = _graph(config)
    clips = torch.randn(2, config.num_frames, 3, *config.image_hw).numpy()
    expected = _run(model, clips)
    # The last layer has a single query, and temporal attention three keys.
    assert use_flash_attention(model) == 1
    tolerance = 2e-6 * float(np.abs(expected).max())
    np.testing.assert_allclose(_run(model, clips), expected, rtol=0, atol=tolerance)


def test_attention_over_short_sequences_stays() -> None:
    assert use_flash_attention(_graph(tiny_config("joint_space_time"))) == 0
