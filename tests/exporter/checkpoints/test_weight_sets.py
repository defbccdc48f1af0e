"""Checkpoints with raw and averaged weights: the choice between them, and the note about it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from timesformer_exporter.checkpoints import Checkpoint, load_checkpoint
from timesformer_exporter.errors import InvalidCheckpointError, InvalidOptionError
from timesformer_exporter.export import export
from timesformer_exporter.options import ExportOptions
from torch.optim.swa_utils import AveragedModel

from tests.checkpoint_samples import State, random_model, tiny_config, to_facebook, to_mmaction2

RAW = random_model(tiny_config(), seed=0).state_dict()
AVERAGE = random_model(tiny_config(), seed=1).state_dict()


def under(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def load(path: Path, weights: str | None = None) -> Checkpoint:
    return load_checkpoint(path, attention_heads=2, weights=weights)


def is_of(checkpoint: Checkpoint, state: State) -> bool:
    assert checkpoint.state_dict.keys() == state.keys()
    return all(torch.equal(checkpoint.state_dict[name], state[name]) for name in state)


RAW_FB, AVERAGE_FB = to_facebook(RAW), to_facebook(AVERAGE)

# Each entry has the key of the raw weights and the key of the average. Raw is the default.
RAW_FIRST: dict[str, tuple[dict[str, Any], str, str]] = {
    "timm": ({"state_dict": RAW_FB, "state_dict_ema": AVERAGE_FB}, "state_dict", "state_dict_ema"),
    "torchvision": ({"model_ema": AVERAGE_FB, "model": RAW_FB, "epoch": 3}, "model", "model_ema"),
    "ema": (
        {"ema": AVERAGE_FB, "model": RAW_FB, "args": argparse.Namespace()},
        "model",
        "ema",
    ),
    "ema with a state": (
        {"model": RAW_FB, "ema": {"decay": torch.tensor(0.9), "shadow": AVERAGE_FB}},
        "model",
        "ema",
    ),
    "ema with its own prefix": (
        {"model_state_dict": RAW_FB, "ema_state_dict": under("module.", AVERAGE_FB)},
        "model_state_dict",
        "ema_state_dict",
    ),
    "one state dict with two models": (
        {"state_dict": {**under("model.", RAW_FB), **under("ema_model.module.", AVERAGE_FB)}},
        "model",
        "ema_model",
    ),
    "an average under a short prefix": (
        {"state_dict": {**under("ema.", AVERAGE), **under("network.", RAW)}},
        "network",
        "ema",
    ),
    "raw weights without a prefix": (
        {**RAW_FB, **under("ema_model.", AVERAGE_FB)},
        "those without a prefix",
        "ema_model",
    ),
}

# Trainers that save the average as the model: the average is the default.
AVERAGE_FIRST: dict[str, tuple[dict[str, Any], str, str]] = {
    "Lightning": (
        {
            "state_dict": under("model.", AVERAGE),
            "current_model_state": under("model.", RAW),
            "averaging_state": {"n_averaged": torch.tensor(7)},
        },
        "current_model_state",
        "state_dict",
    ),
    "MMEngine": (
        {
            "message_hub": {"log_scalars": {}},
            "state_dict": to_mmaction2(AVERAGE),
            "ema_state_dict": {"steps": torch.tensor(7)} | under("module.", to_mmaction2(RAW)),
        },
        "ema_state_dict",
        "state_dict",
    ),
}


@pytest.mark.parametrize("kind", [*RAW_FIRST, *AVERAGE_FIRST])
def test_the_default_is_the_model_and_the_choice_is_said(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.pth"
    content, raw, average = (RAW_FIRST | AVERAGE_FIRST)[kind]
    torch.save(content, path)
    checkpoint = load(path)
    said = " ".join(checkpoint.notes)
    raw, average = f"raw weights ({raw})", f"averaged (EMA) weights ({average})"
    if kind in RAW_FIRST:
        assert is_of(checkpoint, RAW)
        assert f"The {raw} were exported; `weights=ema` exports the {average}." in said
    else:
        assert is_of(checkpoint, AVERAGE)
        assert f"The {average} were exported; `weights=raw` exports the {raw}." in said


@pytest.mark.parametrize("kind", [*RAW_FIRST, *AVERAGE_FIRST])
def test_either_can_be_asked_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.pth"
    torch.save((RAW_FIRST | AVERAGE_FIRST)[kind][0], path)
    assert is_of(load(path, "raw"), RAW)
    assert is_of(load(path, "ema"), AVERAGE)


def test_both_sets_in_a_file_of_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({**under("model.", RAW), **under("model_ema.", AVERAGE)}, path)
    assert is_of(load(path), RAW)
    assert is_of(load(path, "ema"), AVERAGE)


def test_an_average_alone_is_taken_and_named(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"epoch": torch.tensor(3), "model_ema": AVERAGE_FB}, path)
    assert is_of(load(path), AVERAGE)
    assert is_of(load(path, "ema"), AVERAGE)
    assert "has averaged (EMA) weights only (model_ema)" in " ".join(load(path).notes)
    with pytest.raises(
        InvalidOptionError, match=r"`weights` is 'raw', but model.pth has only aver"
    ):
        load(path, "raw")


def as_state(path: Path) -> None:
    torch.save({"model": RAW_FB, "ema": None}, path)


def as_safetensors(path: Path) -> None:
    save_file(RAW, path)


@pytest.mark.parametrize("save", [as_state, as_safetensors])
def test_an_average_that_is_not_there(tmp_path: Path, save: Callable[[Path], None]) -> None:
    path = tmp_path / "model.pth"
    save(path)
    assert is_of(load(path, "raw"), RAW)
    assert not [note for note in load(path).notes if "weights" in note]
    with pytest.raises(InvalidOptionError, match=r"`weights` is 'ema', but model.pth has only wei"):
        load(path, "ema")


def test_an_averaged_model_alone_is_a_model(tmp_path: Path) -> None:
    """torch.optim.swa_utils saves an average with ``module.`` before each name, and a count."""
    averaged = AveragedModel(random_model(tiny_config(), seed=1))
    path = tmp_path / "model.pth"
    torch.save(averaged.state_dict(), path)
    checkpoint = load(path)
    assert is_of(checkpoint, AVERAGE)
    assert "Tensors beside the model were left out: n_averaged." in checkpoint.notes


def test_models_of_which_none_is_an_average_are_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({**under("student.", RAW_FB), **under("teacher.", AVERAGE_FB)}, path)
    for weights in (None, "ema", "raw"):
        with pytest.raises(InvalidCheckpointError, match=r"several models .*student.*teacher"):
            load(path, weights)


def test_an_export_says_and_reports_which_weights_it_has(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"model": RAW_FB, "model_ema": AVERAGE_FB}, path)
    result = export(ExportOptions(str(path), tmp_path / "out", attention_heads=2, weights="ema"))
    assert result.passed
    report = json.loads((tmp_path / "out" / "export_report.json").read_text())
    said = "The averaged (EMA) weights (model_ema) were exported; `weights=raw` exports the raw "
    for notes in (result.notes, report["notes"]):
        assert [note for note in notes if note.startswith(said)]
    assert report["options"]["weights"] == "ema"


def test_what_can_be_asked_for() -> None:
    assert ExportOptions("model", weights="ema").weights == "ema"
    with pytest.raises(InvalidOptionError, match="`weights` is 'best'; it must be one of raw, ema"):
        ExportOptions("model", weights="best")  # type: ignore[arg-type]
    with pytest.raises(InvalidOptionError, match="`weights` is 'best'; it must be one of raw, ema"):
        load_checkpoint("model", weights="best")
