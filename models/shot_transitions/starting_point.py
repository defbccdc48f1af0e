"""Initial weights that let a small TimeSformer learn within an hour on a CPU."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from timesformer_exporter.model.config import TimesformerConfig
from timesformer_exporter.model.timesformer import (
    Attention,
    DividedLayer,
    Layer,
    TimesformerForVideoClassification,
)
from torch import nn

from models.shot_transitions.labels import LABELS

_EMBEDDING = 2.0  # amplitude of time and position embeddings; that of patches begins at about 0.3
_SHARPNESS = 1.3  # factor of the queries and of the keys that look along time
_COMPARED = 12  # number of the lowest frequencies that are compared between frames
_CHANGE = 0.2  # amplitude of the differences between frames
_TYPICAL = 4.5  # the value that LayerNorm makes of _EMBEDDING at the start
_RANDOM = 0.3  # factor of the random queries and keys, to which the planned ones are added


def small_config(attention_type: str, image_size: int = 64) -> TimesformerConfig:
    """The architecture of the bundled models: 4 layers of 128, 8 frames, patches of 16."""
    return TimesformerConfig(
        image_size=image_size,
        patch_size=16,
        num_frames=8,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=512,
        attention_type=attention_type,
        id2label=dict(enumerate(LABELS)),
        problem_type="single_label_classification",
    )


@dataclass(frozen=True)
class _Dimensions:
    """The initial meaning of each part of a token."""

    content: slice  # the lowest frequencies of the patch
    changes: slice  # their differences from the frame before, the first and the last frame
    ramps: slice  # how late, how far down and how far right the patch is, -1 to 1
    moment: slice  # one-hot: the number of the frame
    position: slice  # one-hot: the number of the patch in the frame


@torch.no_grad()
def start(config: TimesformerConfig, seed: int) -> TimesformerForVideoClassification:
    """Makes the model with which training starts.

    A token begins as the lowest spatial frequencies of its patch, with one number for each frame
    and one for each position in a frame. (From embeddings of zeros, training would take long to
    learn the order of the frames.) Each head that can attend over time begins with the token at its
    own position in one of four frames: the frame itself, the frame before, the first or the last.
    The first layer subtracts these tokens from each other.
    """
    torch.manual_seed(seed)
    model = TimesformerForVideoClassification(config)
    parts = _dimensions(config)
    embeddings, encoder = model.timesformer.embeddings, model.timesformer.encoder
    projection = embeddings.patch_embeddings.projection
    projection.weight.zero_()
    projection.weight[parts.content].copy_(
        torch.from_numpy(frequency_basis(parts.content.stop, config.patch_hw[0]))
    )
    late, down, right = range(parts.ramps.start, parts.ramps.stop)
    positions = embeddings.position_embeddings.zero_()[0, 1:]
    positions[:, parts.position].fill_diagonal_(_EMBEDDING)
    rows, columns = (_EMBEDDING * torch.linspace(-1, 1, n) for n in config.grid)
    positions[:, down] = rows.repeat_interleave(len(columns))
    positions[:, right] = columns.repeat(len(rows))
    if embeddings.time_embeddings is not None:
        times = embeddings.time_embeddings.zero_()[0]
        times[:, parts.moment].fill_diagonal_(_EMBEDDING)
        times[:, late] = _EMBEDDING * torch.linspace(-1, 1, config.num_frames)
    for name, part in encoder.named_modules():
        if isinstance(part, nn.Linear):
            ends_branch = name.endswith(("output.dense", "temporal_dense"))
            nn.init.normal_(part.weight, std=(0.5 if ends_branch else 0.8) / part.in_features**0.5)
    for number, layer in enumerate(encoder.layer):
        assert isinstance(layer, Layer)  # noqa: S101 (narrows the type)
        # Joint attention looks along time in even layers and to the sides in odd ones.
        alternates = config.attention_type == "joint_space_time"
        if config.attention_type != "space_only" and not (alternates and number % 2):
            _look_along_time(_temporal(layer).attention.qkv, config, parts)
        if not alternates or number % 2:
            _look_to_the_sides(layer.attention.attention.qkv, config, parts)
    if config.attention_type != "space_only":
        _take_differences(encoder.layer[0], config, parts)
    model.classifier.get_parameter("weight").zero_()
    return model


def _dimensions(config: TimesformerConfig) -> _Dimensions:
    position = config.hidden_size - config.num_patches
    moment = position - config.num_frames
    ramps = moment - 3
    changes = ramps - 3 * _COMPARED
    return _Dimensions(
        slice(0, changes),
        slice(changes, ramps),
        slice(ramps, moment),
        slice(moment, position),
        slice(position, config.hidden_size),
    )


def _temporal(layer: nn.Module) -> Attention:
    """The attention of a layer that sees other frames: the temporal one, or the joint one."""
    assert isinstance(layer, Layer)  # noqa: S101 (narrows the type)
    return layer.temporal_attention if isinstance(layer, DividedLayer) else layer.attention


def _look_along_time(qkv: nn.Linear, config: TimesformerConfig, parts: _Dimensions) -> None:
    """Sets queries and keys so that each head finds its own position in one of the frames."""
    frames, positions = config.num_frames, config.num_patches
    size = config.hidden_size // config.num_attention_heads
    # Rows that sum to zero do not see the mean that LayerNorm takes away.
    moment, position = (_SHARPNESS * (torch.eye(n) - 1 / n) for n in (frames, positions))
    for head in range(config.num_attention_heads):
        first = head * size
        query = qkv.weight[first : first + size]
        key = qkv.weight[config.hidden_size + first : config.hidden_size + first + size]
        for part in (query, key):
            part.mul_(_RANDOM)
            if config.attention_type == "joint_space_time":  # divided: all keys have its position
                part[frames : frames + positions, parts.position] += position
        key[:frames, parts.moment] += moment
        match head % 4:
            case 0:  # the frame itself
                query[:frames, parts.moment] += moment
            case 1:  # the frame before
                query[: frames - 1, parts.moment] += moment[1:]
            case 2:  # the first frame
                qkv.bias[first] = _SHARPNESS * _TYPICAL
            case _:  # the last frame
                qkv.bias[first + frames - 1] = _SHARPNESS * _TYPICAL


def _look_to_the_sides(qkv: nn.Linear, config: TimesformerConfig, parts: _Dimensions) -> None:
    """Sets queries and keys so that heads look at the top, bottom, left and right of a frame."""
    size = config.hidden_size // config.num_attention_heads
    _, down, right = range(parts.ramps.start, parts.ramps.stop)
    for head in range(config.num_attention_heads):
        first = head * size
        key = config.hidden_size + first
        for start in (first, key):
            qkv.weight[start : start + size].mul_(_RANDOM)
        qkv.weight[key, down if head % 4 < 2 else right] += 1.0 if head % 2 else -1.0
        qkv.bias[first] = _TYPICAL / 2


def _take_differences(layer: nn.Module, config: TimesformerConfig, parts: _Dimensions) -> None:
    """Sets a layer to write the changes between frames into the tokens; its MLP rectifies them."""
    assert isinstance(layer, Layer)  # noqa: S101 (narrows the type)
    attention = _temporal(layer)
    size = config.hidden_size // config.num_attention_heads
    values = attention.attention.qkv.weight[2 * config.hidden_size :]
    written = attention.output.dense.weight[parts.changes]
    written.zero_()
    same = torch.eye(_COMPARED)
    for head in range(4):
        columns = slice(head * size, head * size + _COMPARED)
        values[columns].zero_()
        values[columns, :_COMPARED] = same
        if head:
            written[(head - 1) * _COMPARED : head * _COMPARED, columns] = _CHANGE * same
        else:
            written[:, columns] = -_CHANGE * same.repeat(3, 1)
    if isinstance(layer, DividedLayer):
        layer.temporal_dense.weight[parts.changes].zero_()
        layer.temporal_dense.weight[parts.changes, parts.changes].fill_diagonal_(1.0)
    both = torch.eye(3 * _COMPARED)
    units = layer.intermediate.dense.weight[: 6 * _COMPARED]
    units.zero_()
    units[:, parts.changes] = torch.cat([both, -both])
    out = layer.output.dense.weight
    out[:, 3 * _COMPARED : 6 * _COMPARED] = out[:, : 3 * _COMPARED]  # both signs count alike
    out[:, : 6 * _COMPARED] *= 2


def frequency_basis(count: int, side: int) -> npt.NDArray[np.float32]:
    """The lowest frequencies of brightness and of two colour differences: [count, 3, side, side].

    In natural images amplitudes fall with frequency; the factor 0.5 + frequency compensates that.
    """
    colours = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
    index = np.arange(side)
    waves = np.cos(np.pi * (index + 0.5) * index[:, None] / side)
    waves /= np.linalg.norm(waves, axis=1, keepdims=True)
    order = sorted(
        (math.hypot(u, v) * (1 if colour == 0 else 1.6) + 2.0 * (colour > 0), colour, u, v)
        for colour in range(3)
        for u in range(side)
        for v in range(side)
    )
    basis = [
        np.multiply.outer(colours[colour], np.outer(waves[u], waves[v]))
        * (0.5 + math.hypot(u, v))
        / side
        for _, colour, u, v in order[:count]
    ]
    return np.stack(basis).astype(np.float32)
