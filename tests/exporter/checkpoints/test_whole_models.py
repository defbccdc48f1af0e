"""Models saved with ``torch.save(model)``: their tensors load, and nothing of them runs."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from timesformer_exporter.checkpoints import load_checkpoint
from timesformer_exporter.errors import InvalidCheckpointError
from torch import Tensor, nn

from tests.checkpoint_samples import State, random_model, tiny_config, to_facebook


def theirs(**changes: Any) -> nn.Module:
    config = tiny_config(**changes)
    model: nn.Module = transformers.TimesformerForVideoClassification(
        transformers.TimesformerConfig(**config.to_dict())
    )
    model.load_state_dict(random_model(config).state_dict())
    return model


class Trained(nn.Module):
    """A training module around the model, as of Lightning, with a criterion and a buffer."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.criterion = nn.CrossEntropyLoss(weight=torch.ones(5))
        self.register_buffer("scratch", torch.zeros(3), persistent=False)

    def __setstate__(self, state: dict[str, Any]) -> None:
        raise AssertionError("code of the model ran")


class Assembled(nn.Module):
    """Modules and parameters under the names of a state dict."""

    def __init__(self, state: State) -> None:
        super().__init__()
        for name, tensor in state.items():
            *parents, last = name.split(".")
            module: nn.Module = self
            for parent in parents:
                if not hasattr(module, parent):
                    module.add_module(parent, nn.Module())
                module = getattr(module, parent)
            module.register_parameter(last, nn.Parameter(tensor))


def is_of(state: dict[str, Tensor], expected: State) -> bool:
    assert state.keys() == expected.keys()
    return all(torch.equal(state[name], expected[name]) for name in expected)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: model,
        Trained,
        nn.DataParallel,
        lambda model: {"model": model, "epoch": 3},
        lambda model: {"epoch": 3, "ema": model},
    ],
)
def test_a_whole_model_of_hugging_face_has_its_configuration(
    tmp_path: Path, wrap: Callable[[nn.Module], object], zipped: bool
) -> None:
    model = theirs(hidden_act="relu", layer_norm_eps=1e-3)
    path = tmp_path / "model.pth"
    torch.save(wrap(model), path, _use_new_zipfile_serialization=zipped)
    checkpoint = load_checkpoint(path)
    expected = tiny_config(hidden_act="relu", layer_norm_eps=1e-3)
    assert checkpoint.config == expected
    assert is_of(checkpoint.state_dict, model.state_dict())
    assert "other than tensors were left out" in " ".join(checkpoint.notes)


def test_a_whole_model_of_other_names(tmp_path: Path) -> None:
    state = random_model(tiny_config()).state_dict()
    path = tmp_path / "model.pyth"
    torch.save({"model": Assembled(to_facebook(state))}, path)
    checkpoint = load_checkpoint(path, attention_heads=2)
    assert is_of(checkpoint.state_dict, state)
    assert dataclasses.replace(checkpoint.config, id2label=None) == tiny_config(id2label=None)


def test_raw_and_averaged_whole_models(tmp_path: Path) -> None:
    raw = random_model(tiny_config(), seed=0).state_dict()
    average = random_model(tiny_config(), seed=1).state_dict()
    path = tmp_path / "model.pt"
    content = {"model": Assembled(to_facebook(raw)), "ema": Assembled(to_facebook(average))}
    torch.save(content, path)
    assert is_of(load_checkpoint(path, attention_heads=2).state_dict, raw)
    assert is_of(load_checkpoint(path, attention_heads=2, weights="ema").state_dict, average)


def test_heads_against_the_saved_configuration(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(theirs(), path)
    assert load_checkpoint(path, attention_heads=2).config.num_attention_heads == 2
    with pytest.raises(ValueError, match=r"the configuration in model.pth says 2"):
        load_checkpoint(path, attention_heads=4)


@pytest.mark.parametrize("value", [2**70, float("nan"), ("a",) * 9, b"x", None])
def test_a_saved_configuration_with_values_that_no_model_has(tmp_path: Path, value: object) -> None:
    model = theirs()
    vars(model.config)["num_frames"] = value
    path = tmp_path / "model.pth"
    torch.save(model, path)
    with pytest.raises(ValueError, match=r"model\.pth"):
        load_checkpoint(path)


def test_an_object_that_is_no_model_says_how_to_save_it(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    for content in (nn.Linear(2, 2), {"model": nn.Linear(2, 2)}, pickle.PickleBuffer):
        torch.save(content, path)
        with pytest.raises(InvalidCheckpointError, match=r"torch.save\(model.state_dict\(\), FILE"):
            load_checkpoint(path)
