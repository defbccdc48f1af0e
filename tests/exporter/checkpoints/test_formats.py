"""Every format of checkpoint gives the same model, bit by bit, and says what it assumed."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file
from timesformer_exporter.checkpoints import Checkpoint, build_model, load_checkpoint
from timesformer_exporter.errors import InvalidCheckpointError, InvalidOptionError
from timesformer_exporter.model.config import ATTENTION_TYPES, TimesformerConfig
from timesformer_runtime.input.preprocess import Preprocessing
from torch import Tensor

from tests.checkpoint_samples import (
    State,
    random_clips,
    random_model,
    tiny_config,
    to_facebook,
    to_mmaction2,
)
from tests.transformers_classes import pillow_processor

PREPROCESSOR = {
    "image_processor_type": "VideoMAEImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 36},
    "resample": 2,
    "do_center_crop": True,
    "crop_size": {"height": 32, "width": 32},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.1, 0.2, 0.3],
    "image_std": [0.4, 0.5, 0.6],
    "something_of_theirs": "kept",
}

FACEBOOK_CFG = """\
BN:
  NORM_TYPE: batchnorm
DATA:
  MEAN:
  - 0.4
  - 0.45
  - 0.5
  NUM_FRAMES: 4
  PATH_LABEL_SEPARATOR: ' '
  STD: [0.2, 0.225, 0.25]
  TRAIN_CROP_SIZE: 32
MODEL:
  NUM_CLASSES: 5
TIMESFORMER:
  ATTENTION_TYPE: divided_space_time
TRAIN:
  DATASET: kinetics
  NESTED:
    MEAN: 7
VIS_MASK:
  ENABLE: false
"""


def write_folder(folder: Path, config: TimesformerConfig, state: State) -> Path:
    """A checkpoint in Hugging Face's layout."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def same_tensors(checkpoint: Checkpoint, state: State) -> bool:
    return checkpoint.state_dict.keys() == state.keys() and all(
        torch.equal(checkpoint.state_dict[name], tensor) for name, tensor in state.items()
    )


@torch.no_grad()
def same_logits(checkpoint: Checkpoint, config: TimesformerConfig, state: State) -> bool:
    model = random_model(config)
    model.load_state_dict(state)
    built = build_model(checkpoint, "video-classification")
    assert not built.training
    clips = random_clips(config)
    return torch.equal(built(clips), model(clips))


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
def test_a_hugging_face_folder(tmp_path: Path, attention_type: str) -> None:
    config = tiny_config(
        attention_type=attention_type, hidden_act="relu", layer_norm_eps=1e-3, qkv_bias=False
    )
    state = random_model(config).state_dict()
    folder = write_folder(tmp_path / "model", config, state)

    checkpoint = load_checkpoint(folder)

    assert checkpoint.config == config
    assert checkpoint.preprocessing == PREPROCESSOR
    assert checkpoint.notes == ()
    assert same_logits(checkpoint, config, state)
    source = checkpoint.source
    assert (source.model, source.revision, source.format) == ("model", None, "huggingface")
    assert source.files == {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("model.safetensors", "config.json", "preprocessor_config.json")
    }


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("sharded", [True, False])
def test_what_transformers_writes(tmp_path: Path, safe: bool, sharded: bool) -> None:
    config = tiny_config()
    theirs = transformers.TimesformerForVideoClassification(
        transformers.TimesformerConfig(**config.to_dict())
    )
    state = random_model(config).state_dict()
    theirs.load_state_dict(state)
    theirs.save_pretrained(tmp_path, max_shard_size="20KB" if sharded else "1GB")
    pillow_processor("VideoMAEImageProcessor")(
        size={"shortest_edge": 32}, crop_size=32
    ).save_pretrained(tmp_path)
    if not safe:
        to_bin(tmp_path)

    checkpoint = load_checkpoint(tmp_path)

    assert (len(list(tmp_path.glob("*-of-*"))) > 1) == sharded
    assert checkpoint.config == config
    assert same_tensors(checkpoint, state)
    assert Preprocessing.from_dict(checkpoint.preprocessing).output_size == (32, 32)
    assert set(checkpoint.source.files) == {path.name for path in tmp_path.iterdir()}


