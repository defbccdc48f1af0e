"""Exact rewrites of a loaded model into the form that is traced: less work, the same numbers.

- The patch embedding is one matrix product over flattened patches. For uint8 frames it also
  holds rescaling and normalisation, which are linear too.
- Position and time embeddings are added up beforehand.
- Queries, keys and values have a projection each, instead of a packed one that must be split,
  and the attention scale is in the queries' weights.
- ``temporal_dense`` follows the temporal output projection with nothing between them: one
  matrix does both.
- A classifier reads only the CLS token, so the last layer computes only that: one query a frame
  or clip, and the MLP for one token.

Shapes as in ``model.py``: B clips, T frames, N patches a frame, D hidden size.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from timesformer_exporter.frames_input import FramesInput
from timesformer_exporter.model import (
    Attention,
    DividedLayer,
    Embeddings,
    Layer,
    TimesformerForVideoClassification,
)


class InferenceForm(nn.Module):
    """A TimeSformer that computes the outputs of a task with as little work as possible.

    Args:
        model: The loaded model; its tensors are copied.
        task: ``video-classification`` gives (logits,), ``feature-extraction`` gives
            (last_hidden_state, features).
        frames_input: Preprocessing in the graph, for uint8 frames; None for pixel_values.
    """

    def __init__(
        self,
        model: TimesformerForVideoClassification,
        task: str,
        frames_input: FramesInput | None = None,
    ) -> None:
        super().__init__()
        base = model.timesformer
        config = model.config
        self.classifies = task == "video-classification"
        self.averages_frames = config.attention_type == "space_only"
        self.embeddings = _PatchTokens(base.embeddings, config.patch_hw, frames_input)
        self.layers = nn.ModuleList(
            _rewritten(layer, config.num_frames, cls_only=False) for layer in base.encoder.layer
        )
        if self.classifies:
            self.layers[-1] = _rewritten(base.encoder.layer[-1], config.num_frames, cls_only=True)
        self.layernorm = copy.deepcopy(base.layernorm)
        self.classifier = copy.deepcopy(model.classifier)
        self.num_frames = config.num_frames
        self.eval()

    def forward(self, clips: Tensor) -> tuple[Tensor, ...]:
        """Clips [B, T, C, H, W], or frames uint8 [B, T, H, W, 3], to the outputs of the task."""
        tokens = self.embeddings(clips)
        for layer in self.layers:
            tokens = layer(tokens)
        if self.averages_frames:
            tokens = torch.unflatten(tokens, 0, (-1, self.num_frames)).mean(dim=1)
        tokens = self.layernorm(tokens)
        if self.classifies:
            return (self.classifier(tokens[:, 0]),)
        return tokens, tokens[:, 0]


class _PatchTokens(nn.Module):
    """Clips to tokens: [B, 1+N*T, D], space-only [B*T, 1+N, D]."""

    cls: Tensor
    offsets: Tensor

    def __init__(
        self, embeddings: Embeddings, patch_hw: tuple[int, int], frames_input: FramesInput | None
    ) -> None:
        super().__init__()
        self.patch_hw = patch_hw
        self.grid = embeddings.grid
        self.frames_input = frames_input
        self.projection = _patch_projection(embeddings, frames_input)
        positions = embeddings.position_embeddings.detach()
        offsets = positions[0, 1:].unsqueeze(0)  # [1, N, D], for each frame
        self.across_frames = embeddings.time_embeddings is not None
        if embeddings.time_embeddings is not None:
            offsets = positions[0, 1:].unsqueeze(1) + embeddings.time_embeddings.detach()
            offsets = offsets.flatten(0, 1).unsqueeze(0)  # [1, N*T, D], time fastest
        self.register_buffer("offsets", offsets)
        self.register_buffer("cls", embeddings.cls_token.detach() + positions[:, :1])

    def forward(self, clips: Tensor) -> Tensor:
        if self.frames_input is not None:
            clips = self.frames_input.pixels(clips).to(torch.float32)
        tokens = self.projection(self._flat_patches(clips)) + self.offsets
        return torch.cat([self.cls.expand(tokens.shape[0], -1, -1), tokens], dim=1)

    def _flat_patches(self, clips: Tensor) -> Tensor:
        """Clips [B, T, C, H, W] to [B, N*T, C*h*w], space-only [B*T, N, C*h*w]."""
        (rows, columns), (height, width) = self.grid, self.patch_hw
        batch, frames, channels = clips.shape[:3]
        clips = clips[..., : rows * height, : columns * width]  # as a convolution drops the rest
        patches = clips.reshape(batch, frames, channels, rows, height, columns, width)
        size = channels * height * width
        if self.across_frames:
            patches = patches.permute(0, 3, 5, 1, 2, 4, 6)  # B, rows, columns, T, C, h, w
            return patches.reshape(batch, rows * columns * frames, size)
        patches = patches.permute(0, 1, 3, 5, 2, 4, 6)
        return patches.reshape(batch * frames, rows * columns, size)


def _patch_projection(embeddings: Embeddings, frames_input: FramesInput | None) -> nn.Linear:
    convolution = embeddings.patch_embeddings.projection
    weight, bias = convolution.weight.detach().double(), _bias(convolution).double()
    if frames_input is not None:
        scale, shift = frames_input.scale_and_shift()
        bias = bias + (weight * shift.view(-1, 1, 1)).sum((1, 2, 3))
        weight = weight * scale.view(-1, 1, 1)
    return _linear(weight.flatten(1), bias)


class _CrossAttention(nn.Module):
    """Multi-head attention with separate projections and the scale in the queries' weights."""

    def __init__(self, attention: Attention, output: nn.Linear) -> None:
        super().__init__()
        packed = attention.attention.qkv
        self.num_heads = attention.attention.num_heads
        scale = (packed.in_features // self.num_heads) ** -0.5
        query, key, value = packed.weight.detach().chunk(3)
        biases = _bias(packed).chunk(3)
        self.query = _linear(query * scale, biases[0] * scale)
        self.key = _linear(key, biases[1])
        self.value = _linear(value, biases[2])
        self.output = output

    def context(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """Queries [batch, Q, D] attend to tokens [batch, S, D]; before the output projection."""
        query, key, value = (
            torch.unflatten(x, -1, (self.num_heads, -1)).transpose(1, 2)
            for x in (self.query(queries), self.key(tokens), self.value(tokens))
        )
        context = functional.scaled_dot_product_attention(query, key, value, scale=1.0)
        return context.transpose(1, 2).flatten(2)

    def forward(self, tokens: Tensor) -> Tensor:
        """Self-attention: tokens [batch, S, D] to tokens."""
        return self.output(self.context(tokens, tokens))  # type: ignore[no-any-return]


class _InferenceLayer(nn.Module):
    """Joint or space-only attention, for all tokens or for CLS alone."""

    def __init__(self, layer: Layer, *, cls_only: bool) -> None:
        super().__init__()
        self.cls_only = cls_only
        self.layernorm_before = copy.deepcopy(layer.layernorm_before)
        self.attention = _CrossAttention(
            layer.attention, copy.deepcopy(layer.attention.output.dense)
        )
        self.layernorm_after = copy.deepcopy(layer.layernorm_after)
        self.up = copy.deepcopy(layer.intermediate.dense)
        self.activation = copy.deepcopy(layer.intermediate.activation)
        self.down = copy.deepcopy(layer.output.dense)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [batch, S, D] to tokens, or to CLS [batch, 1, D]."""
        normed = self.layernorm_before(tokens)
        if not self.cls_only:
            return self.mlp(tokens + self.attention(normed))
        context = self.attention.context(normed[:, :1], normed)
        return self.mlp(tokens[:, :1] + self.attention.output(context))

    def mlp(self, tokens: Tensor) -> Tensor:
        """Tokens [batch, S, D] to tokens."""
        branch = self.down(self.activation(self.up(self.layernorm_after(tokens))))
        return tokens + branch  # type: ignore[no-any-return]


class _DividedInferenceLayer(_InferenceLayer):
    """Divided space-time attention, for all tokens or for CLS alone."""

    def __init__(self, layer: DividedLayer, num_frames: int, *, cls_only: bool) -> None:
        super().__init__(layer, cls_only=cls_only)
        self.num_frames = num_frames
        self.temporal_layernorm = copy.deepcopy(layer.temporal_layernorm)
        self.temporal_attention = _CrossAttention(
            layer.temporal_attention,
            _merged(layer.temporal_attention.output.dense, layer.temporal_dense),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [B, 1+N*T, D] to tokens, or to CLS [B, 1, D]."""
        cls, patches = tokens[:, :1], tokens[:, 1:]
        batch, frames = tokens.shape[0], self.num_frames

        tubes = self.temporal_layernorm(patches).reshape(-1, frames, patches.shape[-1])
        residual = self.temporal_attention(tubes)  # [B*N, T, D]
        patches = patches + residual.reshape(batch, -1, patches.shape[-1])

        images = torch.unflatten(patches, 1, (-1, frames)).transpose(1, 2).flatten(0, 1)
        cls_copies = cls.expand(-1, frames, -1).reshape(batch * frames, 1, -1)
        normed = self.layernorm_before(torch.cat([cls_copies, images], dim=1))  # [B*T, 1+N, D]
        if self.cls_only:
            context = self.attention.context(normed[:, :1], normed)
            # The output projection is linear: the mean over frames may come before it.
            context = context.reshape(batch, frames, -1).mean(dim=1, keepdim=True)
            return self.mlp(cls + self.attention.output(context))
        residual = torch.unflatten(self.attention(normed), 0, (batch, frames))
        cls = cls + residual[:, :, 0].mean(dim=1, keepdim=True)
        patches = patches + residual[:, :, 1:].transpose(1, 2).flatten(1, 2)
        return self.mlp(torch.cat([cls, patches], dim=1))


def _rewritten(layer: nn.Module, num_frames: int, *, cls_only: bool) -> nn.Module:
    if isinstance(layer, DividedLayer):
        return _DividedInferenceLayer(layer, num_frames, cls_only=cls_only)
    assert isinstance(layer, Layer)  # noqa: S101 (narrows the type)
    return _InferenceLayer(layer, cls_only=cls_only)


def _merged(first: nn.Linear, second: nn.Linear) -> nn.Linear:
    """One layer that does what ``first`` and then ``second`` do, computed in float64."""
    weight = second.weight.detach().double() @ first.weight.detach().double()
    bias = second.weight.detach().double() @ _bias(first).double() + _bias(second).double()
    return _linear(weight, bias)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")  # its own tensors go
    linear.weight = nn.Parameter(weight.float().clone(), requires_grad=False)
    linear.bias = nn.Parameter(bias.float().clone(), requires_grad=False)
    return linear


def _bias(layer: nn.Linear | nn.Conv2d) -> Tensor:
    if layer.bias is not None:
        return layer.bias.detach()
    return torch.zeros(layer.weight.shape[0], device=layer.weight.device)
