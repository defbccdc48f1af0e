"""Attention rollout (arXiv 2005.00928): how much of each patch reaches the answer.

A layer mixes its tokens: A is its matrix of attention probabilities, the mean over the heads, and a
residual connection passes each token on beside it. Rollout takes ``0.5 * A + 0.5 * I`` for a layer,
and multiplies the layers. The answer reads only CLS, so only the row of CLS is wanted. This module
carries that row from the last layer to the first one: a product of a row and a matrix for each
attention, and no matrix over all tokens of a clip with divided attention.

Divided layers first mix the frames of each patch, and then the tokens of each frame. CLS takes no
part in the first step. In the second one each frame has a copy of CLS, and the layer gives CLS the
mean of the copies; so the share of CLS is spread evenly over its copies before the row goes through
the layer. The final CLS of space-only attention is the mean over the frames, too.

Shapes: B clips, T frames, N patches a frame, h heads. A row is [..., 1, tokens].
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from timesformer_exporter.model.timesformer import TimesformerOutput
from timesformer_exporter.options import RolloutHeads

# From the shares of an attention's outputs [..., 1, Q] to those of its inputs [..., 1, S].
Step = Callable[[Tensor], Tensor]

ROLLOUT = "attention_rollout"  # the name of the output

LONG = 300  # tokens; from here on the probabilities of all heads would take too much memory at once
_BLOCK = 200  # queries


@dataclass(frozen=True)
class Rollout:
    """The choices that rollout leaves open.

    Attributes:
        residual: The weight of the residual connection; attention has the rest.
        heads: Makes one matrix of those of all heads.
    """

    residual: float = 0.5
    heads: RolloutHeads = "mean"

    def step(self, probabilities: Tensor) -> Step:
        """The step through an attention, whose heads are joined at once.

        Args:
            probabilities: [..., h, Q, S]. Where there is one query, it is that of the first token.
        """
        return JoinedStep(self, self._joined(probabilities))

    def long_step(self, query: Tensor, key: Tensor) -> Step:
        """The step through an attention over long sequences, in blocks of queries.

        The probabilities are computed again when the row comes by, and only for some queries at a
        time. Until then only queries and keys are in memory.

        Args:
            query: Scaled queries [..., h, Q, D/h].
            key: Keys [..., h, S, D/h].
        """
        return functools.partial(self._carry_in_blocks, query=query, key=key)

    def _joined(self, probabilities: Tensor) -> Tensor:
        if self.heads == "mean":
            return probabilities.mean(dim=-3)
        join = torch.amax if self.heads == "max" else torch.amin
        return join(probabilities, dim=-3)

    def carry(self, row: Tensor, attention: Tensor) -> Tensor:
        """Takes a row through the joined matrix of an attention."""
        row = self._normalised(_padded(row, attention.shape[-2]), attention)
        kept = _padded(row, attention.shape[-1])
        return self._sum(row @ attention, kept)

    def _carry_in_blocks(self, row: Tensor, query: Tensor, key: Tensor) -> Tensor:
        row = _padded(row, query.shape[-2])
        attended, kept = [], []
        for part, queries in zip(
            torch.split(row, _BLOCK, -1), torch.split(query, _BLOCK, -2), strict=True
        ):
            probabilities = (queries @ key.transpose(-1, -2)).softmax(dim=-1)
            if self.heads == "mean":  # the row first, which is less work than the mean
                attended.append((part.unsqueeze(-3) @ probabilities).mean(dim=-3))
                kept.append(part)
            else:
                joined = self._joined(probabilities)
                kept.append(self._normalised(part, joined))
                attended.append(kept[-1] @ joined)
        return self._sum(functools.reduce(torch.add, attended), torch.cat(kept, dim=-1))

    def _normalised(self, row: Tensor, attention: Tensor) -> Tensor:
        """Divides by the sums of the matrix's rows, residual included; those of a mean are 1."""
        if self.heads == "mean":
            return row
        sums = (1 - self.residual) * attention.sum(dim=-1) + self.residual
        return row / sums.unsqueeze(-2)

    def _sum(self, attended: Tensor, kept: Tensor) -> Tensor:
        return (1 - self.residual) * attended + self.residual * kept