def to_bin(folder: Path) -> None:
    """Turns safetensors files into those that transformers wrote before them."""
    from safetensors.torch import load_file  # noqa: PLC0415

    for path in folder.glob("*.safetensors"):
        name = path.name.replace("model", "pytorch_model").replace(".safetensors", ".bin")
        torch.save(load_file(path), folder / name)
        path.unlink()
    for path in folder.glob("*.index.json"):
        text = (
            path.read_text().replace('"model-', '"pytorch_model-').replace(".safetensors", ".bin")
        )
        (folder / "pytorch_model.bin.index.json").write_text(text)
        path.unlink()


def test_an_index_can_be_given_itself(tmp_path: Path) -> None:
    config = tiny_config()
    theirs = transformers.TimesformerForVideoClassification(
        transformers.TimesformerConfig(**config.to_dict())
    )
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    checkpoint = load_checkpoint(tmp_path / "model.safetensors.index.json")
    assert same_tensors(checkpoint, theirs.state_dict())


def test_labels_that_transformers_leaves_out_of_config_json(tmp_path: Path) -> None:
    theirs = transformers.TimesformerConfig(
        **tiny_config(id2label={0: "LABEL_0", 1: "LABEL_1"}).to_dict()
    )
    transformers.TimesformerForVideoClassification(theirs).save_pretrained(tmp_path)
    assert "id2label" not in json.loads((tmp_path / "config.json").read_text())
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint.config.id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert any("The 2 classes have no names" in note for note in checkpoint.notes)


def test_safetensors_are_preferred(tmp_path: Path) -> None:
    config = tiny_config()
    state = random_model(config).state_dict()
    write_folder(tmp_path, config, state)
    torch.save(random_model(config, seed=1).state_dict(), tmp_path / "pytorch_model.bin")
    assert same_tensors(load_checkpoint(tmp_path), state)


@torch.no_grad()
def test_a_bare_hugging_face_model(tmp_path: Path) -> None:
    config = tiny_config(id2label=None)
    theirs = transformers.TimesformerModel(transformers.TimesformerConfig(**config.to_dict()))
    theirs.save_pretrained(tmp_path)
    with pytest.raises(InvalidCheckpointError, match="`task=feature-extraction`"):
        load_checkpoint(tmp_path)

    checkpoint = load_checkpoint(tmp_path, task="feature-extraction")

    assert checkpoint.config == config
    features = build_model(checkpoint, "feature-extraction")(random_clips(config))
    expected = theirs.eval()(random_clips(config)).last_hidden_state[:, 0]
    assert float((features - expected).abs().max()) < 1e-5


@torch.no_grad()
def test_feature_extraction_drops_the_head(tmp_path: Path) -> None:
    config = tiny_config()
    model = random_model(config)
    folder = write_folder(tmp_path, config, model.state_dict())
    checkpoint = load_checkpoint(folder, task="feature-extraction")
    assert checkpoint.config == dataclasses.replace(config, id2label=None)
    expected = model.timesformer(random_clips(config)).last_hidden_state[:, 0]
    for loaded in (checkpoint, load_checkpoint(folder)):
        features = build_model(loaded, "feature-extraction")(random_clips(config))
        assert torch.equal(features, expected)
    with pytest.raises(InvalidCheckpointError, match="no classification head"):
        build_model(checkpoint, "video-classification")


def test_a_model_is_built_of_copies(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, tiny_config(), random_model(tiny_config()).state_dict())
    checkpoint = load_checkpoint(folder)
    before = checkpoint.state_dict["classifier.bias"].clone()
    with torch.no_grad():
        build_model(checkpoint, "video-classification").get_parameter("classifier.bias").zero_()
    assert torch.equal(checkpoint.state_dict["classifier.bias"], before)


def prefixed(prefix: str) -> Callable[[State], State]:
    return lambda state: {f"{prefix}{name}": tensor for name, tensor in state.items()}


