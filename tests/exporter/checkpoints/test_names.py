"""Names of tensors: those that wrappers change, those beside the model, those that do not print."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
from safetensors.torch import save_file
from timesformer_exporter.checkpoints import Checkpoint, load_checkpoint
from timesformer_exporter.errors import InvalidCheckpointError
from torch import nn

from tests.checkpoint_samples import State, random_model, tiny_config, to_facebook, to_mmaction2

STATE = random_model(tiny_config()).state_dict()
FORMATS: dict[str, Callable[[State], State]] = {
    "huggingface": lambda state: state,
    "facebook": to_facebook,
    "mmaction2": to_mmaction2,
}


def load(path: Path, content: object) -> Checkpoint:
    torch.save(content, path)
    return load_checkpoint(path, attention_heads=2)


def is_the_model(checkpoint: Checkpoint) -> bool:
    assert checkpoint.state_dict.keys() == STATE.keys()
    return all(torch.equal(checkpoint.state_dict[name], STATE[name]) for name in STATE)


def within(mark: str, at: int) -> Callable[[State], State]:
    """Returns a function that inserts a wrapper's mark into every name, as part number ``at``."""

    def insert(name: str) -> str:
        parts = name.split(".")
        at_most = min(at, len(parts) - 1)
        return ".".join([*parts[:at_most], mark, *parts[at_most:]])

    return lambda state: {insert(name): tensor for name, tensor in state.items()}


MARKS = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "module")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("at", [0, 1, 2, 4])
def test_marks_of_wrappers_are_taken_out_wherever_they_are(
    tmp_path: Path, kind: str, mark: str, at: int
) -> None:
    state = within(mark, at)(FORMATS[kind](STATE))
    assert is_the_model(load(tmp_path / "model.pth", {"state_dict": state}))


def test_names_that_torch_itself_makes(tmp_path: Path) -> None:
    model = random_model(tiny_config())
    for layer in model.timesformer.encoder.layer:
        part = torch.compile(layer.get_submodule("temporal_dense"))
        layer.add_module("temporal_dense", cast(nn.Module, part))
    assert is_the_model(load(tmp_path / "model.pth", nn.DataParallel(model).state_dict()))


def test_two_tensors_that_become_one(tmp_path: Path) -> None:
    state = STATE | {"module.classifier.bias": torch.zeros(5)}
    with pytest.raises(InvalidCheckpointError, match=r"two tensors for classifier.bias"):
        load(tmp_path / "model.pth", state)


@pytest.mark.parametrize("mark", MARKS)
def test_messages_have_the_names_in_the_file(tmp_path: Path, mark: str) -> None:
    state = within(mark, 2)(to_facebook(STATE))
    name = next(name for name in state if name.endswith("attn.proj.bias"))
    state[name] = torch.zeros(3)
    with pytest.raises(InvalidCheckpointError, match="misshapen") as caught:
        load(tmp_path / "model.pth", state)
    assert name in str(caught.value)


BESIDE = ("criterion.weight", "n_averaged", "train_acc.total", "metrics.f1.total", "loss_fn.bias")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("prefix", ["", "model."])
def test_tensors_of_the_training_loop_are_left_out_and_named(
    tmp_path: Path, kind: str, prefix: str
) -> None:
    state = {f"{prefix}{name}": tensor for name, tensor in FORMATS[kind](STATE).items()}
    checkpoint = load(tmp_path / "m.pth", state | dict.fromkeys(BESIDE, torch.zeros(3)))
    assert is_the_model(checkpoint)
    noted = f"Tensors beside the model were left out: {', '.join(BESIDE)}."
    assert noted in checkpoint.notes


@pytest.mark.parametrize("kind", FORMATS)
def test_anything_outside_the_models_prefix_is_left_out(tmp_path: Path, kind: str) -> None:
    state = {f"network.{name}": tensor for name, tensor in FORMATS[kind](STATE).items()}
    checkpoint = load(tmp_path / "m.pth", state | {"text_head.weight": torch.zeros(3)})
    assert is_the_model(checkpoint)
    assert "Tensors beside the model were left out: text_head.weight." in checkpoint.notes


@pytest.mark.parametrize(
    ("kind", "prefix", "extra"),
    [
        ("huggingface", "", "pooler.weight"),
        ("huggingface", "", "timesformer.extra.weight"),
        ("huggingface", "model.", "model.classifier.scale"),
        ("facebook", "", "fc_norm.weight"),
        ("facebook", "model.", "model.blocks.0.gate"),
        ("mmaction2", "", "neck.weight"),
        ("mmaction2", "", "backbone.extra"),
    ],
)
def test_unknown_tensors_within_the_model_stay_an_error(
    tmp_path: Path, kind: str, prefix: str, extra: str
) -> None:
    state = {f"{prefix}{name}": tensor for name, tensor in FORMATS[kind](STATE).items()}
    with pytest.raises(InvalidCheckpointError, match="1 unexpected") as caught:
        load(tmp_path / "m.pth", state | {extra: torch.zeros(3)})
    assert f"({extra})" in str(caught.value)


@pytest.mark.parametrize("name", ["\ud800", "\x1b[31mred", "a\nb", "x" * 10_000_000])
@pytest.mark.parametrize("prefix", ["", "blocks.0."])
def test_names_that_do_not_print_are_escaped_and_cut(
    tmp_path: Path, name: str, prefix: str
) -> None:
    path = tmp_path / "m.pth"
    for content in (
        to_facebook(STATE) | {prefix + name: torch.zeros(1)},
        {prefix + name: torch.zeros(1)},
        {prefix + name: 1},
        {name: to_facebook(STATE)},
        {f"{name}.cls_token": torch.zeros(1), f"{name}.a.cls_token": torch.zeros(1)},
        STATE | {f"{name}.lora_A.weight": torch.zeros(1)},
        STATE | {name: torch.zeros(1), f"module.{name}": torch.zeros(1)},
        {"model_state": to_facebook(STATE), "cfg": f"TIMESFORMER:\n  ATTENTION_TYPE: {name}\n"},
    ):
        try:
            said = " ".join(load(path, content).notes)
        except InvalidCheckpointError as error:
            said = str(error)
        assert said.isprintable()
        assert len(said.encode()) < 3000


def test_an_index_with_names_that_do_not_print(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "model-00001-of-00001.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(tiny_config().to_dict()))
    index = tmp_path / "model.safetensors.index.json"
    for weight_map in (
        {"\ud800\x1b[31m": "model-00001-of-00001.safetensors"},
        {"x": "\ud800\x1b[31m.safetensors"},
        {"x": "../\ud800"},
    ):
        index.write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(InvalidCheckpointError) as caught:
            load_checkpoint(tmp_path)
        assert str(caught.value).isprintable()