@dataclass(frozen=True)
class JoinedStep:
    """The step through an attention whose heads are joined.

    Attributes:
        rollout: The choices.
        attention: The matrix of all heads, [..., Q, S].
    """

    rollout: Rollout
    attention: Tensor

    def __call__(self, row: Tensor) -> Tensor:
        """Carries the row [..., 1, Q]."""
        return self.rollout.carry(row, self.attention)


def computed_after(step: Step | None, tokens: Tensor) -> Tensor:
    """Gives tokens as they are, but computed after the matrix of a step.

    ONNX Runtime would leave all matrices to the end of the graph, and keep the scores of all heads
    of all layers until then: a third more memory.
    """
    if not isinstance(step, JoinedStep):
        return tokens
    never = step.attention.flatten()[0] < 0  # it is a probability
    return torch.where(never, torch.nan, tokens)


@dataclass(frozen=True)
class LayerSteps:
    """The steps through one layer.

    Attributes:
        attention: Through the attention over a frame (divided, space-only) or a clip (joint).
        temporal: Through temporal attention, [B, N, 1, T] to [B, N, 1, T]; None where there is
            none.
    """

    attention: Step
    temporal: Step | None = None


def roll_out(layers: Sequence[LayerSteps], clips: Tensor, frames: int, *, joint: bool) -> Tensor:
    """Carries the row of CLS from the last layer to the first one.

    Args:
        layers: The steps of all layers, the first layer first.
        clips: Any tensor whose first axis is the clip.
        frames: T.
        joint: True where the tokens of a whole clip attend to each other.

    Returns:
        The shares of the patches, float32 [B, T, N]. They sum to at most 1; CLS has the rest.
    """
    sequences = clips.shape[0] if joint else clips.shape[0] * frames
    share = 1.0 if joint else 1 / frames
    row = torch.full((sequences, 1, 1), share, dtype=torch.float32, device=clips.device)
    for layer in reversed(layers):
        row = layer.attention(row)
        if layer.temporal is not None:
            row = _through_time(row, layer.temporal, frames)
    return torch.unflatten(row[:, 0, 1:].reshape(clips.shape[0], -1), 1, (frames, -1))


def roll_out_attentions(output: TimesformerOutput, rollout: Rollout, clips: Tensor) -> Tensor:
    """Rolls out the attention probabilities of the PyTorch model; see ``roll_out``.

    Args:
        output: The model's output, with attentions.
        rollout: The choices that rollout leaves open.
        clips: The clips [B, T, C, H, W] of the output.
    """
    batch, frames = clips.shape[:2]
    temporal: list[Step | None] = [
        rollout.step(torch.unflatten(attention, 0, (batch, -1)))
        for attention in output.temporal_attentions
    ]
    joint = bool(output.attentions)
    steps = [
        rollout.step(_by_frame(attention, frames) if joint else attention)
        for attention in output.attentions or output.spatial_attentions
    ]
    layers = map(LayerSteps, steps, temporal or [None] * len(steps))
    return roll_out([*layers], clips, frames, joint=joint)


def _by_frame(attention: Tensor, frames: int) -> Tensor:
    """Puts tokens in the order of this module: patches frame by frame, not patch by patch."""
    patches = torch.arange(1, attention.shape[-1], device=attention.device)
    order = torch.unflatten(patches, 0, (-1, frames)).T.flatten()
    order = functional.pad(order, (1, 0))  # CLS stays the first
    return attention[..., order, :][..., order]


def _padded(row: Tensor, length: int) -> Tensor:
    """Gives a row, which may be that of CLS alone, a share of 0 for all other tokens."""
    missing = length - row.shape[-1]
    return functional.pad(row, (0, missing)) if missing else row


def _through_time(row: Tensor, temporal: Step, frames: int) -> Tensor:
    """Takes the row [B*T, 1, 1+N] through temporal attention, and spreads CLS over its copies."""
    row = torch.unflatten(row[:, 0], 0, (-1, frames))
    cls = row[:, :, :1].mean(dim=1, keepdim=True).expand(-1, frames, -1)
    tubes = temporal(row[:, :, 1:].transpose(1, 2).unsqueeze(2))  # [B, N, 1, T]
    return torch.cat([cls, tubes.squeeze(2).transpose(1, 2)], dim=2).flatten(0, 1).unsqueeze(1)