WRAPPERS: dict[str, Callable[[State], object]] = {
    "raw": lambda state: state,
    "model.": prefixed("model."),
    "module.": prefixed("module."),
    "module.model.": prefixed("module.model."),
    "model_state": lambda state: {"epoch": 3, "model_state": prefixed("model.")(state), "cfg": ""},
    "state_dict": lambda state: {"state_dict": prefixed("module.")(state), "epoch": 3},
    "model": lambda state: {"model": state, "args": argparse.Namespace(lr=0.1)},
    "module": lambda state: {"module": state},
    "model_state_dict": lambda state: {"model_state_dict": state, "optimizer_state_dict": {}},
}


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_the_authors_files(tmp_path: Path, attention_type: str, wrapper: str) -> None:
    config = tiny_config(attention_type=attention_type)
    state = random_model(config).state_dict()
    path = tmp_path / "TimeSformer_divST.pyth"
    torch.save(WRAPPERS[wrapper](to_facebook(state)), path)

    checkpoint = load_checkpoint(path, attention_heads=2, num_frames=4)

    labels = {i: f"LABEL_{i}" for i in range(5)}
    assert checkpoint.config == dataclasses.replace(config, id2label=labels)
    assert same_logits(checkpoint, config, state)
    assert checkpoint.source.format == "facebook"
    assert list(checkpoint.source.files) == [path.name]
    assert checkpoint.preprocessing["image_mean"] == [0.45] * 3
    assert checkpoint.preprocessing["image_std"] == [0.225] * 3
    assert checkpoint.preprocessing["crop_size"] == {"height": 32, "width": 32}
    said = " ".join(checkpoint.notes)
    for assumed in ("no names", "mean 0.45 and std 0.225", "32x32", "no configuration"):
        assert assumed in said
    assert ("other than tensors" in said) == (wrapper == "model")


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
@pytest.mark.parametrize("zipped", [True, False])
def test_mmaction2_files(tmp_path: Path, attention_type: str, zipped: bool) -> None:
    config = tiny_config(attention_type=attention_type)
    state = random_model(config).state_dict()
    path = tmp_path / "timesformer.pth"
    meta = {"epoch": 15, "mmaction_version": "0.18.0", "hook": argparse.Namespace()}
    torch.save(
        {"meta": meta, "state_dict": to_mmaction2(state)},
        path,
        _use_new_zipfile_serialization=zipped,
    )

    checkpoint = load_checkpoint(path, attention_heads=2, num_frames=4)

    assert dataclasses.replace(checkpoint.config, id2label=config.id2label) == config
    assert same_logits(checkpoint, config, state)
    assert checkpoint.source.format == "mmaction2"
    assert checkpoint.preprocessing["image_mean"] == [0.5] * 3
    assert checkpoint.preprocessing["image_std"] == [0.5] * 3


@torch.no_grad()
def test_a_packed_projection_of_mmaction2_attends_as_its_multihead_attention_does() -> None:
    """Compares with nn.MultiheadAttention; the key map relies on the order of its in_proj rows."""
    torch.manual_seed(0)
    theirs = torch.nn.MultiheadAttention(32, 2, batch_first=True)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter)
    ours = random_model(tiny_config()).timesformer.encoder.layer[0].get_submodule("attention")
    ours.load_state_dict(
        {
            "attention.qkv.weight": theirs.in_proj_weight,
            "attention.qkv.bias": theirs.in_proj_bias,
            "output.dense.weight": theirs.out_proj.weight,
            "output.dense.bias": theirs.out_proj.bias,
        }
    )
    tokens = torch.randn(3, 7, 32)
    expected, _ = theirs(tokens, tokens, tokens)
    actual, _ = ours(tokens, False)
    assert float((actual - expected).abs().max() / expected.abs().max()) < 1e-5


def test_a_weights_file_of_hugging_face_takes_the_configuration_beside_it(tmp_path: Path) -> None:
    config = tiny_config(hidden_act="selu")
    state = random_model(config).state_dict()
    folder = write_folder(tmp_path, config, state)
    checkpoint = load_checkpoint(folder / "model.safetensors")
    assert checkpoint.config == config
    assert checkpoint.preprocessing == PREPROCESSOR
    assert checkpoint.source.model == "model.safetensors"


