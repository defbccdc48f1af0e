"""Attention rollout with full matrices over all tokens, for tests: slow, and of another structure.

Follows what others published for this model: an attention becomes a matrix between all tokens
(patch, frame), CLS included, of which each frame has a copy. Residuals are added, rows are
normalised, the matrices of a layer and of all layers are multiplied, and the row of CLS is read.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from timesformer_exporter.model.config import TimesformerConfig
from torch import Tensor

from tests.reference_timesformer import Reference

Residual = Callable[[Tensor], Tensor]
JOINS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda heads: heads.mean(0),
    "max": lambda heads: heads.max(0).values,
    "min": lambda heads: heads.min(0).values,
}


def naive_rollout(
    reference: Reference,
    config: TimesformerConfig,
    batch: int,
    frames: int,
    *,
    residual: float = 0.5,
    heads: str = "mean",
) -> Tensor:
    """The shares of all patches, float64 [batch, frames, rows, columns]."""
    one_clip = {
        "divided_space_time": _divided,
        "joint_space_time": _joint,
        "space_only": _space_only,
    }[config.attention_type]

    def with_residual(probabilities: Tensor) -> Tensor:
        joined = JOINS[heads](probabilities)
        matrix = (1 - residual) * joined + residual * torch.eye(len(joined)).double()
        return matrix / matrix.sum(1, keepdim=True)

    maps = [one_clip(reference, with_residual, clip, frames) for clip in range(batch)]
    return torch.stack(maps).reshape(batch, frames, *config.grid)


def _divided(reference: Reference, with_residual: Residual, clip: int, frames: int) -> Tensor:
    tokens = reference.spatial_attentions[0].shape[-1]  # of a frame, with CLS
    result = torch.eye(frames * tokens).double()
    layers = zip(reference.spatial_attentions, reference.temporal_attentions, strict=True)
    for spatial, temporal in layers:
        space = torch.zeros(frames, tokens, frames, tokens).double()
        for t in range(frames):
            space[t, :, t, :] = with_residual(spatial[clip * frames + t])
        space[:, 0] = space[:, 0].mean(0, keepdim=True)  # the layer averages CLS over the frames
        time = torch.zeros(frames, tokens, frames, tokens).double()
        time[:, 0, :, 0] = torch.eye(frames)  # CLS takes no part
        for patch in range(tokens - 1):
            tube = temporal[clip * (tokens - 1) + patch]
            time[:, patch + 1, :, patch + 1] = with_residual(tube)
        size = frames * tokens
        result = space.reshape(size, size) @ time.reshape(size, size) @ result
    rows = result.reshape(frames, tokens, frames, tokens)[:, 0]
    return rows.mean(0)[:, 1:]


def _joint(reference: Reference, with_residual: Residual, clip: int, frames: int) -> Tensor:
    result = torch.eye(reference.attentions[0].shape[-1]).double()
    for attention in reference.attentions:
        result = with_residual(attention[clip]) @ result
    return result[0, 1:].reshape(-1, frames).T  # patch by patch, time fastest


def _space_only(reference: Reference, with_residual: Residual, clip: int, frames: int) -> Tensor:
    maps = []
    for t in range(frames):
        result = torch.eye(reference.spatial_attentions[0].shape[-1]).double()
        for attention in reference.spatial_attentions:
            result = with_residual(attention[clip * frames + t]) @ result
        maps.append(result[0, 1:] / frames)
    return torch.stack(maps)
