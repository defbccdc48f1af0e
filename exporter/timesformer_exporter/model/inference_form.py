"""Rewrites a PyTorch TimeSformer into the form that is traced: less work, equal results.

All rewrites are exact, but for rounding.

- The patch embedding is one matrix product over flattened patches. For uint8 frames the weights of
  that product include rescaling and normalisation, which are linear, too.
- The position embedding of CLS is added to CLS in advance. The position embeddings of patches and
  the time embeddings are added one after the other at run time: a constant with their sums would be
  as large as a clip's tokens, 58 MB for 96 frames.
- Queries, keys and values have a projection each, instead of a packed one whose output must be
  split. The queries' weights include the scale of attention.
- The temporal output projection and ``temporal_dense`` follow each other directly: one matrix
  replaces both.
- A classifier reads only the CLS token, so the last layer computes only CLS: one query for each
  frame or clip, and the MLP for one token.
- Divided layers keep the tokens frame by frame, each frame with a copy of CLS, as spatial attention
  needs them. Temporal attention reshapes that tensor to sequences of T frames, with h heads for
  each position in a frame. So no tokens are split, transposed or concatenated, which would cost as
  much as the attention itself. Temporal attention also changes the copies of CLS; the layer then
  restores them. After spatial attention, all copies of CLS get the mean over the frames.

Shapes as in ``timesformer.py``: B clips, T frames, N patches a frame, D hidden size, h heads.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from timesformer_exporter.graph.frames_input import FramesInput
from timesformer_exporter.model.attention_rollout import (
    LONG,
    LayerSteps,
    Rollout,
    Step,
    computed_after,
    roll_out,
)
from timesformer_exporter.model.config import TimesformerConfig
from timesformer_exporter.model.timesformer import (
    Attention,
    DividedLayer,
    Embeddings,
    Layer,
    TimesformerForVideoClassification,
)


class InferenceForm(nn.Module):
    """A TimeSformer that computes only the outputs of a task, with as little work as possible.

    Args:
        model: The PyTorch model; its tensors are copied.
        task: ``video-classification`` gives (logits,), ``feature-extraction`` gives
            (last_hidden_state, features).
        frames_input: Preprocessing in the graph, for uint8 frames; None for pixel_values.
        attention_operator: Use ONNX's operator Attention, which exists from opset 23 on.
        rollout: Adds the output attention_rollout [B, T, rows, columns]; None to leave it out.
    """

    def __init__(
        self,
        model: TimesformerForVideoClassification,
        task: str,
        frames_input: FramesInput | None = None,
        *,
        attention_operator: bool = False,
        rollout: Rollout | None = None,
    ) -> None:
        super().__init__()
        base = model.timesformer
        config = model.config
        self.classifies = task == "video-classification"
        self.attention_type = config.attention_type
        self.embeddings = _PatchTokens(base.embeddings, config, frames_input)
        self.layers = nn.ModuleList(
            _rewritten(layer, config, attention_operator, rollout, cls_only=False)
            for layer in base.encoder.layer
        )
        if self.classifies:
            self.layers[-1] = _rewritten(
                base.encoder.layer[-1], config, attention_operator, rollout, cls_only=True
            )
        self.layernorm = copy.deepcopy(base.layernorm)
        self.classifier = copy.deepcopy(model.classifier)
        self.num_frames = config.num_frames
        self.grid = config.grid
        self.eval()

    def forward(self, clips: Tensor) -> tuple[Tensor, ...]:
        """Computes the outputs for clips [B, T, C, H, W] or frames uint8 [B, T, H, W, 3]."""
        tokens = self.embeddings(clips)
        steps: list[LayerSteps] = []
        for layer in self.layers:
            tokens = layer(tokens, steps)
        if not steps:
            return self._of_the_task(tokens)
        joint = self.attention_type == "joint_space_time"
        shares = roll_out(steps, clips, self.num_frames, joint=joint)
        rolled_out = torch.unflatten(shares, 2, self.grid)
        return *self._of_the_task(tokens), rolled_out

    def _of_the_task(self, tokens: Tensor) -> tuple[Tensor, ...]:
        if self.attention_type == "space_only":
            tokens = torch.unflatten(tokens, 0, (-1, self.num_frames)).mean(dim=1)
        tokens = self.layernorm(tokens)
        if self.classifies:
            return (self.classifier(tokens[:, 0]),)
        tokens = self._in_published_order(tokens)
        return tokens, tokens[:, 0]

    def _in_published_order(self, tokens: Tensor) -> Tensor:
        """Orders tokens as the original model does: CLS, then all frames of each patch in turn."""
        if self.attention_type == "space_only":
            return tokens
        if self.attention_type == "joint_space_time":
            cls, patches = tokens[:, :1], torch.unflatten(tokens[:, 1:], 1, (self.num_frames, -1))
        else:
            tokens = torch.unflatten(tokens, 0, (-1, self.num_frames))
            cls, patches = tokens[:, 0, :1], tokens[:, :, 1:]
        return torch.cat([cls, patches.transpose(1, 2).flatten(1, 2)], dim=1)


class _PatchTokens(nn.Module):
    """Makes tokens of clips, frame by frame: [B*T, 1+N, D]; joint attention: [B, 1+T*N, D]."""

    cls: Tensor
    positions: Tensor
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
        self.register_buffer("positions", positions[:, 1:])  # of the patches, [1, N, D]
        self.register_buffer("times", None if times is None else times.detach().transpose(0, 1))
        self.register_buffer("cls", embeddings.cls_token.detach() + positions[:, :1])

    def forward(self, clips: Tensor) -> Tensor:
        if self.frames_input is not None:
            clips = self.frames_input.pixels(clips).to(torch.float32)
        tokens = self.projection(self._flat_patches(clips)) + self.positions  # [B, T, N, D]
        if self.times is not None:
            tokens = tokens + self.times  # [T, 1, D]
        tokens = tokens.flatten(1, 2) if self.joins_frames else tokens.flatten(0, 1)
        return torch.cat([self.cls.expand(tokens.shape[0], -1, -1), tokens], dim=1)

    def _flat_patches(self, clips: Tensor) -> Tensor:
        """Cuts clips [B, T, C, H, W] into patches of h x w pixels, flattened: [B, T, N, C*h*w]."""
        (rows, columns), (height, width) = self.grid, self.patch_hw
        batch, frames, channels = clips.shape[:3]
        clips = clips[..., : rows * height, : columns * width]  # a convolution drops the rest, too
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


class _AttentionOfQueries(nn.Module):
    """Multi-head attention whose queries may be only some of the tokens, such as CLS.

    Queries, keys and values have separate projections. That of the queries includes the scale of
    attention.
    """

    def __init__(
        self, attention: Attention, output: nn.Linear, *, operator: bool, rollout: Rollout | None
    ) -> None:
        super().__init__()
        packed = attention.attention.qkv
        self.num_heads = attention.attention.num_heads
        self.operator = operator
        self.rollout = rollout
        scale = (packed.in_features // self.num_heads) ** -0.5
        query, key, value = packed.weight.detach().chunk(3)
        biases = _bias(packed).chunk(3)
        self.query = _linear(query * scale, biases[0] * scale)
        self.key = _linear(key, biases[1])
        self.value = _linear(value, biases[2])
        self.output = output

    def context(
        self, queries: Tensor, tokens: Tensor, frames: int | None = None
    ) -> tuple[Tensor, Step | None]:
        """Lets queries attend to tokens.

        Args:
            queries: The tokens that ask, [batch, Q, D].
            tokens: The tokens that they attend to, [batch, S, D].
            frames: None where each query attends to all tokens of its sequence. A number of frames
                for temporal attention: each sequence is a frame, and each token attends to the
                tokens at its position in all frames of its clip; ``queries`` are all tokens then.

        Returns:
            The context [batch, Q, D], before the output projection; and attention rollout's step
            through this attention, None where rollout is not wanted.
        """
        query, key, value = self.query(queries), self.key(tokens), self.value(tokens)
        if frames is None:
            context, scores = self._attend(query, key, value, self.num_heads)
            return context, self._step(query, key, scores)
        positions = query.shape[1]
        shape = query.shape
        query, key, value = (
            x.reshape(-1, frames, positions * x.shape[2]) for x in (query, key, value)
        )
        context, scores = self._attend(query, key, value, positions * self.num_heads)
        return context.reshape(shape), self._temporal_step(scores)

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, heads: int
    ) -> tuple[Tensor, Tensor]:
        """Computes attention over the second axis; the third one holds the heads side by side.

        Returns:
            The context [batch, Q, D]; and the scores before softmax [batch, heads, Q, S], which
            cost nothing where they are not used.
        """
        if self.operator:
            context, _, _, scores = torch.onnx.ops.attention(
                query, key, value, q_num_heads=heads, kv_num_heads=heads, scale=1.0
            )
            return context, scores
        query, key, value = (self._by_head(x, heads) for x in (query, key, value))
        # torch.onnx would compute shapes for PyTorch's own function at run time.
        scores = query @ key.transpose(2, 3)
        context = scores.softmax(dim=3) @ value
        return context.transpose(1, 2).flatten(2), scores

    def _step(self, query: Tensor, key: Tensor, scores: Tensor) -> Step | None:
        if self.rollout is None:
            return None
        if query.shape[1] < LONG:
            return self.rollout.step(scores.softmax(dim=3))
        return self.rollout.long_step(
            self._by_head(query, self.num_heads), self._by_head(key, self.num_heads)
        )

    def _temporal_step(self, scores: Tensor) -> Step | None:
        if self.rollout is None:
            return None
        by_position = torch.unflatten(scores, 1, (-1, self.num_heads))
        return self.rollout.step(by_position[:, 1:].softmax(dim=4))  # without CLS

    @staticmethod
    def _by_head(tokens: Tensor, heads: int) -> Tensor:
        """Tokens [batch, S, D] to [batch, heads, S, D/heads]."""
        return torch.unflatten(tokens, -1, (heads, -1)).transpose(1, 2)

    def forward(self, tokens: Tensor, frames: int | None = None) -> Tensor:
        """Self-attention: tokens [batch, S, D] to tokens."""
        return self.with_step(tokens, frames)[0]

    def with_step(self, tokens: Tensor, frames: int | None = None) -> tuple[Tensor, Step | None]:
        """Self-attention, and rollout's step through it."""
        context, step = self.context(tokens, tokens, frames)
        return self.output(context), step