def test_a_weights_file_of_hugging_face_without_configuration(tmp_path: Path) -> None:
    config = tiny_config(
        num_channels=1,
        qkv_bias=False,
        patch_size=(8, 16),
        intermediate_size=40,
        num_hidden_layers=3,
        num_frames=6,
    )
    state = random_model(config).state_dict()
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    checkpoint = load_checkpoint(path, attention_heads=2, image_size=(32, 32))
    assert dataclasses.replace(checkpoint.config, id2label=config.id2label) == config
    assert checkpoint.preprocessing["image_mean"] == [0.45]
    assert same_logits(checkpoint, config, state)


def test_the_configuration_beside_an_authors_file_is_not_its_own(tmp_path: Path) -> None:
    config = tiny_config()
    folder = write_folder(tmp_path, tiny_config(num_hidden_layers=7), {"x": torch.zeros(1)})
    torch.save(to_facebook(random_model(config).state_dict()), folder / "model.pyth")
    checkpoint = load_checkpoint(folder / "model.pyth", attention_heads=2)
    assert checkpoint.config.num_hidden_layers == 2
    assert checkpoint.preprocessing["image_mean"] == [0.45] * 3
    assert list(checkpoint.source.files) == ["model.pyth"]


@pytest.mark.parametrize("name", ["TimeSformer.pyth", "last.ckpt", "model_best.pth.tar"])
def test_a_folder_with_one_other_file_of_weights(tmp_path: Path, name: str) -> None:
    config = tiny_config()
    state = random_model(config).state_dict()
    torch.save(to_facebook(state), tmp_path / name)
    assert same_tensors(load_checkpoint(tmp_path, attention_heads=2), state)


def test_heads_of_hugging_face_files_without_configuration(tmp_path: Path) -> None:
    """A configuration may have any number of heads; only the published models' size tells it."""
    config = tiny_config(hidden_size=128)
    path = tmp_path / "model.safetensors"
    save_file(random_model(config).state_dict(), path)
    with pytest.raises(InvalidOptionError, match=r"hidden size 128.*`attention_heads`"):
        load_checkpoint(path)
    assert load_checkpoint(path, attention_heads=4).config.num_attention_heads == 4

    published = tiny_config(hidden_size=768, intermediate_size=32, num_hidden_layers=1)
    save_file(random_model(published).state_dict(), path)
    checkpoint = load_checkpoint(path)
    assert checkpoint.config.num_attention_heads == 12
    assert "12 attention heads were assumed" in " ".join(checkpoint.notes)


def test_heads_are_64_wide_unless_said(tmp_path: Path) -> None:
    config = tiny_config(hidden_size=128)
    path = tmp_path / "model.pyth"
    torch.save(to_facebook(random_model(config).state_dict()), path)
    checkpoint = load_checkpoint(path)
    assert checkpoint.config.num_attention_heads == 2
    assert "2 attention heads were assumed" in " ".join(checkpoint.notes)
    assert load_checkpoint(path, attention_heads=8).config.num_attention_heads == 8


@pytest.mark.parametrize("size", [(32, 80), (80, 32)])
def test_a_grid_that_is_not_square(tmp_path: Path, size: tuple[int, int]) -> None:
    config = tiny_config(image_size=size)
    state = random_model(config).state_dict()
    path = tmp_path / "model.pyth"
    torch.save(to_facebook(state), path)
    checkpoint = load_checkpoint(path, attention_heads=2, image_size=size)
    assert checkpoint.config.image_hw == size
    assert checkpoint.preprocessing["crop_size"] == {"height": size[0], "width": size[1]}
    assert same_logits(checkpoint, config, state)


def test_a_size_with_as_many_patches_tells_the_grid(tmp_path: Path) -> None:
    config = tiny_config(image_size=(16, 64))
    state = random_model(config).state_dict()
    path = tmp_path / "model.pyth"
    torch.save(to_facebook(state), path)
    checkpoint = load_checkpoint(path, attention_heads=2, image_size=(16, 64))
    assert same_tensors(checkpoint, state)
    assert "grid of 1x4 patches was taken from `image_size`" in " ".join(checkpoint.notes)


