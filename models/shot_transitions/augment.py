"""Augments clips, and changes their labels where mirroring or reversing changes the class."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.shot_transitions.labels import FLIPPED, MIRRORED, REVERSED, TRANSPOSED

Clip = npt.NDArray[np.uint8]  # [T, H, W, 3]
Planes = npt.NDArray[np.float32]

MEAN, STD = 0.45, 0.225


def mirror(clip: Clip, label: int) -> tuple[Clip, int]:
    """Left and right exchanged."""
    return clip[:, :, ::-1], MIRRORED[label]


def flip(clip: Clip, label: int) -> tuple[Clip, int]:
    """Top and bottom exchanged."""
    return clip[:, ::-1], FLIPPED[label]


def transpose(clip: Clip, label: int) -> tuple[Clip, int]:
    """Rows and columns exchanged."""
    return clip.transpose(0, 2, 1, 3), TRANSPOSED[label]


def reverse(clip: Clip, label: int) -> tuple[Clip, int]:
    """Played backwards."""
    return clip[::-1], REVERSED[label]


def crop(clip: Clip, top: int, left: int, size: int) -> Clip:
    """The square of ``size`` pixels that begins at a corner."""
    return clip[:, top : top + size, left : left + size]


def augmented(rng: np.random.Generator, clip: Clip, label: int, size: int) -> tuple[Planes, int]:
    """Makes a random variation of a clip as the model's input [T, 3, size, size], and its label.

    The variation is a crop, mirroring, flip, transposition, time reversal, permutation of channels
    and change of colours. The change of colours is equal for all frames and pixels, so that flat
    areas stay flat and still scenes stay still.
    """
    room = clip.shape[1] - size
    top, left = rng.integers(0, room + 1, 2)
    clip = crop(clip, int(top), int(left), size)
    for symmetry in (mirror, flip, transpose, reverse):
        if rng.random() < 0.5:
            clip, label = symmetry(clip, label)
    tables = _random_tables(rng)
    channels = rng.permutation(3)
    planes = np.empty((clip.shape[0], 3, size, size), dtype=np.float32)
    for target, source in enumerate(channels):
        np.take(tables[target], clip[..., source], out=planes[:, target])
    return planes, label


def normalised(clips: npt.NDArray[np.uint8]) -> Planes:
    """Clips uint8 [B, T, H, W, 3] as the model's input, float32 [B, T, 3, H, W]."""
    scaled = (clips.astype(np.float32) / 255 - MEAN) / STD
    return np.ascontiguousarray(scaled.transpose(0, 1, 4, 2, 3))


def _random_tables(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Draws curves of colour: the normalised value of each of 256 levels, float32 [3, 256]."""
    values = np.linspace(0, 1, 256)
    if rng.random() < 0.3:
        values = 1 - values
    gamma = np.exp(rng.normal(0, 0.25)) * np.exp(rng.normal(0, 0.08, (3, 1)))
    contrast = np.exp(rng.normal(0, 0.2)) * np.exp(rng.normal(0, 0.08, (3, 1)))
    shift = rng.normal(0, 0.06) + rng.normal(0, 0.03, (3, 1))
    curves = (values**gamma - 0.5) * contrast + 0.5 + shift
    tables: npt.NDArray[np.float64] = (np.clip(curves, 0, 1) - MEAN) / STD
    return tables.astype(np.float32)
