"""Position and time embeddings for another frame size or number of frames.

The model does this in its forward pass on such input; an export does it once in advance.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def resize_positions(
    embeddings: Tensor, grid: tuple[int, int], new_grid: tuple[int, int]
) -> Tensor:
    """Position embeddings [1, 1+H'*W', D] for another grid, by 2-D nearest neighbour.

    The row of the CLS token stays as it is.
    """
    patches = torch.unflatten(embeddings[:, 1:].transpose(1, 2), 2, grid)
    resized = functional.interpolate(patches, size=new_grid, mode="nearest")
    return torch.cat([embeddings[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)


def resize_times(embeddings: Tensor, frames: int) -> Tensor:
    """Time embeddings [1, T, D] for another number of frames, by nearest neighbour."""
    resized = functional.interpolate(embeddings.transpose(1, 2), size=frames, mode="nearest")
    return resized.transpose(1, 2)