def test_the_settings_of_the_authors_trainer(tmp_path: Path) -> None:
    config = tiny_config(attention_type="space_only")
    path = tmp_path / "model.pyth"
    state = to_facebook(random_model(config).state_dict())
    torch.save({"model_state": state, "cfg": FACEBOOK_CFG}, path)

    checkpoint = load_checkpoint(path, attention_heads=2)

    assert checkpoint.config.num_frames == 4
    assert checkpoint.preprocessing["image_mean"] == [0.4, 0.45, 0.5]
    assert checkpoint.preprocessing["image_std"] == [0.2, 0.225, 0.25]
    said = " ".join(checkpoint.notes)
    assert "cfg says ATTENTION_TYPE divided_space_time, its tensors space_only" in said
    assert "its cfg's mean 0.4 and std 0.2" in said
    assert load_checkpoint(path, attention_heads=2, num_frames=9).config.num_frames == 9


def test_tensors_decide_against_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "model.pyth"
    state = to_facebook(random_model(tiny_config(num_frames=6)).state_dict())
    cfg = FACEBOOK_CFG.replace("kinetics", "Ssv2")
    torch.save({"model_state": state, "cfg": cfg}, path)
    checkpoint = load_checkpoint(path, attention_heads=2)
    assert checkpoint.config.num_frames == 6
    assert "cfg says NUM_FRAMES 4, its tensors 6: the tensors decide" in " ".join(checkpoint.notes)
    assert "BGR" in " ".join(checkpoint.notes)


@pytest.mark.parametrize("cfg", ["", "no yaml: [", ":\n- \n  -\n", "DATA:\n  MEAN:\n  - x\n", "\0"])
def test_settings_that_say_nothing_change_nothing(tmp_path: Path, cfg: str) -> None:
    path = tmp_path / "model.pyth"
    state = to_facebook(random_model(tiny_config()).state_dict())
    torch.save({"model_state": state, "cfg": cfg}, path)
    assert load_checkpoint(path, attention_heads=2).preprocessing["image_mean"] == [0.45] * 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    config = tiny_config()
    state = {name: tensor.to(dtype) for name, tensor in random_model(config).state_dict().items()}
    checkpoint = load_checkpoint(write_folder(tmp_path, config, state))
    assert {tensor.dtype for tensor in checkpoint.state_dict.values()} == {torch.float32}
    assert same_tensors(checkpoint, {name: tensor.float() for name, tensor in state.items()})
    name = str(dtype).removeprefix("torch.")
    assert checkpoint.notes == (f"Weights in {name} were converted to float32.",)


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
@pytest.mark.parametrize(
    "asked",
    [
        {"num_frames": 3},
        {"num_frames": 9},
        {"image_size": 80},
        {"image_size": (16, 64)},
        {"image_size": 48, "num_frames": 8},
    ],
)
@torch.no_grad()
def test_resizing_in_advance_is_what_the_model_does_on_such_clips(
    tmp_path: Path, attention_type: str, asked: dict[str, Any]
) -> None:
    config = tiny_config(attention_type=attention_type)
    model = random_model(config)
    folder = write_folder(tmp_path, config, model.state_dict())

    checkpoint = load_checkpoint(folder, **asked)
    resized = build_model(checkpoint, "video-classification")

    clips = random_clips(resized.config)
    assert clips.shape[1] == asked.get("num_frames", 4)
    assert torch.equal(resized(clips), model(clips))
    preprocessing = Preprocessing.from_dict(checkpoint.preprocessing)
    assert preprocessing.output_size == resized.config.image_hw
    assert len(checkpoint.notes) == len(asked)
    assert all("asked for instead of" in note for note in checkpoint.notes)
    untouched = dataclasses.replace(
        checkpoint.config, image_size=config.image_size, num_frames=config.num_frames
    )
    assert untouched == config


