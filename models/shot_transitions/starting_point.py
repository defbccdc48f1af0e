"""Initial weights that let a small TimeSformer learn within an hour on a CPU."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from timesformer_exporter.config import TimesformerConfig
from timesformer_exporter.model import TimesformerForVideoClassification
from torch import nn

from models.shot_transitions.labels import LABELS

_TIME, _PLACE = 0.5, 0.3  # amplitudes of the embeddings; patches start with about 0.5


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


@torch.no_grad()
def start(config: TimesformerConfig, seed: int) -> TimesformerForVideoClassification:
    """A model to train from.

    Patches begin as their lowest spatial frequencies, places and times as sinusoids (zeros would
    hide the order of the frames for a long time), and branches small.
    """
    torch.manual_seed(seed)
    model = TimesformerForVideoClassification(config)
    embeddings = model.timesformer.embeddings
    basis = frequency_basis(config.hidden_size, config.patch_hw[0])
    embeddings.patch_embeddings.projection.weight.copy_(torch.from_numpy(basis))
    rows, columns = config.grid
    place = _PLACE * np.concatenate(
        [
            np.repeat(_sinusoids(rows, config.hidden_size // 2), columns, axis=0),
            np.tile(_sinusoids(columns, config.hidden_size // 2), (rows, 1)),
        ],
        axis=1,
    )
    embeddings.position_embeddings[0, 1:].copy_(torch.from_numpy(place))
    if embeddings.time_embeddings is not None:
        times = _TIME * _sinusoids(config.num_frames, config.hidden_size)
        embeddings.time_embeddings[0].copy_(torch.from_numpy(times))
    for name, part in model.timesformer.encoder.named_modules():
        if isinstance(part, nn.Linear):
            ends_branch = name.endswith(("output.dense", "temporal_dense"))
            nn.init.normal_(part.weight, std=(0.5 if ends_branch else 0.8) / part.in_features**0.5)
    model.classifier.get_parameter("weight").zero_()
    return model


def frequency_basis(count: int, side: int) -> npt.NDArray[np.float32]:
    """The lowest frequencies of brightness and of two colour differences: [count, 3, side, side].

    Natural images have amplitudes that fall with frequency; the scale makes up for it.
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


def _sinusoids(positions: int, size: int) -> npt.NDArray[np.float32]:
    """Sines and cosines of wavelengths from 2 positions to 4 times all: [positions, size]."""
    wavelengths = np.geomspace(2.5, 4 * positions, size // 2)
    phase = 2 * np.pi * np.arange(positions)[:, None] / wavelengths
    return np.concatenate([np.sin(phase), np.cos(phase)], axis=1).astype(np.float32)
