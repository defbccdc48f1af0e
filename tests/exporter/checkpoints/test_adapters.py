"""Adapter folders of PEFT: plain LoRA is merged into its base model, anything else is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file
from timesformer_exporter.checkpoints import load_checkpoint
from timesformer_exporter.errors import CheckpointNotFoundError, InvalidCheckpointError
from torch import Tensor

from tests.checkpoint_samples import State, random_model, tiny_config, to_facebook

STATE = random_model(tiny_config()).state_dict()
QKV = "timesformer.encoder.layer.0.attention.attention.qkv"
DENSE = "timesformer.encoder.layer.1.output.dense"
PATCHES = "timesformer.embeddings.patch_embeddings.projection"


def write_base(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(tiny_config().to_dict()))
    save_file(STATE, folder / "model.safetensors")
    return folder


def write_adapter(folder: Path, base: object, tensors: State, **settings: Any) -> Path:
    """Writes an adapter as PEFT's ``model.save_pretrained(folder)`` does."""
    folder.mkdir()
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "base_model_name_or_path": str(base),
        "revision": None,
        "r": 4,
        "lora_alpha": 8,
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
        "alpha_pattern": {},
    }
    (folder / "adapter_config.json").write_text(json.dumps(config | settings))
    named = {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}
    save_file(named, folder / "adapter_model.safetensors")
    return folder


def factors(name: str, down: tuple[int, ...], up: tuple[int, ...]) -> State:
    generator = torch.Generator().manual_seed(len(name))
    return {
        f"{name}.lora_A.weight": torch.randn(down, generator=generator),
        f"{name}.lora_B.weight": torch.randn(up, generator=generator),
    }


def merged(folder: Path) -> State:
    return load_checkpoint(folder).state_dict


def is_close(actual: Tensor, expected: Tensor) -> bool:
    return float((actual - expected).abs().max() / expected.abs().max()) < 1e-6


def test_factors_are_merged_and_all_else_stays(tmp_path: Path) -> None:
    tensors = {**factors(QKV, (4, 32), (96, 4)), **factors(DENSE, (2, 48), (32, 2))}
    head = torch.randn(3, 32), torch.randn(3)
    tensors |= {"classifier.weight": head[0], "classifier.bias": head[1]}
    bias = torch.randn(96)
    tensors[f"{QKV}.base_layer.bias"] = bias
    folder = write_adapter(tmp_path / "lora", write_base(tmp_path / "base"), tensors)

    checkpoint = load_checkpoint(folder)

    state = checkpoint.state_dict
    for name, rank in ((QKV, 4), (DENSE, 2)):
        change = tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"] * (8 / rank)
        assert is_close(state[f"{name}.weight"], STATE[f"{name}.weight"] + change)
    changed = {f"{QKV}.weight", f"{QKV}.bias", f"{DENSE}.weight"}
    assert torch.equal(state[f"{QKV}.bias"], bias)
    assert torch.equal(state["classifier.weight"], head[0])
    assert torch.equal(state["classifier.bias"], head[1])
    for name in STATE.keys() - changed - {"classifier.weight", "classifier.bias"}:
        assert torch.equal(state[name], STATE[name])
    # The head is the adapter's, with its own number of classes.
    assert checkpoint.config.id2label == {i: f"LABEL_{i}" for i in range(3)}
    assert "The LoRA adapter was merged into its base model base." in checkpoint.notes
    assert checkpoint.source.model == "lora"
    assert set(checkpoint.source.files) == {
        "model.safetensors",
        "config.json",
        "adapter_model.safetensors",
        "adapter_config.json",
    }


def test_the_change_is_what_lora_computes(tmp_path: Path) -> None:
    """Compares the merged layer with W x + scale B A x on random inputs."""
    tensors = factors(QKV, (4, 32), (96, 4))
    folder = write_adapter(tmp_path / "lora", write_base(tmp_path / "base"), tensors)
    inputs = torch.randn(5, 32, dtype=torch.float64)  # so that only the merge rounds
    down, up = (tensor.double() for tensor in tensors.values())
    expected = inputs @ STATE[f"{QKV}.weight"].double().T + 2 * inputs @ down.T @ up.T
    assert is_close(inputs @ merged(folder)[f"{QKV}.weight"].double().T, expected)


