"""Writes and reads model folders of Hugging Face's format, with config.json and safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from timesformer_exporter.model.config import TimesformerConfig
from timesformer_exporter.model.timesformer import TimesformerForVideoClassification

from models.shot_transitions.augment import MEAN, STD


def save_model(model: TimesformerForVideoClassification, folder: Path) -> None:
    """Writes config.json, preprocessor_config.json and model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", model.config.to_dict())
    _write_json(folder / "preprocessor_config.json", preprocessing(model.config.image_hw[0]))
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def load_model(folder: Path) -> TimesformerForVideoClassification:
    """Loads the model of a folder, in evaluation mode."""
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = TimesformerForVideoClassification(TimesformerConfig.from_dict(values))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval()


def preprocessing(size: int) -> dict[str, Any]:
    """The preprocessor_config.json of a model for frames of ``size`` pixels."""
    return {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 2,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [MEAN] * 3,
        "image_std": [STD] * 3,
    }


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
