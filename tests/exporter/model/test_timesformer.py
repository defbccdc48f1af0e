"""Compares the model's values with transformers where that is right, else with the reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from timesformer_exporter.model.config import ATTENTION_TYPES, TimesformerConfig
from timesformer_exporter.model.timesformer import TimesformerForVideoClassification
from torch import Tensor

from tests.checkpoint_samples import random_clips, random_model, tiny_config
from tests.reference_timesformer import reference_timesformer

SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "patch 8": {"patch_size": 8},
    "one channel": {"num_channels": 1},
    "no qkv bias": {"qkv_bias": False},
    "relu": {"hidden_act": "relu"},
    "gelu_new": {"hidden_act": "gelu_new"},
    "1 layer": {"num_hidden_layers": 1},
    "1 frame": {"num_frames": 1},
    "7 frames": {"num_frames": 7},
    "1 head": {"num_attention_heads": 1},
    "2 classes": {"id2label": {0: "yes", 1: "no"}},
    "large eps": {"layer_norm_eps": 0.1},
    "dropout": {"hidden_dropout_prob": 0.4, "attention_probs_dropout_prob": 0.4},
}

# Configurations with which transformers raises an error, or gives wrong results silently.
ODD_SHAPES: dict[str, dict[str, Any]] = {
    "selu": {"hidden_act": "selu"},
    "wide": {"image_size": (32, 80)},
    "tall with wide patches": {"image_size": (48, 32), "patch_size": (8, 16)},
    "not a multiple of the patch": {"image_size": (39, 50)},
    "drop path": {"drop_path_rate": 0.3},
}

# The number of frames and the size of the clips differ from the configuration.
OTHER_CLIPS: dict[str, dict[str, Any]] = {
    "fewer frames": {"num_frames": 3},
    "more frames": {"num_frames": 10},
    "1 frame": {"num_frames": 1},
    "larger": {"image_size": 80},
    "smaller": {"image_size": 16},
    "wide, more frames": {"image_size": (48, 64), "num_frames": 6},
}


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest expected value."""
    assert actual.shape == expected.shape
    return float((actual.double() - expected.double()).abs().max() / expected.abs().max())


def in_transformers(
    config: TimesformerConfig, model: TimesformerForVideoClassification
) -> transformers.TimesformerForVideoClassification:
    values = config.to_dict() | {"drop_path_rate": 0}
    theirs = transformers.TimesformerForVideoClassification(
        transformers.TimesformerConfig(**values)
    )
    theirs.load_state_dict(model.state_dict(), strict=True)
    return theirs.eval()


@pytest.mark.parametrize("attention_type", ["divided_space_time", "joint_space_time"])
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_logits_hidden_states_and_attentions_are_those_of_transformers(
    attention_type: str, shape: str
) -> None:
    config = tiny_config(attention_type=attention_type, **SHAPES[shape])
    model = random_model(config)
    clips = random_clips(config)

    theirs = in_transformers(config, model)(
        clips, output_hidden_states=True, output_attentions=True
    )
    ours = model.timesformer(clips, output_hidden_states=True, output_attentions=True)

    assert relative_error(model(clips), theirs.logits) < 1e-5
    assert relative_error(model.classifier(ours.last_hidden_state[:, 0]), theirs.logits) < 1e-5
    attentions = ours.attentions or ours.spatial_attentions
    assert len(ours.hidden_states) == len(theirs.hidden_states) == config.num_hidden_layers + 1
    assert len(attentions) == len(theirs.attentions) == config.num_hidden_layers
    for own, other in zip(
        (*ours.hidden_states, *attentions),
        (*theirs.hidden_states, *theirs.attentions),
        strict=True,
    ):
        assert relative_error(own, other) < 1e-5


