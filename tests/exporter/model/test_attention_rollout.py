"""Attention rollout, carried as one row, against full matrices over all tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from timesformer_exporter.graph.trace import GraphOutputs, TracedModel, trace
from timesformer_exporter.model import attention_rollout, inference_form
from timesformer_exporter.model.attention_rollout import Rollout
from timesformer_exporter.model.inference_form import InferenceForm
from timesformer_exporter.model.timesformer import TimesformerForVideoClassification

from tests.naive_rollout import naive_rollout
from tests.reference_timesformer import reference_timesformer
from tests.tiny_models import ATTENTION_TYPES, random_model, tiny_config

FIELDS: list[dict[str, Any]] = [
    {"num_hidden_layers": 3},
    {"patch_size": (8, 16), "image_size": (41, 50), "num_frames": 5, "num_hidden_layers": 3},
    {"num_frames": 1, "num_hidden_layers": 1, "num_attention_heads": 1},
    {"patch_size": 8, "num_frames": 2, "qkv_bias": False},
]
CHOICES = [Rollout(), Rollout(0.2, "max"), Rollout(0.7, "min"), Rollout(0.0)]


def _peaked(model: TimesformerForVideoClassification) -> TimesformerForVideoClassification:
    """Makes attention differ clearly from uniform, as that of a trained model does."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "qkv.weight" in name:
                parameter.mul_(2)  # more would raise the rounding, which processors do differently
    return model


def _agree(found: np.ndarray[Any, Any] | torch.Tensor, expected: torch.Tensor) -> None:
    found = torch.as_tensor(found).double()
    assert found.shape == expected.shape
    assert float(expected.std() / expected.mean()) > 0.05 or expected.numel() < 10
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.max()))


@pytest.mark.parametrize("task", ["video-classification", "feature-extraction"])
@pytest.mark.parametrize("fields", FIELDS, ids=str)
@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
@torch.no_grad()
def test_the_row_equals_that_of_the_full_matrices(
    attention_type: str, fields: dict[str, Any], task: str
) -> None:
    config = tiny_config(attention_type, **fields)
    model = _peaked(random_model(config))
    clips = torch.randn(3, config.num_frames, config.num_channels, *config.image_hw)
    reference = reference_timesformer(model.state_dict(), config, clips)
    for rollout in CHOICES:
        expected = naive_rollout(
            reference,
            config,
            3,
            config.num_frames,
            residual=rollout.residual,
            heads=rollout.heads,
        )
        _agree(InferenceForm(model, task, rollout=rollout)(clips)[-1], expected)
        original = TracedModel(model, GraphOutputs(task, rollout=rollout))
        _agree(original(clips)[-1], expected)


@pytest.mark.parametrize("opset", [20, 23])
@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
def test_the_graph_gives_it_for_batches(attention_type: str, opset: int, tmp_path: Path) -> None:
    config = tiny_config(attention_type, image_size=(32, 48), num_hidden_layers=3)
    model = _peaked(random_model(config))
    rollout = Rollout()
    forms = [
        InferenceForm(model, "video-classification", attention_operator=opset == 23, rollout=choice)
        for choice in (None, rollout)
    ]
    sessions: list[onnxruntime.InferenceSession] = []
    for form, outputs in zip(forms, (GraphOutputs(), GraphOutputs(rollout=rollout)), strict=True):
        path = tmp_path / f"{len(sessions)}.onnx"
        trace(form, config, output_names=outputs.names(config), opset=opset).save(path)
        sessions.append(onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]))
    plain, explained = sessions
    for batch in (1, 2, 5):
        clips = torch.randn(batch, 3, 3, 32, 48)
        logits, found = explained.run(None, {"pixel_values": clips.numpy()})
        (expected,) = plain.run(None, {"pixel_values": clips.numpy()})
        np.testing.assert_array_equal(logits, expected)
        reference = reference_timesformer(model.state_dict(), config, clips)
        _agree(found, naive_rollout(reference, config, batch, 3))


@pytest.mark.parametrize("choice", CHOICES, ids=str)
@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
@torch.no_grad()
def test_long_sequences_go_in_blocks_of_queries(
    attention_type: str, choice: Rollout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference_form, "LONG", 2)
    monkeypatch.setattr(attention_rollout, "_BLOCK", 3)
    config = tiny_config(attention_type, image_size=(48, 32), num_hidden_layers=3)
    model = _peaked(random_model(config))
    clips = torch.randn(2, 3, 3, 48, 32)
    expected = naive_rollout(
        reference_timesformer(model.state_dict(), config, clips),
        config,
        2,
        3,
        residual=choice.residual,
        heads=choice.heads,
    )
    for task in ("video-classification", "feature-extraction"):
        _agree(InferenceForm(model, task, rollout=choice)(clips)[-1], expected)


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
@torch.no_grad()
def test_shares_are_what_is_left_of_one_beside_cls(attention_type: str) -> None:
    config = tiny_config(attention_type)
    clips = torch.randn(2, 3, 3, 32, 32)
    shares = InferenceForm(random_model(config), "video-classification", rollout=Rollout())(clips)[
        -1
    ]
    assert (shares >= 0).all()
    assert ((shares.sum((1, 2, 3)) > 0.1) & (shares.sum((1, 2, 3)) < 1)).all()
