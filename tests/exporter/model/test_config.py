"""TimesformerConfig reads Hugging Face's files, and refuses values that no model can have."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import transformers
from timesformer_exporter.errors import ExportError, InvalidConfigError
from timesformer_exporter.model.config import TimesformerConfig

from tests.checkpoint_samples import tiny_config

EVERY_FIELD: dict[str, Any] = {
    "image_size": 96,
    "patch_size": 8,
    "num_channels": 1,
    "num_frames": 5,
    "hidden_size": 60,
    "num_hidden_layers": 3,
    "num_attention_heads": 5,
    "intermediate_size": 70,
    "hidden_act": "relu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.2,
    "initializer_range": 0.3,
    "layer_norm_eps": 1e-5,
    "qkv_bias": False,
    "attention_type": "joint_space_time",
    "drop_path_rate": 0.1,
    "id2label": {0: "a", 1: "b", 2: "c"},
    "problem_type": "multi_label_classification",
}


def test_the_table_above_has_every_field() -> None:
    assert set(EVERY_FIELD) == {field.name for field in dataclasses.fields(TimesformerConfig)}


def test_defaults_are_those_of_transformers() -> None:
    theirs = transformers.TimesformerConfig().to_dict()
    for field in dataclasses.fields(TimesformerConfig):
        if field.name not in {"id2label", "problem_type"}:
            assert getattr(TimesformerConfig(), field.name) == theirs[field.name], field.name


def test_every_field_of_a_config_json_by_transformers_is_read() -> None:
    values = EVERY_FIELD | {"drop_path_rate": 0}  # transformers takes no float there
    written = transformers.TimesformerConfig(**values).to_json_string(use_diff=False)
    config = TimesformerConfig.from_dict(json.loads(written))
    for name, value in values.items():
        assert getattr(config, name) == value, name


def test_a_config_survives_json() -> None:
    for changes in (EVERY_FIELD, EVERY_FIELD | {"image_size": (96, 64), "id2label": None}):
        config = TimesformerConfig(**changes)
        assert TimesformerConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_transformers_reads_what_is_written() -> None:
    values = tiny_config(attention_type="space_only", problem_type="regression").to_dict()
    theirs = transformers.TimesformerConfig(**values)
    assert theirs.attention_type == "space_only"
    assert theirs.problem_type == "regression"
    assert theirs.id2label == tiny_config().id2label
    assert theirs.label2id == {f"class {i}": i for i in range(5)}
    assert theirs.architectures == ["TimesformerForVideoClassification"]
    assert TimesformerConfig().to_dict()["architectures"] == ["TimesformerModel"]


def test_sizes() -> None:
    config = TimesformerConfig(image_size=[70, 100], patch_size=16)  # type: ignore[arg-type]
    assert (config.image_hw, config.patch_hw) == ((70, 100), (16, 16))
    assert (config.grid, config.num_patches) == ((4, 6), 24)
    assert TimesformerConfig().num_patches == 196


def test_labels() -> None:
    assert TimesformerConfig.from_dict({"num_labels": 2}).id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert TimesformerConfig.from_dict({}).num_labels == 0
    unsorted = TimesformerConfig.from_dict({"id2label": {"1": "b", "0": "a"}})
    assert list((unsorted.id2label or {}).items()) == [(0, "a"), (1, "b")]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("image_size", 0, "image_size is 0"),
        ("image_size", [224], "image_size is [224]"),
        ("image_size", [224, -1], "image_size is -1"),
        ("image_size", "224", "image_size is '224'"),
        ("image_size", 8, "smaller than patch_size 16"),
        ("patch_size", True, "patch_size is True"),
        ("num_channels", 0, "num_channels is 0"),
        ("num_frames", 8.5, "num_frames is 8.5"),
        ("num_frames", 10**400, "num_frames is 10"),
        ("num_frames", None, "num_frames is None"),
        ("hidden_size", 100, "100 is not a multiple of num_attention_heads 12"),
        ("num_hidden_layers", 0, "num_hidden_layers is 0"),
        ("intermediate_size", -3, "intermediate_size is -3"),
        ("hidden_act", "swish", "gelu, relu, selu, gelu_new"),
        ("hidden_dropout_prob", 1.5, "from 0.0 to 1.0"),
        ("attention_probs_dropout_prob", "0.1", "must be a number"),
        ("drop_path_rate", -0.1, "drop_path_rate is -0.1"),
        ("initializer_range", -1, "initializer_range is -1"),
        ("layer_norm_eps", float("nan"), "layer_norm_eps is nan"),
        ("layer_norm_eps", float("inf"), "layer_norm_eps is inf"),
        ("layer_norm_eps", 10**400, "layer_norm_eps is 10"),
        ("drop_path_rate", -(10**400), "drop_path_rate is -10"),
        ("qkv_bias", 1, "true or false"),
        ("attention_type", "axial", "divided_space_time, joint_space_time, space_only"),
        ("problem_type", "ranking", "single_label_classification"),
        ("id2label", {}, "must map class indices"),
        ("id2label", ["a"], "must map class indices"),
        ("id2label", {"zero": "a"}, "an index that is not an integer"),
        ("id2label", {"0": "a", "2": "c"}, "none for index 1"),
        ("label2id", {"a": 0, "b": 2}, "label2id has 2 labels but none for index 1"),
        ("label2id", {"a": 0, "b": 0}, "label2id has two names for class 0"),
        ("label2id", {"a": "first"}, "label2id has an index that is not an integer"),
        ("label2id", [0, 1], "it must map names to class indices"),
        ("hidden_act", "x" * 400, "hidden_act is 'x"),
        ("model_type", "vit", "only 'timesformer'"),
        ("model_type", ["timesformer"], "only 'timesformer'"),
        ("num_labels", "many", "num_labels is 'many'"),
    ],
)
def test_impossible_values_are_refused_by_name(field: str, value: object, said: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        TimesformerConfig.from_dict({field: value})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_an_integer_that_python_does_not_write() -> None:
    with pytest.raises(InvalidConfigError, match="initializer_range is an integer of thousands"):
        TimesformerConfig(initializer_range=10**5000)


def test_what_is_written_in_another_way_but_plain() -> None:
    values = {
        "model_type": "TimeSformer",
        "num_frames": 8.0,
        "hidden_size": 768.0,
        "image_size": [224.0, 96],
        "patch_size": 8.0,
        "num_labels": 2.0,
    }
    config = TimesformerConfig.from_dict(values)
    assert (config.num_frames, config.hidden_size, config.num_labels) == (8, 768, 2)
    assert (config.image_size, config.patch_size) == ((224, 96), 8)
    assert "." not in json.dumps([config.to_dict()[name] for name in ("num_frames", "patch_size")])


def test_labels_from_their_indices_alone() -> None:
    given = {"label2id": {"b": 1, "a": 0}, "num_labels": 7}
    assert TimesformerConfig.from_dict(given).id2label == {0: "a", 1: "b"}
    both = given | {"id2label": {"0": "first", "1": "second"}}
    assert TimesformerConfig.from_dict(both).id2label == {0: "first", 1: "second"}


def test_the_error_is_also_the_built_in() -> None:
    with pytest.raises(ValueError, match="num_frames") as caught:
        TimesformerConfig(num_frames=0)
    assert isinstance(caught.value, ExportError)