class _InferenceLayer(nn.Module):
    """Joint or space-only attention, for all tokens or for CLS alone."""

    def __init__(
        self, layer: Layer, *, attention_operator: bool, rollout: Rollout | None, cls_only: bool
    ) -> None:
        super().__init__()
        self.cls_only = cls_only
        self.layernorm_before = copy.deepcopy(layer.layernorm_before)
        self.attention = _AttentionOfQueries(
            layer.attention,
            copy.deepcopy(layer.attention.output.dense),
            operator=attention_operator,
            rollout=rollout,
        )
        self.layernorm_after = copy.deepcopy(layer.layernorm_after)
        self.up = copy.deepcopy(layer.intermediate.dense)
        self.activation = copy.deepcopy(layer.intermediate.activation)
        self.down = copy.deepcopy(layer.output.dense)

    def forward(self, tokens: Tensor, steps: list[LayerSteps] | None = None) -> Tensor:
        """Computes this layer's output [batch, S, D]; with ``cls_only``, of CLS alone.

        ``steps`` gets rollout's steps through the layer, if rollout is wanted.
        """
        normed = self.layernorm_before(tokens)
        if self.cls_only:
            tokens = tokens[:, :1]
            context, step = self.attention.context(normed[:, :1], normed)
            attention = self.attention.output(context)
        else:
            attention, step = self.attention.with_step(normed)
        _keep(steps, step)
        return self.mlp(tokens + computed_after(step, attention))

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
        rollout: Rollout | None,
        cls_only: bool,
    ) -> None:
        super().__init__(
            layer, attention_operator=attention_operator, rollout=rollout, cls_only=cls_only
        )
        self.num_frames = config.num_frames
        self.temporal_layernorm = copy.deepcopy(layer.temporal_layernorm)
        self.temporal_attention = _AttentionOfQueries(
            layer.temporal_attention,
            _merged(layer.temporal_attention.output.dense, layer.temporal_dense),
            operator=attention_operator,
            rollout=rollout,
        )

    def forward(self, tokens: Tensor, steps: list[LayerSteps] | None = None) -> Tensor:
        """Computes this layer's output [B*T, 1+N, D]; with ``cls_only``, of CLS alone, [B, 1, D].

        In ``tokens`` and in the output, all frames of a clip have equal copies of CLS. ``steps``
        gets rollout's steps through the layer, if rollout is wanted.
        """
        cls = tokens[:, 0]
        residual, temporal = self.temporal_attention.with_step(
            self.temporal_layernorm(tokens), self.num_frames
        )
        tokens = self._with_cls(tokens + residual, cls)
        normed = self.layernorm_before(tokens)
        if self.cls_only:
            # The output projection is linear: taking the mean over frames first is less work.
            context, step = self.attention.context(normed[:, :1], normed)
            _keep(steps, step, temporal)
            context = self._mean_over_frames(context[:, 0])
            return self.mlp(self._mean_over_frames(cls) + self.attention.output(context))
        attention, step = self.attention.with_step(normed)
        _keep(steps, step, temporal)
        # Spatial attention changes each frame's copy of CLS differently; all get the mean.
        mean = computed_after(step, self._mean_over_frames(cls + attention[:, 0]))
        cls = mean.expand(-1, self.num_frames, -1).flatten(0, 1)
        return self.mlp(self._with_cls(tokens + attention, cls))

    def _mean_over_frames(self, cls: Tensor) -> Tensor:
        """Averages the CLS rows [B*T, D] of each clip: [B, 1, D]."""
        return cls.reshape(-1, self.num_frames, cls.shape[-1]).mean(dim=1, keepdim=True)

    @staticmethod
    def _with_cls(tokens: Tensor, cls: Tensor) -> Tensor:
        """Replaces CLS in tokens [B*T, 1+N, D] by the rows ``cls`` [B*T, D]."""
        frames = torch.arange(tokens.shape[0])
        return tokens.index_put((frames, torch.zeros_like(frames)), cls)


