"""A second implementation of TimeSformer: slow, functional, float64, one clip after the other.

This model follows the authors' code, but its structure differs from that of the model under test:
it keeps tokens as ``patches[t][p]`` and a CLS vector, spells out every step, and uses nothing of
torch.nn. It is the reference where transformers is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from timesformer_exporter.model.config import TimesformerConfig
from torch import Tensor

_SELU_ALPHA = 1.6732632423543772
_SELU_SCALE = 1.0507009873554805


@dataclass
class Reference:
    """All results for a batch, in the layouts that the model documents."""

    logits: Tensor
    last_hidden_state: Tensor
    hidden_states: list[Tensor] = field(default_factory=list)
    spatial_attentions: list[Tensor] = field(default_factory=list)
    temporal_attentions: list[Tensor] = field(default_factory=list)
    attentions: list[Tensor] = field(default_factory=list)


@dataclass
class _Clip:
    """The state of one clip between layers: CLS [D] (space-only: [T, D]), patches [T, N, D]."""

    cls: Tensor
    patches: Tensor
    hidden_states: list[Tensor] = field(default_factory=list)
    spatial: list[Tensor] = field(default_factory=list)
    temporal: list[Tensor] = field(default_factory=list)
    joint: list[Tensor] = field(default_factory=list)


def reference_timesformer(
    state: Mapping[str, Tensor], config: TimesformerConfig, pixel_values: Tensor
) -> Reference:
    """Runs the model on clips [B, T, C, H, W]; logits are the CLS features without a head."""
    weights = {name: tensor.double() for name, tensor in state.items()}
    clips = [_Run(weights, config).clip(clip.double()) for clip in pixel_values]
    last = torch.stack([_final(weights, config, clip) for clip in clips])
    logits = last[:, 0]
    if "classifier.weight" in weights:
        logits = logits @ weights["classifier.weight"].T + weights["classifier.bias"]
    stack = torch.stack if config.attention_type != "space_only" else torch.cat
    layers = range(config.num_hidden_layers)
    return Reference(
        logits,
        last,
        [stack([clip.hidden_states[i] for clip in clips]) for i in range(len(layers) + 1)],
        [torch.cat([clip.spatial[i] for clip in clips]) for i in layers if clips[0].spatial],
        [torch.cat([clip.temporal[i] for clip in clips]) for i in layers if clips[0].temporal],
        [torch.stack([clip.joint[i] for clip in clips]) for i in layers if clips[0].joint],
    )


class _Run:
    """Runs one clip through the layers, whose weights it finds by name."""

    def __init__(self, weights: dict[str, Tensor], config: TimesformerConfig) -> None:
        self.weights = weights
        self.config = config
        self.layer = ""

    def clip(self, frames: Tensor) -> _Clip:
        clip = self.embed(frames)
        clip.hidden_states.append(_tokens(clip, self.config))
        step: Callable[[_Clip], None] = {
            "divided_space_time": self.divided,
            "joint_space_time": self.joint,
            "space_only": self.space_only,
        }[self.config.attention_type]
        for index in range(self.config.num_hidden_layers):
            self.layer = f"timesformer.encoder.layer.{index}."
            step(clip)
            clip.cls = clip.cls + self.mlp(clip.cls)
            clip.patches = clip.patches + self.mlp(clip.patches)
            clip.hidden_states.append(_tokens(clip, self.config))
        return clip

    def embed(self, frames: Tensor) -> _Clip:
        weights, (high, wide) = self.weights, self.config.patch_hw
        kernel = weights["timesformer.embeddings.patch_embeddings.projection.weight"].flatten(1)
        bias = weights["timesformer.embeddings.patch_embeddings.projection.bias"]
        positions = weights["timesformer.embeddings.position_embeddings"][0]
        times = weights.get("timesformer.embeddings.time_embeddings")
        rows, columns = frames.shape[2] // high, frames.shape[3] // wide
        old_rows, old_columns = self.config.grid
        patches = torch.empty(len(frames), rows * columns, self.config.hidden_size).double()
        for t, frame in enumerate(frames):
            for row in range(rows):
                for column in range(columns):
                    square = frame[:, row * high : (row + 1) * high]
                    square = square[:, :, column * wide : (column + 1) * wide]
                    old = (row * old_rows // rows) * old_columns + column * old_columns // columns
                    token = kernel @ square.flatten() + bias + positions[1 + old]
                    if times is not None:
                        token = token + times[0, t * times.shape[1] // len(frames)]
                    patches[t, row * columns + column] = token
        cls = weights["timesformer.embeddings.cls_token"][0, 0] + positions[0]
        if self.config.attention_type == "space_only":
            cls = cls.expand(len(frames), -1)
        return _Clip(cls, patches)

    def divided(self, clip: _Clip) -> None:
        frames, patches = clip.patches.shape[:2]
        temporal = []
        moved = clip.patches.clone()
        for patch in range(patches):
            tube = clip.patches[:, patch]
            context, probabilities = self.attention(
                "temporal_attention", self.norm("temporal_layernorm", tube)
            )
            moved[:, patch] = tube + self.linear("temporal_dense", context)
            temporal.append(probabilities)
        clip.temporal.append(torch.stack(temporal))
        spatial, cls_residuals, seen = [], [], moved.clone()
        for t in range(frames):
            image = torch.cat([clip.cls[None], moved[t]])
            context, probabilities = self.attention(
                "attention", self.norm("layernorm_before", image)
            )
            cls_residuals.append(context[0])
            seen[t] = moved[t] + context[1:]
            spatial.append(probabilities)
        clip.spatial.append(torch.stack(spatial))
        clip.cls = clip.cls + sum(cls_residuals) / frames
        clip.patches = seen

    def joint(self, clip: _Clip) -> None:
        frames, patches, hidden = clip.patches.shape
        tokens = torch.cat([clip.cls[None], clip.patches.permute(1, 0, 2).reshape(-1, hidden)])
        context, probabilities = self.attention("attention", self.norm("layernorm_before", tokens))
        tokens = tokens + context
        clip.cls = tokens[0]
        clip.patches = tokens[1:].reshape(patches, frames, hidden).permute(1, 0, 2)
        clip.joint.append(probabilities)

    def space_only(self, clip: _Clip) -> None:
        cls, patches, spatial = [], [], []
        for t in range(len(clip.patches)):
            image = torch.cat([clip.cls[t][None], clip.patches[t]])
            context, probabilities = self.attention(
                "attention", self.norm("layernorm_before", image)
            )
            image = image + context
            cls.append(image[0])
            patches.append(image[1:])
            spatial.append(probabilities)
        clip.cls, clip.patches = torch.stack(cls), torch.stack(patches)
        clip.spatial.append(torch.stack(spatial))

    def mlp(self, tokens: Tensor) -> Tensor:
        wide = self.linear("intermediate.dense", self.norm("layernorm_after", tokens))
        return self.linear("output.dense", _activate(self.config.hidden_act, wide))

    def attention(self, name: str, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [S, D] to their context after the output projection, and [h, S, S]."""
        packed = self.linear(f"{name}.attention.qkv", tokens)
        hidden = self.config.hidden_size
        size = hidden // self.config.num_attention_heads
        contexts, probabilities = [], []
        for head in range(self.config.num_attention_heads):
            query, key, value = (
                packed[:, part * hidden + head * size : part * hidden + (head + 1) * size]
                for part in range(3)
            )
            scores = torch.exp(query @ key.T / math.sqrt(size))
            probabilities.append(scores / scores.sum(dim=1, keepdim=True))
            contexts.append(probabilities[-1] @ value)
        context = self.linear(f"{name}.output.dense", torch.cat(contexts, dim=1))
        return context, torch.stack(probabilities)

    def linear(self, name: str, tokens: Tensor) -> Tensor:
        result = tokens @ self.weights[f"{self.layer}{name}.weight"].T
        bias = self.weights.get(f"{self.layer}{name}.bias")
        return result if bias is None else result + bias

    def norm(self, name: str, tokens: Tensor) -> Tensor:
        return _norm(self.weights, f"{self.layer}{name}", tokens, self.config.layer_norm_eps)


