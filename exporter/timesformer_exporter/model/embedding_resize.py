"""Resizes position and time embeddings to another frame size or number of frames.

The PyTorch model resizes them in each forward pass whose input has another size; an export resizes
them once, in advance.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def resize_positions(
    embeddings: Tensor, grid: tuple[int, int], new_grid: tuple[int, int]
) -> Tensor:
    """Resizes position embeddings [1, 1+H'*W', D] to another grid by 2-D nearest neighbour.

    The row of the CLS token stays as it is.
    """
    patches = torch.unflatten(embeddings[:, 1:].transpose(1, 2), 2, grid)
    resized = functional.interpolate(patches, size=new_grid, mode="nearest")
    return torch.cat([embeddings[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)


def resize_times(embeddings: Tensor, frames: int) -> Tensor:
    """Resizes time embeddings [1, T, D] to another number of frames by nearest neighbour."""
    resized = functional.interpolate(embeddings.transpose(1, 2), size=frames, mode="nearest")
    return resized.transpose(1, 2)