@torch.no_grad()
def test_the_bare_model_is_that_of_transformers() -> None:
    config = tiny_config()
    model = random_model(config)
    theirs = in_transformers(config, model).timesformer
    clips = random_clips(config)
    last = model.timesformer(clips).last_hidden_state
    assert relative_error(last, theirs(clips).last_hidden_state) < 1e-5


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
@pytest.mark.parametrize("shape", SHAPES | ODD_SHAPES)
@torch.no_grad()
def test_everything_is_as_in_the_reference(attention_type: str, shape: str) -> None:
    config = tiny_config(attention_type=attention_type, **(SHAPES | ODD_SHAPES)[shape])
    check_against_reference(config, random_clips(config))


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
@pytest.mark.parametrize("clips", OTHER_CLIPS)
@torch.no_grad()
def test_other_frames_and_sizes_than_configured_are_as_in_the_reference(
    attention_type: str, clips: str
) -> None:
    config = tiny_config(attention_type=attention_type, image_size=48, num_frames=5)
    check_against_reference(config, random_clips(config, **OTHER_CLIPS[clips]))


@torch.no_grad()
def test_other_frames_in_a_joint_model_are_as_in_transformers() -> None:
    config = tiny_config(attention_type="joint_space_time")
    model = random_model(config)
    clips = random_clips(config, num_frames=7, image_size=80)
    assert relative_error(model(clips), in_transformers(config, model)(clips).logits) < 1e-5


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
@torch.no_grad()
def test_clips_of_a_batch_do_not_touch_each_other(attention_type: str) -> None:
    config = tiny_config(attention_type=attention_type)
    model = random_model(config)
    clips = random_clips(config, batch=5)
    together = model(clips)
    for batch in (1, 2, 3):
        assert relative_error(model(clips[:batch]), together[:batch]) < 1e-5


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
@torch.no_grad()
def test_every_parameter_matters(attention_type: str) -> None:
    config = tiny_config(attention_type=attention_type, hidden_act="gelu_new")
    model = random_model(config)
    clips = random_clips(config)
    logits = model(clips)
    for name, parameter in model.named_parameters():
        kept = parameter.clone()
        direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
        parameter.add_(0.5 * direction)
        # A bias of the keys shifts all scores of a query alike: softmax does not see it.
        assert relative_error(model(clips), logits) > 1e-5, name
        parameter.copy_(kept)
    assert torch.equal(model(clips), logits)


@torch.no_grad()
def test_without_labels_the_classifier_passes_the_features_on() -> None:
    model = random_model(tiny_config(id2label=None))
    clips = random_clips(model.config)
    assert torch.equal(model(clips), model.timesformer(clips).last_hidden_state[:, 0])


@torch.no_grad()
def test_dropout_and_drop_path_act_in_training_only() -> None:
    for rates in (
        {"hidden_dropout_prob": 0.5},
        {"attention_probs_dropout_prob": 0.5},
        {"drop_path_rate": 0.9},
    ):
        model = random_model(tiny_config(**rates))
        clips = random_clips(model.config, batch=8)
        calm = model(clips)
        assert torch.equal(calm, model(clips))
        model.train()
        torch.manual_seed(0)
        assert relative_error(model(clips), calm) > 1e-3


@torch.no_grad()
def test_initial_weights_are_those_the_authors_describe() -> None:
    torch.manual_seed(0)
    model = TimesformerForVideoClassification(
        tiny_config(hidden_size=256, num_attention_heads=4, initializer_range=0.1)
    )
    state = model.state_dict()
    dense = "timesformer.encoder.layer.0.intermediate.dense"
    assert abs(float(state[f"{dense}.weight"].std()) - 0.1) < 0.01
    assert not state[f"{dense}.bias"].any()
    assert abs(float(state["timesformer.embeddings.position_embeddings"].std()) - 0.1) < 0.02


def check_against_reference(config: TimesformerConfig, clips: Tensor) -> None:
    model = random_model(config)
    expected = reference_timesformer(model.state_dict(), config, clips)
    ours = model.timesformer(clips, output_hidden_states=True, output_attentions=True)

    assert relative_error(model(clips), expected.logits) < 1e-5
    assert relative_error(ours.last_hidden_state, expected.last_hidden_state) < 1e-5
    for kind in ("hidden_states", "spatial_attentions", "temporal_attentions", "attentions"):
        own, reference = getattr(ours, kind), getattr(expected, kind)
        assert len(own) == len(reference), kind
        for layer, (actual, right) in enumerate(zip(own, reference, strict=True)):
            assert relative_error(actual, right) < 1e-5, f"{kind}.{layer}"
