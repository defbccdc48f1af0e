"""The heat of the windows of a video, kept in a file: a long video has thousands of windows."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np

from timesformer_runtime.explain.explanation import Shares, ViewHeat, views_with_heat
from timesformer_runtime.results import View


class WindowHeat(Sequence[ViewHeat]):
    """The views of all windows with their heat, which is read from a file when it is asked for.

    Args:
        folder: Where the temporary file is made; ``close`` removes it.
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # `close` does
        self._views: list[View] = []
        self._shape: tuple[int, ...] = ()  # of the rollout of one view
        self._mapped: Shares | None = None

    def add(self, rollouts: Shares, views: Sequence[View]) -> None:
        """Adds a window.

        Args:
            rollouts: The rollout of each of its views, float32 [views, frames, rows, columns].
            views: Its views.

        Raises:
            OSError: The file cannot be written.
        """
        self._file.write(np.ascontiguousarray(rollouts, np.float32).tobytes())
        self._file.flush()
        self._mapped = None
        self._views += views
        self._shape = rollouts.shape[1:]

    def save(self, path: Path) -> None:
        """Writes the rollouts of all views, float32 [views, frames, rows, columns], as ``.npy``.

        Raises:
            OSError: The file cannot be written.
        """
        np.save(path, self._rollouts())

    def close(self) -> None:
        """Removes the file."""
        self._file.close()

    def __len__(self) -> int:
        return len(self._views)

    @overload
    def __getitem__(self, number: int) -> ViewHeat: ...
    @overload
    def __getitem__(self, number: slice) -> list[ViewHeat]: ...
    def __getitem__(self, number: int | slice) -> ViewHeat | list[ViewHeat]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        view = self._views[number]  # an IndexError from here ends a loop over this object
        return views_with_heat(np.asarray(self._rollouts()[number])[None], [view])[0]

    def _rollouts(self) -> Shares:
        if self._mapped is None:
            shape = (len(self._views), *self._shape)
            self._mapped = np.memmap(self._file, np.float32, mode="r", shape=shape)
        return self._mapped