def test_preprocessing_keeps_its_margin_when_resized(tmp_path: Path) -> None:
    config = tiny_config()
    folder = write_folder(tmp_path, config, random_model(config).state_dict())
    resized = load_checkpoint(folder, image_size=(64, 96)).preprocessing
    assert resized["size"] == {"shortest_edge": 72}  # 36 * 64 / 32
    assert resized["crop_size"] == {"height": 64, "width": 96}
    assert resized["something_of_theirs"] == "kept"
    exact = PREPROCESSOR | {"size": {"height": 40, "width": 36}}
    (folder / "preprocessor_config.json").write_text(json.dumps(exact))
    resized = load_checkpoint(folder, image_size=64).preprocessing
    assert resized["size"] == {"height": 80, "width": 72}
    uncropped = exact | {"do_center_crop": False, "size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(uncropped))
    resized = load_checkpoint(folder, image_size=64).preprocessing
    assert resized["size"] == {"height": 64, "width": 64}
    assert not resized["do_center_crop"]


def test_a_video_processor_of_newer_transformers(tmp_path: Path) -> None:
    config = tiny_config()
    folder = write_folder(tmp_path, config, random_model(config).state_dict())
    (folder / "preprocessor_config.json").unlink()
    values = dict(PREPROCESSOR, video_processor_type="TimesformerVideoProcessor")
    del values["image_processor_type"]
    (folder / "video_preprocessor_config.json").write_text(json.dumps(values))
    checkpoint = load_checkpoint(folder)
    assert checkpoint.preprocessing == PREPROCESSOR
    assert "video_preprocessor_config.json" in checkpoint.source.files


@pytest.mark.parametrize("key", ["video_processor", "image_processor"])
def test_a_processor_nested_in_that_of_all_modalities(tmp_path: Path, key: str) -> None:
    config = tiny_config()
    folder = write_folder(tmp_path, config, random_model(config).state_dict())
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({key: PREPROCESSOR}))
    checkpoint = load_checkpoint(folder)
    assert checkpoint.preprocessing == PREPROCESSOR
    assert checkpoint.notes == ()
    assert "processor_config.json" in checkpoint.source.files


def test_files_that_disagree_about_the_preprocessing(tmp_path: Path) -> None:
    config = tiny_config()
    folder = write_folder(tmp_path, config, random_model(config).state_dict())
    other = PREPROCESSOR | {"image_mean": [0.7, 0.8, 0.9]}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(other))
    checkpoint = load_checkpoint(folder)
    assert checkpoint.preprocessing == other
    (note,) = checkpoint.notes
    assert "video_preprocessor_config.json counts, as in transformers" in note
    assert "preprocessor_config.json" not in checkpoint.source.files


