"""The exact rewrites change the work, not the numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timesformer_exporter.graph.frames_input import FramesInput
from timesformer_exporter.graph.multiply_adds import count_multiply_adds
from timesformer_exporter.model.config import TimesformerConfig
from timesformer_exporter.model.inference_form import InferenceForm
from timesformer_exporter.model.timesformer import TimesformerForVideoClassification
from timesformer_runtime.input.preprocess import Preprocessing

from tests.tiny_models import ATTENTION_TYPES, random_model, tiny_config

FIELDS: list[dict[str, Any]] = [
    {},
    {"patch_size": (8, 16), "image_size": (41, 50), "num_channels": 1, "qkv_bias": False},
    {"patch_size": 8, "num_frames": 5, "hidden_act": "gelu_new"},
    {"num_frames": 1, "num_hidden_layers": 1, "hidden_act": "selu"},
    {"num_attention_heads": 1, "hidden_act": "relu", "layer_norm_eps": 1e-3},
]


def _agree(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("fields", FIELDS, ids=str)
@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
@torch.no_grad()
def test_logits_and_features_stay_the_same(attention_type: str, fields: dict[str, Any]) -> None:
    config = tiny_config(attention_type, **fields)
    model = random_model(config)
    clips = torch.randn(3, config.num_frames, config.num_channels, *config.image_hw)
    (logits,) = InferenceForm(model, "video-classification")(clips)
    _agree(logits, model(clips))
    last_hidden_state, features = InferenceForm(model, "feature-extraction")(clips)
    expected = model.timesformer(clips).last_hidden_state
    _agree(last_hidden_state, expected)
    _agree(features, expected[:, 0])


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
@torch.no_grad()
def test_attention_as_an_operator_stays_the_same(attention_type: str) -> None:
    model = random_model(tiny_config(attention_type))
    clips = torch.randn(2, 3, 3, 32, 32)
    (logits,) = InferenceForm(model, "video-classification", attention_operator=True)(clips)
    _agree(logits, model(clips))


@torch.no_grad()
def test_queries_keys_and_values_apart_with_the_scale_in_the_queries() -> None:
    model = random_model(tiny_config("space_only", hidden_size=48, num_attention_heads=3))
    packed: Any = model.timesformer.encoder.layer[0].attention
    separate: Any = InferenceForm(model, "feature-extraction").layers[0].attention
    _agree(separate.query.weight, packed.attention.qkv.weight[:48] * 16**-0.5)
    tokens = torch.randn(2, 7, 48)
    _agree(separate(tokens), packed(tokens, False)[0])


@torch.no_grad()
def test_one_matrix_for_the_temporal_projection_and_temporal_dense() -> None:
    model = random_model(tiny_config())
    layer: Any = model.timesformer.encoder.layer[0]
    form: Any = InferenceForm(model, "feature-extraction").layers[0]
    context = torch.randn(2, 7, 32)
    both = layer.temporal_dense(layer.temporal_attention.output(context))
    _agree(form.temporal_attention.output(context), both)


@torch.no_grad()
def test_temporal_attention_is_over_the_frames_of_each_place() -> None:
    model = random_model(tiny_config())
    layer: Any = model.timesformer.encoder.layer[0]
    tokens = torch.randn(2, 3, 5, 32)  # clips, frames, positions
    sequences = tokens.transpose(1, 2).flatten(0, 1)  # a position of a clip, frames
    expected = layer.temporal_dense(layer.temporal_attention(sequences, False)[0])
    form: Any = InferenceForm(model, "feature-extraction").layers[0]
    found = form.temporal_attention(tokens.flatten(0, 1), 3)
    _agree(found.unflatten(0, (2, 3)), expected.unflatten(0, (2, 5)).transpose(1, 2))


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
@torch.no_grad()
def test_the_last_layer_gives_the_same_cls_alone(attention_type: str) -> None:
    model = random_model(tiny_config(attention_type))
    clips = torch.randn(2, 3, 3, 32, 32)
    whole = InferenceForm(model, "feature-extraction")
    tokens = whole.layers[0](whole.embeddings(clips))
    cls = InferenceForm(model, "video-classification").layers[1](tokens)
    expected = whole.layers[1](tokens)[:, :1]
    if attention_type == "divided_space_time":
        expected = expected[::3]  # the same in all frames of a clip
    _agree(cls, expected)


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
@torch.no_grad()
def test_patches_are_embedded_as_by_the_convolution(attention_type: str) -> None:
    model = random_model(tiny_config(attention_type, image_size=(41, 50), patch_size=(8, 16)))
    clips = torch.randn(2, 3, 3, 41, 50)
    tokens = InferenceForm(model, "feature-extraction").embeddings(clips)
    expected = model.timesformer.embeddings(clips)
    if attention_type == "space_only":
        _agree(tokens, expected)
        return
    cls = expected[:, :1]
    by_frame = expected[:, 1:].unflatten(1, (-1, 3)).transpose(1, 2)  # [B, T, N, D]
    if attention_type == "joint_space_time":
        _agree(tokens, torch.cat([cls, by_frame.flatten(1, 2)], dim=1))
    else:
        of_frames = cls.unsqueeze(1).expand(-1, 3, -1, -1)
        _agree(tokens, torch.cat([of_frames, by_frame], dim=2).flatten(0, 1))


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(
            size=32, crop_size=(32, 32), image_mean=(0.4, 0.45, 0.5), image_std=(0.2, 0.25, 0.3)
        ),
        Preprocessing(size=20, crop_size=(32, 32), do_rescale=False),
        Preprocessing(size=(32, 32), do_center_crop=False, do_normalize=False),
        Preprocessing(size=32, crop_size=(32, 32), do_normalize=False, offset=True),
    ],
    ids=str,
)
@torch.no_grad()
def test_normalisation_folds_into_the_patch_embedding(preprocessing: Preprocessing) -> None:
    model = random_model(tiny_config())
    frames_input = FramesInput(preprocessing)
    frames = torch.randint(0, 256, (2, 3, 40, 50, 3), dtype=torch.uint8)
    (logits,) = InferenceForm(model, "video-classification", frames_input)(frames)
    _agree(logits, model(frames_input(frames)))


@pytest.mark.parametrize(
    ("attention_type", "share"),
    [("divided_space_time", 0.90), ("joint_space_time", 0.93), ("space_only", 0.94)],
)
def test_a_base_classifier_takes_less_work(attention_type: str, share: float) -> None:
    config = TimesformerConfig(
        attention_type=attention_type, id2label={i: str(i) for i in range(400)}
    )
    work = count_multiply_adds(config, "video-classification", rewritten=True)
    assert work.exported <= share * work.original
    published = {"divided_space_time": 196e9, "joint_space_time": 180e9, "space_only": 141e9}
    assert work.original == pytest.approx(published[attention_type], rel=0.005)


@torch.no_grad()
def test_the_model_itself_is_left_as_it_was() -> None:
    model: TimesformerForVideoClassification = random_model(tiny_config())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    form = InferenceForm(model, "video-classification")
    for parameter in form.parameters():
        parameter.zero_()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
