"""Small TimeSformers with random weights, as modules and as checkpoint folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from timesformer_exporter.model.config import TimesformerConfig
from timesformer_exporter.model.timesformer import TimesformerForVideoClassification

ATTENTION_TYPES = ("divided_space_time", "joint_space_time", "space_only")


def tiny_config(attention_type: str = "divided_space_time", **fields: Any) -> TimesformerConfig:
    """Two layers of hidden size 32, three frames of 32x32 pixels, six labels."""
    values: dict[str, Any] = {
        "image_size": 32,
        "patch_size": 16,
        "num_frames": 3,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "id2label": {i: f"label {i}" for i in range(6)},
    }
    return TimesformerConfig(attention_type=attention_type, **(values | fields))


def random_model(config: TimesformerConfig, seed: int = 0) -> TimesformerForVideoClassification:
    """A model whose biases, LayerNorms and embeddings are random, instead of zeros and ones."""
    model = TimesformerForVideoClassification(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if "layernorm" in name and name.endswith("weight") else 0.0
            spread = 0.3 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(centre + spread * noise)
    return model


def write_checkpoint(
    folder: Path,
    config: TimesformerConfig,
    seed: int = 0,
    preprocessing: dict[str, Any] | None = None,
) -> TimesformerForVideoClassification:
    """Writes a random model as a Hugging Face folder and returns it."""
    model = random_model(config, seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    if preprocessing is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return model