@pytest.mark.parametrize(
    "values",
    [
        {"image_processor_type": "ViTImageProcessor", "size": 32},
        {"feature_extractor_type": "DeiTFeatureExtractor", "size": 40, "crop_size": 32},
        {"image_processor_type": "ConvNextImageProcessor", "size": 32, "crop_pct": 0.9},
        {"image_processor_type": "CLIPImageProcessor", "size": 32, "crop_size": 32},
        {"image_processor_type": "VivitImageProcessor", "size": 36, "crop_size": 32},
        {"video_processor_type": "VivitVideoProcessor", "size": 36, "crop_size": 32},
    ],
    ids=str,
)
def test_other_processors_keep_their_steps_in_what_is_written(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    config = tiny_config()
    folder = write_folder(tmp_path / "model", config, random_model(config).state_dict())
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    checkpoint = load_checkpoint(folder)
    expected = Preprocessing.from_dict(values)
    assert Preprocessing.from_dict(checkpoint.preprocessing) == expected
    # transformers takes the written file for the same steps.
    written = tmp_path / "written"
    written.mkdir()
    (written / "preprocessor_config.json").write_text(json.dumps(checkpoint.preprocessing))
    processor = transformers.AutoImageProcessor.from_pretrained(written)
    frames = np.random.default_rng(0).integers(0, 256, (2, 50, 71, 3), dtype=np.uint8)
    theirs = processor([list(frames)], input_data_format="channels_last", return_tensors="np")
    np.testing.assert_array_equal(expected(frames), theirs["pixel_values"][0])


def test_what_json_cannot_say_does_not_stop_the_writing(tmp_path: Path) -> None:
    config = tiny_config()
    folder = write_folder(tmp_path, config, random_model(config).state_dict())
    text = json.dumps(PREPROCESSOR)[:-1] + (
        f', "theirs": NaN, "deep": [{{"a": Infinity}}], "long": {"9" * 5000}}}'
    )
    (folder / "preprocessor_config.json").write_text(text)
    config_text = json.dumps(config.to_dict())[:-1] + ', "theirs": [NaN, 1e999]}'
    (folder / "config.json").write_text(config_text)
    checkpoint = load_checkpoint(folder)
    assert checkpoint.preprocessing == PREPROCESSOR
    assert checkpoint.config == config


@pytest.mark.parametrize("attention_type", ["divided_space_time", "joint_space_time"])
def test_frames_of_the_configuration_and_of_the_embeddings(
    tmp_path: Path, attention_type: str
) -> None:
    config = tiny_config(attention_type=attention_type)  # 4 frames
    folder = write_folder(tmp_path, config, random_model(config).state_dict())
    values = config.to_dict()
    (folder / "config.json").write_text(json.dumps(values | {"num_frames": 6}))
    with pytest.raises(InvalidOptionError) as caught:
        load_checkpoint(folder)
    assert "config.json says num_frames 6, but the time embeddings are for 4" in str(caught.value)
    assert "say with `num_frames` which is meant" in str(caught.value)
    assert load_checkpoint(folder, num_frames=4).config == config
    assert load_checkpoint(folder, num_frames=6).config.num_frames == 6
    del values["num_frames"]  # the default would be 8
    (folder / "config.json").write_text(json.dumps(values))
    checkpoint = load_checkpoint(folder)
    assert checkpoint.config == config
    assert checkpoint.notes == ("config.json has no num_frames: the embeddings' 4 was taken.",)


def test_size_of_the_configuration_and_of_the_embeddings(tmp_path: Path) -> None:
    config = tiny_config()  # frames of 32x32
    folder = write_folder(tmp_path, config, random_model(config).state_dict())
    values = config.to_dict()
    (folder / "config.json").write_text(json.dumps(values | {"image_size": 48}))
    with pytest.raises(InvalidOptionError) as caught:
        load_checkpoint(folder)
    assert "image_size 48, but the position embeddings are for 32" in str(caught.value)
    assert "say with `image_size` which is meant" in str(caught.value)
    assert load_checkpoint(folder, image_size=32).config == config
    assert load_checkpoint(folder, image_size=48).config.image_size == (48, 48)
    assert load_checkpoint(folder, image_size=[32, 32]).config == config  # type: ignore[arg-type]
    del values["image_size"]  # the default would be 224
    (folder / "config.json").write_text(json.dumps(values))
    checkpoint = load_checkpoint(folder)
    assert checkpoint.config == config
    assert checkpoint.notes == ("config.json has no image_size: the embeddings' 32 was taken.",)


def test_names_that_are_not_utf8_are_escaped_in_what_is_written(tmp_path: Path) -> None:
    config = tiny_config()
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    torch.save(random_model(config).state_dict(), folder / os.fsdecode(b"caf\xe9.pth"))
    source = load_checkpoint(folder, attention_heads=2).source
    assert source.model == "caf\\udce9"
    assert list(source.files) == ["caf\\udce9.pth"]


def test_labels_from_a_file(tmp_path: Path) -> None:
    config = tiny_config()
    folder = write_folder(tmp_path, config, random_model(config).state_dict())
    labels = tmp_path / "labels.txt"
    labels.write_text("one\ntwo\nthree\nfour\nfive\n")
    checkpoint = load_checkpoint(folder, labels=labels)
    assert checkpoint.config.id2label == dict(enumerate(["one", "two", "three", "four", "five"]))


def test_missing_preprocessing_takes_the_authors_values(tmp_path: Path) -> None:
    config = tiny_config()
    folder = write_folder(tmp_path, config, random_model(config).state_dict())
    (folder / "preprocessor_config.json").unlink()
    checkpoint = load_checkpoint(folder)
    assert checkpoint.preprocessing["image_mean"] == [0.45] * 3
    assert checkpoint.preprocessing["size"] == {"shortest_edge": 32}
    assert len(checkpoint.notes) == 1
    assert "no preprocessor_config.json" in checkpoint.notes[0]


def test_values_do_not_depend_on_the_order_of_the_file(tmp_path: Path) -> None:
    config = tiny_config()
    state: dict[str, Tensor] = random_model(config).state_dict()
    path = tmp_path / "model.pyth"
    torch.save(to_facebook(dict(reversed(list(state.items())))), path)
    assert same_logits(load_checkpoint(path, attention_heads=2), config, state)
