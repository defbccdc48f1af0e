"""Exact rewrites of a loaded model into the form that is traced: less work, the same numbers.

- The patch embedding is one matrix product over flattened patches. For uint8 frames it also
  holds rescaling and normalisation, which are linear too.
- The position embedding of CLS is added to CLS beforehand. Those of places and of frames are added
  one after the other: their sums would be as large as a clip's tokens, 58 MB for 96 frames.
- Queries, keys and values have a projection each, instead of a packed one that must be split,
  and the attention scale is in the queries' weights.
- ``temporal_dense`` follows the temporal output projection with nothing between them: one
  matrix does both.
- A classifier reads only the CLS token, so the last layer computes only that: one query a frame
  or clip, and the MLP for one token.
- Divided layers keep their tokens frame by frame, each frame with a copy of CLS, as spatial
  attention needs them. Temporal attention takes the same tokens as sequences of T frames with a
  head for each place and head of the model: nothing is split, transposed or put together again,
  which costs as much as the attention itself. The CLS rows are set after each attention.

Shapes as in ``model.py``: B clips, T frames, N patches a frame, D hidden size, h heads.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from timesformer_exporter.graph.frames_input import FramesInput
from timesformer_exporter.model.config import TimesformerConfig
from timesformer_exporter.model.timesformer import (
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
        attention_operator: Whether attention becomes ONNX's operator of that name, which opset 23
            brings.
    """

    def __init__(
        self,
        model: TimesformerForVideoClassification,
        task: str,
        frames_input: FramesInput | None = None,
        *,
        attention_operator: bool = False,
    ) -> None:
        super().__init__()
        base = model.timesformer
        config = model.config
        self.classifies = task == "video-classification"
        self.attention_type = config.attention_type
        self.embeddings = _PatchTokens(base.embeddings, config, frames_input)
        self.layers = nn.ModuleList(
            _rewritten(layer, config, attention_operator, cls_only=False)
            for layer in base.encoder.layer
        )
        if self.classifies:
            self.layers[-1] = _rewritten(
                base.encoder.layer[-1], config, attention_operator, cls_only=True
            )
        self.layernorm = copy.deepcopy(base.layernorm)
        self.classifier = copy.deepcopy(model.classifier)
        self.num_frames = config.num_frames
        self.eval()

    def forward(self, clips: Tensor) -> tuple[Tensor, ...]:
        """Clips [B, T, C, H, W], or frames uint8 [B, T, H, W, 3], to the outputs of the task."""
        tokens = self.embeddings(clips)
        for layer in self.layers:
            tokens = layer(tokens)
        if self.attention_type == "space_only":
            tokens = torch.unflatten(tokens, 0, (-1, self.num_frames)).mean(dim=1)
        tokens = self.layernorm(tokens)
        if self.classifies:
            return (self.classifier(tokens[:, 0]),)
        tokens = self._in_published_order(tokens)
        return tokens, tokens[:, 0]

    def _in_published_order(self, tokens: Tensor) -> Tensor:
        """The tokens as the original model orders them: CLS, then patch by patch over time."""
        if self.attention_type == "space_only":
            return tokens
        if self.attention_type == "joint_space_time":
            cls, patches = tokens[:, :1], torch.unflatten(tokens[:, 1:], 1, (self.num_frames, -1))
        else:
            tokens = torch.unflatten(tokens, 0, (-1, self.num_frames))
            cls, patches = tokens[:, 0, :1], tokens[:, :, 1:]
        return torch.cat([cls, patches.transpose(1, 2).flatten(1, 2)], dim=1)