def _keep(steps: list[LayerSteps] | None, step: Step | None, temporal: Step | None = None) -> None:
    if steps is not None and step is not None:
        steps.append(LayerSteps(step, temporal))


def _rewritten(
    layer: nn.Module,
    config: TimesformerConfig,
    attention_operator: bool,
    rollout: Rollout | None,
    *,
    cls_only: bool,
) -> nn.Module:
    if isinstance(layer, DividedLayer):
        return _DividedInferenceLayer(
            layer,
            config,
            attention_operator=attention_operator,
            rollout=rollout,
            cls_only=cls_only,
        )
    assert isinstance(layer, Layer)  # noqa: S101 (narrows the type)
    return _InferenceLayer(
        layer, attention_operator=attention_operator, rollout=rollout, cls_only=cls_only
    )


def _merged(first: nn.Linear, second: nn.Linear) -> nn.Linear:
    """Makes one layer of ``first`` followed by ``second``; the weights are computed in float64."""
    weight = second.weight.detach().double() @ first.weight.detach().double()
    bias = second.weight.detach().double() @ _bias(first).double() + _bias(second).double()
    return _linear(weight, bias)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")  # without tensors
    linear.weight = nn.Parameter(weight.float().clone(), requires_grad=False)
    linear.bias = nn.Parameter(bias.float().clone(), requires_grad=False)
    return linear


def _bias(layer: nn.Linear | nn.Conv2d) -> Tensor:
    if layer.bias is not None:
        return layer.bias.detach()
    return torch.zeros(layer.weight.shape[0], device=layer.weight.device)
