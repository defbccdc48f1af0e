"""Checkpoints that cannot be loaded: each gives one line with the fault and the remedy."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from timesformer_exporter.checkpoints import load_checkpoint
from timesformer_exporter.errors import (
    CheckpointNotFoundError,
    ExportError,
    InvalidCheckpointError,
    InvalidConfigError,
    InvalidOptionError,
)
from timesformer_runtime.input.preprocess import Preprocessing

from tests.checkpoint_samples import State, random_model, tiny_config, to_facebook, to_mmaction2

POSITIONS = "timesformer.embeddings.position_embeddings"


def tiny_state(**changes: Any) -> State:
    return random_model(tiny_config(**changes)).state_dict()


def write_folder(folder: Path, state: State | None = None, **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(tiny_config().to_dict() | config))
    save_file(tiny_state() if state is None else state, folder / "model.safetensors")
    return folder


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def refusal(error: type[ExportError], model: str | Path, **options: Any) -> str:
    with pytest.raises(error) as caught:
        load_checkpoint(model, **options)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


# Other things at the path of the checkpoint


@pytest.mark.parametrize(
    "model", ["no/such/folder", "./none", "/no/model.pyth", "none.safetensors"]
)
def test_nothing_there(model: str) -> None:
    assert model in refusal(CheckpointNotFoundError, model)


def test_a_path_that_no_file_can_have() -> None:
    assert "cannot be read" in refusal(CheckpointNotFoundError, "x" * 5000)
    refusal(CheckpointNotFoundError, "~nobody-of-that-name/model.pyth")


def test_a_folder_without_weights(tmp_path: Path) -> None:
    assert "has no weights" in refusal(InvalidCheckpointError, tmp_path)
    assert "model.safetensors" in refusal(InvalidCheckpointError, tmp_path)


def test_a_folder_with_several_weights(tmp_path: Path) -> None:
    for name in ("a.pyth", "b.pth"):
        (tmp_path / name).touch()
    assert "several files of weights (a.pyth, b.pth)" in refusal(InvalidCheckpointError, tmp_path)


def test_an_exported_model(tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").touch()
    said = refusal(InvalidCheckpointError, tmp_path)
    assert "exported ONNX files" in said
    assert f"timesformer classify {tmp_path}" in said


def test_a_revision_of_a_local_model(tmp_path: Path) -> None:
    said = refusal(InvalidOptionError, write_folder(tmp_path), revision="main")
    assert "`revision` is main" in said


# Files that are not checkpoints, or broken


def git_lfs_pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")


def web_page(path: Path) -> None:
    path.write_text("\n<!DOCTYPE html>\n<html><body>404</body></html>")


def text_file(path: Path) -> None:
    path.write_text("hello")


def old_tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO(b""))


def torchscript(path: Path) -> None:
    program = torch.jit.trace(torch.nn.Identity(), torch.zeros(1))  # type: ignore[no-untyped-call]
    torch.jit.save(program, path)


def cut(path: Path, content: Callable[[Path], object], share: float) -> None:
    content(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def as_zip(path: Path) -> None:
    torch.save({"model": tiny_state(), "extra": tiny_config()}, path)


def as_stream(path: Path) -> None:
    torch.save(tiny_state(), path, _use_new_zipfile_serialization=False)


def as_stream_with_objects(path: Path) -> None:
    torch.save(
        {"model": tiny_state(), "extra": tiny_config()}, path, _use_new_zipfile_serialization=False
    )


def as_safetensors(path: Path) -> None:
    save_file(tiny_state(), path)


NO_CHECKPOINTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.touch(), "is empty; download it again"),
    "git lfs": (git_lfs_pointer, "git lfs pull"),
    "web page": (web_page, "is a web page"),
    "text": (text_file, "neither safetensors nor a file of torch.save"),
    "tar": (old_tar, "is a tar archive"),
    "torchscript": (torchscript, "TorchScript program"),
    "onnx": (lambda path: path.write_bytes(b"\x08\x0a\x12\x07pytorch"), "neither safetensors"),
    "list": (lambda path: torch.save([torch.zeros(1)], path), "holds list"),
    "number": (lambda path: torch.save(3, path), "holds int"),
    "no tensors": (lambda path: torch.save({"epoch": 3, "lr": 1}, path), "holds epoch, lr"),
    "no content": (lambda path: torch.save({}, path), "holds nothing"),
    "a module": (lambda path: torch.save(torch.nn.Linear(2, 2), path), "has no state dict"),
    "zip cut": (lambda path: cut(path, as_zip, 0.6), "broken or cut short"),
    "zip cut in its first bytes": (lambda path: cut(path, as_zip, 0.001), "broken or cut short"),
    "stream cut": (lambda path: cut(path, as_stream, 0.6), "broken or cut short"),
    "stream cut early": (lambda path: cut(path, as_stream, 0.01), "broken or cut short"),
    "stream with objects cut": (
        lambda path: cut(path, as_stream_with_objects, 0.9),
        "broken or cut short",
    ),
    "safetensors cut": (lambda path: cut(path, as_safetensors, 0.9), "not a whole safetensors"),
    "safetensors cut early": (lambda path: cut(path, as_safetensors, 0.01), "not a whole"),
    "safetensors of rubbish": (
        lambda path: path.write_bytes(b"\x10" + b"\0" * 7 + b'{"a": [1, 2, 3]}'),
        "not a whole safetensors",
    ),
}


@pytest.mark.parametrize("kind", NO_CHECKPOINTS)
@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_files_that_are_no_checkpoints(tmp_path: Path, kind: str) -> None:
    write, said = NO_CHECKPOINTS[kind]
    path = tmp_path / "pytorch_model.bin"
    write(path)
    message = refusal(InvalidCheckpointError, path)
    assert said in message
    assert str(path) in message


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "model.pyth", to_facebook(tiny_state()))

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)  # a test may run as root, whom no mode stops
    assert "cannot be read: Permission denied" in refusal(InvalidCheckpointError, path)


@pytest.mark.parametrize(
    ("name", "text", "error", "said"),
    [
        ("config.json", "{", InvalidCheckpointError, "config.json is not valid JSON"),
        ("config.json", "[]", InvalidCheckpointError, "config.json holds a list"),
        ("config.json", '{"num_frames": 0}', InvalidConfigError, "config.json: num_frames is 0"),
        ("config.json", '{"model_type": "vit"}', InvalidConfigError, "model_type is 'vit'"),
        ("preprocessor_config.json", "", InvalidCheckpointError, "is not valid JSON"),
        ("preprocessor_config.json", '{"resample": 9}', InvalidCheckpointError, "resample is 9"),
        ("config.json", '{"id2label": {"0": "\\ud800"}}', InvalidCheckpointError, "surrogate"),
        ("config.json", '{"layer_norm_eps": NaN}', InvalidConfigError, "layer_norm_eps is nan"),
        ("config.json", '{"num_frames": ' + "9" * 400 + "}", InvalidConfigError, "num_frames is"),
        ("config.json", '{"a":' * 99 + "1" + "}" * 99, InvalidCheckpointError, "levels deep"),
        ("processor_config.json", "[", InvalidCheckpointError, "is not valid JSON"),
        (
            "processor_config.json",
            '{"image_processor": {"image_mean": [NaN, 0, 0]}}',
            InvalidCheckpointError,
            "correct it in processor_config.json (image_processor)",
        ),
        (
            "preprocessor_config.json",
            '{"image_processor_type": "DetrImageProcessor"}',
            InvalidCheckpointError,
            "image_processor_type is 'DetrImageProcessor', whose steps are not known here",
        ),
        (
            "preprocessor_config.json",
            '{"rescale_factor": 1e999}',
            InvalidCheckpointError,
            "rescale_factor is inf",
        ),
        (
            "preprocessor_config.json",
            '{"crop_size": 32, "size": 8192}',
            InvalidCheckpointError,
            "frames of 8192x8192 pixels would take more than 2048 MB",
        ),
        (
            "preprocessor_config.json",
            '{"crop_size": 48, "size": 48}',
            InvalidCheckpointError,
            "makes frames of 48x48, but the model is for 32x32; say which with `image_size`",
        ),
        (
            "preprocessor_config.json",
            '{"crop_size": 32, "size": 32, "image_mean": [0], "image_std": [1]}',
            InvalidCheckpointError,
            "an image_mean of 1 channels, but the model takes 3",
        ),
    ],
)
def test_broken_configurations(
    tmp_path: Path, name: str, text: str, error: type[ExportError], said: str
) -> None:
    folder = write_folder(tmp_path)
    (folder / name).write_text(text)
    message = refusal(error, folder)
    assert said in message
    assert str(folder / name) in message


def test_a_size_settles_what_the_preprocessing_leaves_open(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    (folder / "preprocessor_config.json").write_text('{"crop_size": 48, "size": 48}')
    for size in (32, 48):
        checkpoint = load_checkpoint(folder, image_size=size)
        assert checkpoint.config.image_hw == (size, size)
        preprocessing = Preprocessing.from_dict(checkpoint.preprocessing)
        assert (preprocessing.size, preprocessing.crop_size) == (size, (size, size))


# Shards


def write_shards(folder: Path, **index: Any) -> Path:
    state = tiny_state()
    names = list(state)
    shards = {
        "model-00001-of-00002.safetensors": names[:9],
        "model-00002-of-00002.safetensors": names[9:],
    }
    for shard, held in shards.items():
        save_file({name: state[name] for name in held}, folder / shard)
    weight_map = {name: shard for shard, held in shards.items() for name in held} | index
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(tiny_config().to_dict()))
    return folder


def test_a_missing_shard(tmp_path: Path) -> None:
    (write_shards(tmp_path) / "model-00002-of-00002.safetensors").unlink()
    said = refusal(InvalidCheckpointError, tmp_path)
    assert "names 2 shards, of which 1 are missing: model-00002-of-00002.safetensors" in said


def test_a_shard_whose_name_is_too_long(tmp_path: Path) -> None:
    write_shards(tmp_path, **{"head.weight": "x" * 300})
    said = refusal(InvalidCheckpointError, tmp_path)
    assert "names 3 shards, of which 1 are missing: 'xxx" in said


def test_one_shard_alone(tmp_path: Path) -> None:
    path = write_shards(tmp_path) / "model-00001-of-00002.safetensors"
    assert "is one shard of several" in refusal(InvalidCheckpointError, path)


def test_an_index_that_names_absent_tensors(tmp_path: Path) -> None:
    write_shards(tmp_path, more="model-00001-of-00002.safetensors")
    said = refusal(InvalidCheckpointError, tmp_path)
    assert "names 1 tensors that are not in their shards (more)" in said


@pytest.mark.parametrize(
    "shard",
    ["../secret.bin", "/etc/passwd", "a/b.bin", "..", "", "..\\x.bin", "C:\\x.bin", 5, ["x.bin"]],
)
def test_an_index_that_points_elsewhere(tmp_path: Path, shard: Any) -> None:
    write_shards(tmp_path, more=shard)
    (tmp_path / "5").touch()
    said = refusal(InvalidCheckpointError, tmp_path)
    assert f"names the shard {shard!r}" in said


@pytest.mark.parametrize("index", ["{}", '{"weight_map": []}', '{"weight_map": {}}', "null", "{"])
def test_a_broken_index(tmp_path: Path, index: str) -> None:
    (write_shards(tmp_path) / "model.safetensors.index.json").write_text(index)
    assert "model.safetensors.index.json" in refusal(InvalidCheckpointError, tmp_path)


# Tensors that are not those of the model


def test_tensors_of_another_model(tmp_path: Path) -> None:
    path = save(tmp_path / "resnet.pth", {"conv1.weight": torch.zeros(1), "fc.bias": torch.ones(1)})
    said = refusal(InvalidCheckpointError, path)
    assert "resnet.pth is not a TimeSformer: its tensors (conv1.weight, fc.bias)" in said


def test_missing_unexpected_and_misshapen_tensors_are_listed_with_their_shapes(
    tmp_path: Path,
) -> None:
    state = tiny_state()
    del state["timesformer.layernorm.bias"]
    state["pooler.weight"] = torch.zeros(2)
    state[POSITIONS] = torch.zeros(1, 8, 32)
    said = refusal(InvalidCheckpointError, write_folder(tmp_path, state))
    assert "1 missing (timesformer.layernorm.bias)" in said
    assert "1 unexpected (pooler.weight)" in said
    assert f"1 misshapen ({POSITIONS} [1, 8, 32] instead of [1, 5, 32])" in said


def test_a_long_list_of_tensors_is_cut(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, num_hidden_layers=4)
    said = refusal(InvalidCheckpointError, folder)
    assert "missing (timesformer.encoder.layer.2." in said
    assert "and 30 more)" in said
    assert said.count("timesformer.encoder") == 10


def test_a_list_of_tensors_with_their_shapes_is_cut(tmp_path: Path) -> None:
    said = refusal(InvalidCheckpointError, write_folder(tmp_path, hidden_size=768))
    assert "misshapen (classifier.weight [5, 32] instead of [5, 768], " in said
    assert len(said) < 1000


@pytest.mark.parametrize(
    ("convert", "name", "said"),
    [
        (to_facebook, "model.blocks.1.attn.proj.bias", "1 missing (model.blocks.1.attn.proj.bias)"),
        (
            to_mmaction2,
            "backbone.transformer_layers.layers.0.attentions.1.attn.in_proj_bias",
            "attentions.1.attn.in_proj_bias)",
        ),
    ],
)
def test_tensors_are_listed_by_the_names_in_the_file(
    tmp_path: Path, convert: Callable[[State], State], name: str, said: str
) -> None:
    state = convert(tiny_state())
    if convert is to_facebook:
        state = {f"model.{key}": value for key, value in state.items()}
    del state[name]
    state["optimizer.step"] = torch.zeros(1)
    message = refusal(InvalidCheckpointError, save(tmp_path / "m.pyth", state), attention_heads=2)
    assert said in message
    assert "1 unexpected (optimizer.step)" in message


def test_a_layer_in_the_middle_is_missing(tmp_path: Path) -> None:
    state = to_facebook(tiny_state(num_hidden_layers=3))
    state = {name: value for name, value in state.items() if ".1." not in name}
    path = save(tmp_path / "model.pyth", state)
    assert "no tensors of layer 1" in refusal(InvalidCheckpointError, path, attention_heads=2)


@pytest.mark.parametrize(
    "name",
    [
        "patch_embed.proj.weight",
        "pos_embed",
        "time_embed",
        "blocks.0.mlp.fc1.weight",
        "head.weight",
    ],
)
def test_a_tensor_that_the_architecture_is_told_by(tmp_path: Path, name: str) -> None:
    state = to_facebook(tiny_state())
    for broken in (None, torch.zeros(()), torch.zeros(3), torch.zeros(0, 3, 16, 16)):
        state.pop(name, None)
        if broken is not None:
            state[name] = broken
        path = save(tmp_path / "model.pyth", state)
        said = refusal(InvalidCheckpointError, path, attention_heads=2)
        assert said.startswith("model.pyth")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite(tmp_path: Path, value: float) -> None:
    state = tiny_state()
    state["classifier.bias"][3] = value
    said = refusal(InvalidCheckpointError, write_folder(tmp_path, state))
    assert "tensor classifier.bias has values that are not finite" in said


def test_quantized_tensors(tmp_path: Path) -> None:
    state = tiny_state()
    state["classifier.bias"] = state["classifier.bias"].to(torch.int8)
    said = refusal(InvalidCheckpointError, write_folder(tmp_path, state))
    assert "tensor classifier.bias is int8, not floating-point" in said


def test_no_head(tmp_path: Path) -> None:
    state = {name: value for name, value in tiny_state().items() if "classifier" not in name}
    for folder in (
        write_folder(tmp_path / "folder", state),
        save(tmp_path / "model.pyth", to_facebook(state)),
    ):
        said = refusal(InvalidCheckpointError, folder, attention_heads=2)
        assert "no classification head" in said
        assert "`task=feature-extraction`" in said


def test_channels_that_no_video_has(tmp_path: Path) -> None:
    path = save(tmp_path / "model.pyth", to_facebook(tiny_state(num_channels=4)))
    assert "4 channels" in refusal(InvalidCheckpointError, path, attention_heads=2)


def test_settings_for_other_channels_than_the_model_has(tmp_path: Path) -> None:
    state = to_facebook(tiny_state(num_channels=1))
    cfg = "DATA:\n  MEAN: [0.45, 0.45, 0.45]\n"
    path = save(tmp_path / "model.pyth", {"model_state": state, "cfg": cfg})
    assert "DATA.MEAN" in refusal(InvalidCheckpointError, path, attention_heads=2)


# Values that the tensors do not tell


def test_heads_that_cannot_be_guessed(tmp_path: Path) -> None:
    path = save(tmp_path / "model.pyth", to_facebook(tiny_state()))
    assert "`attention_heads`" in refusal(InvalidOptionError, path)
    for heads in (0, -1, 3):
        said = refusal(InvalidOptionError, path, attention_heads=heads)
        assert f"`attention_heads` is {heads}" in said


def test_heads_against_the_configuration(tmp_path: Path) -> None:
    said = refusal(InvalidOptionError, write_folder(tmp_path), attention_heads=4)
    assert "`attention_heads` is 4, but" in said
    assert "config.json says 2" in said


def test_frames_of_a_space_only_model(tmp_path: Path) -> None:
    state = to_facebook(tiny_state(attention_type="space_only"))
    path = save(tmp_path / "model.pyth", state)
    said = refusal(InvalidOptionError, path, attention_heads=2)
    assert "space-only" in said
    assert "`num_frames`" in said


def test_a_grid_that_cannot_be_guessed(tmp_path: Path) -> None:
    path = save(tmp_path / "model.pyth", to_facebook(tiny_state(image_size=(32, 48))))
    said = refusal(InvalidOptionError, path, attention_heads=2)
    assert "6 patches of 16x16, which is not a square grid; say" in said
    assert "`image_size`" in said
    said = refusal(InvalidOptionError, path, attention_heads=2, image_size=64)
    assert "64x64 does not give as many" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"task": "classification"}, "`task` is 'classification'"),
        ({"num_frames": 0}, "`num_frames` is 0"),
        ({"image_size": 0}, "`image_size` is 0x0"),
        ({"image_size": (32, -1)}, "`image_size` is 32x-1"),
        ({"image_size": 100_000}, "from 1 to 8192"),
        ({"labels": Path("none.txt")}, "`labels` none.txt cannot be read"),
        ({"labels": Path("x.txt"), "task": "feature-extraction"}, "has no classes"),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    assert said in refusal(InvalidOptionError, write_folder(tmp_path), **options)


def test_a_size_below_a_patch(tmp_path: Path) -> None:
    said = refusal(InvalidConfigError, write_folder(tmp_path), image_size=8)
    assert "smaller than patch_size 16" in said


def test_labels_of_another_number(tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\nc\n")
    said = refusal(InvalidOptionError, write_folder(tmp_path / "model"), labels=labels)
    assert "names 3 classes, but the checkpoint has 5" in said