def _final(weights: Mapping[str, Tensor], config: TimesformerConfig, clip: _Clip) -> Tensor:
    """The last hidden state of a clip; space-only: of the mean over its frames."""
    tokens = _tokens(clip, config)
    if config.attention_type == "space_only":
        tokens = tokens.mean(dim=0)
    return _norm(weights, "timesformer.layernorm", tokens, config.layer_norm_eps)


def _tokens(clip: _Clip, config: TimesformerConfig) -> Tensor:
    """CLS first, then patch by patch with time fastest; space-only: frame by frame."""
    if config.attention_type == "space_only":
        return torch.cat([clip.cls[:, None], clip.patches], dim=1)
    ordered = [
        clip.patches[t, p] for p in range(clip.patches.shape[1]) for t in range(len(clip.patches))
    ]
    return torch.stack([clip.cls, *ordered])


def _norm(weights: Mapping[str, Tensor], name: str, tokens: Tensor, eps: float) -> Tensor:
    centred = tokens - tokens.mean(dim=-1, keepdim=True)
    variance = (centred * centred).mean(dim=-1, keepdim=True)
    return (
        centred / torch.sqrt(variance + eps) * weights[f"{name}.weight"] + weights[f"{name}.bias"]
    )


def _activate(name: str, x: Tensor) -> Tensor:
    if name == "gelu":
        return x * (1 + torch.erf(x / math.sqrt(2))) / 2
    if name == "gelu_new":
        return x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
    if name == "relu":
        return x * (x > 0)
    if name == "selu":
        return _SELU_SCALE * torch.where(x > 0, x, _SELU_ALPHA * (torch.exp(x) - 1))
    raise ValueError(name)
