"""A pool of rendered clips in a folder: two arrays that grow until all clips are there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.shot_transitions.clips import NUM_FRAMES

MISSING = 255  # the label of a clip that is not rendered yet


@dataclass(frozen=True)
class Pool:
    """Clips uint8 [N, 8, size, size, 3] and their labels uint8 [N], both memory-mapped."""

    clips: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]

    def available(self) -> npt.NDArray[np.int64]:
        """The indices of the clips that are rendered by now."""
        return np.flatnonzero(self.labels != MISSING)


def create_pool(folder: Path, count: int, size: int) -> None:
    """Makes an empty pool, unless the folder already holds one of that shape.

    Raises:
        ValueError: The folder holds a pool of another shape.
    """
    shape = (count, NUM_FRAMES, size, size, 3)
    if (folder / "labels.npy").exists():
        found = open_pool(folder).clips.shape
        if found != shape:
            raise ValueError(f"{folder} holds a pool of shape {found}, not {shape}; name another")
        return
    folder.mkdir(parents=True, exist_ok=True)
    np.lib.format.open_memmap(folder / "clips.npy", "w+", np.uint8, shape).flush()
    np.save(folder / "labels.npy", np.full(count, MISSING, np.uint8))


def open_pool(folder: Path, *, writable: bool = False) -> Pool:
    """Opens the pool in a folder; clips that are rendered later appear in it."""
    mode = "r+" if writable else "r"
    return Pool(
        np.load(folder / "clips.npy", mmap_mode=mode),  # type: ignore[arg-type]
        np.load(folder / "labels.npy", mmap_mode=mode),  # type: ignore[arg-type]
    )