def test_scales(tmp_path: Path) -> None:
    tensors = {**factors(QKV, (4, 32), (96, 4)), **factors(DENSE, (4, 48), (32, 4))}
    base = write_base(tmp_path / "base")
    settings: list[tuple[dict[str, Any], float, float]] = [
        ({"use_rslora": True}, 8 / math.sqrt(4), 8 / math.sqrt(4)),
        ({"alpha_pattern": {"qkv": 3}}, 3 / 4, 8 / 4),
        ({"alpha_pattern": {"layer.1.output.dense": 5}, "use_rslora": True}, 4, 5 / 2),
        ({"lora_alpha": 0.5}, 0.5 / 4, 0.5 / 4),
    ]
    for number, (changed, *scales) in enumerate(settings):
        state = merged(write_adapter(tmp_path / f"lora{number}", base, tensors, **changed))
        for name, scale in zip((QKV, DENSE), scales, strict=True):
            change = tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"] * scale
            assert is_close(state[f"{name}.weight"], STATE[f"{name}.weight"] + change)


def test_transposed_weights_and_convolutions(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    tensors = factors(QKV, (4, 96), (32, 4))
    state = merged(write_adapter(tmp_path / "t", base, tensors, fan_in_fan_out=True))
    down, up = tensors.values()
    assert is_close(state[f"{QKV}.weight"], STATE[f"{QKV}.weight"] + (2 * up @ down).T)

    tensors = factors(PATCHES, (4, 3, 16, 16), (32, 4, 1, 1))
    state = merged(write_adapter(tmp_path / "c", base, tensors))
    down, up = tensors.values()
    frames = torch.randn(2, 3, 32, 32, dtype=torch.float64)  # so that only the merge rounds
    conv = torch.nn.functional.conv2d
    expected = conv(frames, STATE[f"{PATCHES}.weight"].double(), stride=16)
    expected += 2 * conv(conv(frames, down.double(), stride=16), up.double())
    assert is_close(conv(frames, state[f"{PATCHES}.weight"].double(), stride=16), expected)


def test_an_adapter_of_the_model_without_its_head(tmp_path: Path) -> None:
    tensors = factors(QKV.removeprefix("timesformer."), (4, 32), (96, 4))
    state = merged(write_adapter(tmp_path / "lora", write_base(tmp_path / "base"), tensors))
    down, up = tensors.values()
    assert is_close(state[f"{QKV}.weight"], STATE[f"{QKV}.weight"] + 2 * up @ down)


def test_preprocessing_beside_the_adapter_comes_first(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    folder = write_adapter(tmp_path / "lora", base, factors(QKV, (4, 32), (96, 4)))
    values = {"size": {"shortest_edge": 32}, "crop_size": 32, "image_mean": [0.1, 0.2, 0.3]}
    (base / "preprocessor_config.json").write_text(json.dumps(values))
    assert load_checkpoint(folder).preprocessing["image_mean"] == [0.1, 0.2, 0.3]
    values["image_mean"] = [0.4, 0.5, 0.6]
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    assert load_checkpoint(folder).preprocessing["image_mean"] == [0.4, 0.5, 0.6]


@pytest.mark.parametrize(
    "settings",
    [
        {"peft_type": "IA3"},
        {"peft_type": None},
        {"use_dora": True},
        {"layer_replication": [[0, 2]]},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": ["pissa"]},
        {"alpha_pattern": {"(a+)+b": 3}},
        {"lora_alpha": None},
        {"lora_alpha": True},
        {"lora_alpha": "8"},
    ],
)
def test_what_is_not_plain_lora_is_refused_with_the_remedy(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    base = write_base(tmp_path / "base")
    folder = write_adapter(tmp_path / "lora", base, factors(QKV, (4, 32), (96, 4)), **settings)
    with pytest.raises(InvalidCheckpointError, match=r"the adapter lora .*merge_and_unload\(\)"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    "tensors",
    [
        {f"{QKV}.lora_A.weight": torch.zeros(4, 32)},
        {f"{QKV}.lora_B.weight": torch.zeros(96, 4)},
        factors(QKV, (4, 31), (96, 4)),
        factors(QKV, (4, 32), (96, 5)),
        factors(QKV, (0, 32), (96, 0)),
        factors(QKV, (4, 2**20), (2**20, 4)),  # 4 TB
        factors("timesformer.pooler", (4, 32), (96, 4)),
        factors(f"{QKV}.bias", (4,), (96, 4)),
        {"timesformer.pooler.weight": torch.zeros(3)},
        factors(QKV, (4, 32), (96, 4)) | {f"{QKV}.lora_magnitude_vector": torch.zeros(96)},
    ],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path: Path, tensors: State) -> None:
    folder = write_adapter(tmp_path / "lora", write_base(tmp_path / "base"), tensors)
    with pytest.raises(InvalidCheckpointError, match=r"the adapter lora .*merge_and_unload\(\)"):
        load_checkpoint(folder)


@pytest.mark.parametrize("base", ["", 3, None, ["a"]])
def test_no_base_model(tmp_path: Path, base: object) -> None:
    folder = write_adapter(tmp_path / "lora", "x", factors(QKV, (4, 32), (96, 4)))
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = base
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(InvalidCheckpointError, match="set base_model_name_or_path"):
        load_checkpoint(folder)


@pytest.mark.parametrize("base", ["no/such/model", "x" * 400, "no\0such"])
def test_a_base_model_that_is_absent(tmp_path: Path, base: str) -> None:
    folder = write_adapter(tmp_path / "lora", base, {"classifier.bias": torch.zeros(5)})
    with pytest.raises(CheckpointNotFoundError, match=r"base model of the adapter lora is absent"):
        load_checkpoint(folder)


def test_an_adapter_of_an_adapter(tmp_path: Path) -> None:
    tensors = factors(QKV, (4, 32), (96, 4))
    first = write_adapter(tmp_path / "a", write_base(tmp_path / "base"), tensors)
    second = write_adapter(tmp_path / "b", first, tensors)
    with pytest.raises(InvalidCheckpointError, match="is itself an adapter"):
        load_checkpoint(second)


def test_an_adapter_without_its_configuration(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "lora", "x", {"classifier.bias": torch.zeros(5)})
    (folder / "adapter_config.json").unlink()
    with pytest.raises(InvalidCheckpointError, match=r"adapter_config.json is not beside it"):
        load_checkpoint(folder)


def wrapped_by_peft(state: State) -> State:
    """The state dict of a model that PEFT wraps: qkv adapted, the head trained as a copy."""
    wrapped = {}
    for name, tensor in state.items():
        module, _, kind = name.rpartition(".")
        if module.endswith("qkv"):
            wrapped[f"base_model.model.{module}.base_layer.{kind}"] = tensor
        elif module == "classifier":
            wrapped[f"base_model.model.{module}.original_module.{kind}"] = tensor + 1
            wrapped[f"base_model.model.{module}.modules_to_save.default.{kind}"] = tensor
        else:
            wrapped[f"base_model.model.{name}"] = tensor
    return wrapped


def test_a_wrapped_model_after_its_adapters_were_merged(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(wrapped_by_peft(STATE), path)
    state = load_checkpoint(path, attention_heads=2).state_dict
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[name], STATE[name]) for name in STATE)


def test_a_wrapped_model_with_adapters_says_how_to_merge_them(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    adapters = factors(f"base_model.model.{QKV}", (4, 32), (96, 4))
    adapters = {
        name.replace(".weight", ".default.weight"): tensor for name, tensor in adapters.items()
    }
    torch.save(wrapped_by_peft(STATE) | adapters, path)
    with pytest.raises(InvalidCheckpointError, match=r"LoRA adapters .*merge_and_unload\(\)"):
        load_checkpoint(path, attention_heads=2)


def test_against_peft_itself(tmp_path: Path) -> None:
    """Where PEFT is installed, the merged weights equal PEFT's bit for bit."""
    peft = pytest.importorskip("peft")
    settings: list[dict[str, Any]] = [
        {"target_modules": ["qkv"], "bias": "lora_only"},
        {"target_modules": ["qkv", "dense"], "use_rslora": True, "alpha_pattern": {"qkv": 3}},
        {"target_modules": ["projection"], "modules_to_save": ["classifier", "layernorm_before"]},
    ]
    base = write_base(tmp_path / "base")
    for number, setting in enumerate(settings):
        theirs = transformers.TimesformerForVideoClassification.from_pretrained(base)
        adapted = peft.get_peft_model(theirs, peft.LoraConfig(r=4, lora_alpha=6, **setting))
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.3)
        adapted.save_pretrained(tmp_path / str(number))
        expected = adapted.merge_and_unload().state_dict()
        state = merged(tmp_path / str(number))
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], expected[name]) for name in state)


def test_names_of_other_formats_are_not_an_adapters(tmp_path: Path) -> None:
    base = tmp_path / "base.pyth"
    torch.save(to_facebook(STATE), base)
    folder = write_adapter(tmp_path / "lora", base, {"blocks.0.attn.qkv.bias": torch.zeros(96)})
    with pytest.raises(InvalidCheckpointError, match="the adapter lora has a tensor"):
        load_checkpoint(folder, attention_heads=2)