class _PatchTokens(nn.Module):
    """Clips to tokens, frame by frame: [B*T, 1+N, D], joint [B, 1+T*N, D]."""

    cls: Tensor
    places: Tensor
    times: Tensor | None

    def __init__(
        self,
        embeddings: Embeddings,
        config: TimesformerConfig,
        frames_input: FramesInput | None,
    ) -> None:
        super().__init__()
        self.patch_hw = config.patch_hw
        self.grid = embeddings.grid
        self.joins_frames = config.attention_type == "joint_space_time"
        self.frames_input = frames_input
        self.projection = _patch_projection(embeddings, frames_input)
        positions = embeddings.position_embeddings.detach()
        times = embeddings.time_embeddings
        self.register_buffer("places", positions[:, 1:])  # [1, N, D]
        self.register_buffer("times", None if times is None else times.detach().transpose(0, 1))
        self.register_buffer("cls", embeddings.cls_token.detach() + positions[:, :1])

    def forward(self, clips: Tensor) -> Tensor:
        if self.frames_input is not None:
            clips = self.frames_input.pixels(clips).to(torch.float32)
        tokens = self.projection(self._flat_patches(clips)) + self.places  # [B, T, N, D]
        if self.times is not None:
            tokens = tokens + self.times  # [T, 1, D]
        tokens = tokens.flatten(1, 2) if self.joins_frames else tokens.flatten(0, 1)
        return torch.cat([self.cls.expand(tokens.shape[0], -1, -1), tokens], dim=1)

    def _flat_patches(self, clips: Tensor) -> Tensor:
        """Clips [B, T, C, H, W] to [B, T, N, C*h*w]."""
        (rows, columns), (height, width) = self.grid, self.patch_hw
        batch, frames, channels = clips.shape[:3]
        clips = clips[..., : rows * height, : columns * width]  # as a convolution drops the rest
        patches = clips.reshape(batch, frames, channels, rows, height, columns, width)
        patches = patches.permute(0, 1, 3, 5, 2, 4, 6)  # B, T, rows, columns, C, h, w
        return patches.reshape(batch, frames, rows * columns, channels * height * width)


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

    def __init__(self, attention: Attention, output: nn.Linear, *, operator: bool) -> None:
        super().__init__()
        packed = attention.attention.qkv
        self.num_heads = attention.attention.num_heads
        self.operator = operator
        scale = (packed.in_features // self.num_heads) ** -0.5
        query, key, value = packed.weight.detach().chunk(3)
        biases = _bias(packed).chunk(3)
        self.query = _linear(query * scale, biases[0] * scale)
        self.key = _linear(key, biases[1])
        self.value = _linear(value, biases[2])
        self.output = output

    def context(self, queries: Tensor, tokens: Tensor, frames: int | None = None) -> Tensor:
        """Queries attend to tokens; before the output projection.

        Args:
            queries: [batch, Q, D].
            tokens: [batch, S, D].
            frames: None: within each sequence. A number: the sequences are frames, and each
                token attends to those at its place in all frames of its clip; then Q is S.
        """
        query, key, value = self.query(queries), self.key(tokens), self.value(tokens)
        if frames is None:
            return self._attend(query, key, value, self.num_heads)
        places = query.shape[1]
        shape = query.shape
        query, key, value = (
            x.reshape(-1, frames, places * x.shape[2]) for x in (query, key, value)
        )
        return self._attend(query, key, value, places * self.num_heads).reshape(shape)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        """Attention over the second axis, the third holds the heads side by side."""
        if self.operator:
            return torch.onnx.ops.attention(
                query, key, value, q_num_heads=heads, kv_num_heads=heads, scale=1.0
            )[0]
        query, key, value = (
            torch.unflatten(x, -1, (heads, -1)).transpose(1, 2) for x in (query, key, value)
        )
        context = functional.scaled_dot_product_attention(query, key, value, scale=1.0)
        return context.transpose(1, 2).flatten(2)

    def forward(self, tokens: Tensor, frames: int | None = None) -> Tensor:
        """Self-attention: tokens [batch, S, D] to tokens."""
        return self.output(self.context(tokens, tokens, frames))  # type: ignore[no-any-return]


class _InferenceLayer(nn.Module):
    """Joint or space-only attention, for all tokens or for CLS alone."""

    def __init__(self, layer: Layer, *, attention_operator: bool, cls_only: bool) -> None:
        super().__init__()
        self.cls_only = cls_only
        self.layernorm_before = copy.deepcopy(layer.layernorm_before)
        self.attention = _CrossAttention(
            layer.attention,
            copy.deepcopy(layer.attention.output.dense),
            operator=attention_operator,
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

    def __init__(
        self,
        layer: DividedLayer,
        config: TimesformerConfig,
        *,
        attention_operator: bool,
        cls_only: bool,
    ) -> None:
        super().__init__(layer, attention_operator=attention_operator, cls_only=cls_only)
        self.num_frames = config.num_frames
        self.temporal_layernorm = copy.deepcopy(layer.temporal_layernorm)
        self.temporal_attention = _CrossAttention(
            layer.temporal_attention,
            _merged(layer.temporal_attention.output.dense, layer.temporal_dense),
            operator=attention_operator,
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [B*T, 1+N, D], CLS the same in all frames, to tokens, or to CLS [B, 1, D]."""
        cls = tokens[:, 0]
        residual = self.temporal_attention(self.temporal_layernorm(tokens), self.num_frames)
        tokens = self._with_cls(tokens + residual, cls)
        normed = self.layernorm_before(tokens)
        if self.cls_only:
            # The output projection is linear: the mean over frames may come before it.
            context = self._mean_over_frames(self.attention.context(normed[:, :1], normed)[:, 0])
            return self.mlp(self._mean_over_frames(cls) + self.attention.output(context))
        attention = self.attention(normed)
        # CLS gets the mean over frames of what attention adds to it.
        mean = self._mean_over_frames(cls + attention[:, 0])
        cls = mean.expand(-1, self.num_frames, -1).flatten(0, 1)
        return self.mlp(self._with_cls(tokens + attention, cls))

    def _mean_over_frames(self, cls: Tensor) -> Tensor:
        """CLS rows [B*T, D] to [B, 1, D]."""
        return cls.reshape(-1, self.num_frames, cls.shape[-1]).mean(dim=1, keepdim=True)

    @staticmethod
    def _with_cls(tokens: Tensor, cls: Tensor) -> Tensor:
        """Tokens [B*T, 1+N, D] with these rows [B*T, D] as CLS."""
        frames = torch.arange(tokens.shape[0])
        return tokens.index_put((frames, torch.zeros_like(frames)), cls)


def _rewritten(
    layer: nn.Module, config: TimesformerConfig, attention_operator: bool, *, cls_only: bool
) -> nn.Module:
    if isinstance(layer, DividedLayer):
        return _DividedInferenceLayer(
            layer, config, attention_operator=attention_operator, cls_only=cls_only
        )
    assert isinstance(layer, Layer)  # noqa: S101 (narrows the type)
    return _InferenceLayer(layer, attention_operator=attention_operator, cls_only=cls_only)


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
