"""Tiny TimeSformers for tests: random weights that exercise every parameter, in every format."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from timesformer_exporter.model.config import TimesformerConfig
from timesformer_exporter.model.timesformer import TimesformerForVideoClassification
from torch import Tensor

State = dict[str, Tensor]


def tiny_config(**changes: Any) -> TimesformerConfig:
    """32x32 pixels in patches of 16, 4 frames, 2 layers, 2 heads of 16, 5 classes."""
    values: dict[str, Any] = {
        "image_size": 32,
        "patch_size": 16,
        "num_frames": 4,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "id2label": {i: f"class {i}" for i in range(5)},
    }
    return TimesformerConfig(**(values | changes))


def random_model(config: TimesformerConfig, seed: int = 0) -> TimesformerForVideoClassification:
    """A model in which every weight, bias, LayerNorm and embedding matters to the result."""
    model = TimesformerForVideoClassification(config)
    model.load_state_dict(random_state(model.state_dict(), seed))
    return model.eval()


def random_state(state: State, seed: int = 0) -> State:
    """Random values of the scale that trained tensors have, for the same names and shapes."""
    generator = torch.Generator().manual_seed(seed)

    def draw(name: str, shape: torch.Size) -> Tensor:
        noise = torch.randn(shape, generator=generator)
        if "layernorm" in name and name.endswith("weight"):
            return 1 + 0.3 * noise
        if len(shape) > 1 and name.endswith("weight"):
            return noise / math.sqrt(shape[1:].numel())
        return 0.5 * noise

    return {name: draw(name, value.shape) for name, value in state.items()}


def random_clips(config: TimesformerConfig, batch: int = 2, **changes: Any) -> Tensor:
    """Normalised clips [batch, T, C, H, W]; ``num_frames`` and ``image_size`` can differ."""
    shape = dataclasses.replace(config, **changes)
    generator = torch.Generator().manual_seed(1)
    size = (batch, shape.num_frames, shape.num_channels, *shape.image_hw)
    return torch.randn(size, generator=generator)


def to_facebook(state: State) -> State:
    """Renames tensors of Hugging Face's names to those of the authors' code."""
    return _renamed(
        state,
        ("timesformer.embeddings.cls_token", "cls_token"),
        ("timesformer.embeddings.position_embeddings", "pos_embed"),
        ("timesformer.embeddings.time_embeddings", "time_embed"),
        ("timesformer.embeddings.patch_embeddings.projection", "patch_embed.proj"),
        ("timesformer.encoder.layer.", "blocks."),
        (".temporal_attention.attention.qkv", ".temporal_attn.qkv"),
        (".temporal_attention.output.dense", ".temporal_attn.proj"),
        (".attention.attention.qkv", ".attn.qkv"),
        (".attention.output.dense", ".attn.proj"),
        (".temporal_layernorm", ".temporal_norm1"),
        (".temporal_dense", ".temporal_fc"),
        (".layernorm_before", ".norm1"),
        (".layernorm_after", ".norm2"),
        (".intermediate.dense", ".mlp.fc1"),
        (".output.dense", ".mlp.fc2"),
        ("timesformer.layernorm", "norm"),
        ("classifier", "head"),
    )


def to_mmaction2(state: State) -> State:
    """Renames tensors of Hugging Face's names to mmaction2's."""
    divided = any("temporal_attention" in name for name in state)
    space = "attentions.1" if divided else "attentions.0"
    return _renamed(
        state,
        ("timesformer.embeddings.cls_token", "backbone.cls_token"),
        ("timesformer.embeddings.position_embeddings", "backbone.pos_embed"),
        ("timesformer.embeddings.time_embeddings", "backbone.time_embed"),
        ("timesformer.embeddings.patch_embeddings.projection", "backbone.patch_embed.projection"),
        ("timesformer.encoder.layer.", "backbone.transformer_layers.layers."),
        (".temporal_attention.attention.qkv.", ".attentions.0.attn.in_proj_"),
        (".temporal_attention.output.dense", ".attentions.0.attn.out_proj"),
        (".temporal_layernorm", ".attentions.0.norm"),
        (".temporal_dense", ".attentions.0.temporal_fc"),
        (".attention.attention.qkv.", f".{space}.attn.in_proj_"),
        (".attention.output.dense", f".{space}.attn.out_proj"),
        (".layernorm_before", ".attentions.1.norm" if divided else ".norms.0"),
        (".layernorm_after", ".ffns.0.norm" if divided else ".norms.1"),
        (".intermediate.dense", ".ffns.0.layers.0.0"),
        (".output.dense", ".ffns.0.layers.1"),
        ("timesformer.layernorm", "backbone.norm"),
        ("classifier", "cls_head.fc_cls"),
    )


def _renamed(state: State, *replacements: tuple[str, str]) -> State:
    renamed = {}
    for name, tensor in state.items():
        for huggingface, other in replacements:
            name = name.replace(huggingface, other)  # noqa: PLW2901
        renamed[name] = tensor
    return renamed
