"""Writes the file of ``timesformer classify --features``, whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from timesformer_runtime.errors import InvalidOptionError
from timesformer_runtime.whole_file import check_new_file, whole_file


def check_path(path: Path, videos: Sequence[str], model: str) -> None:
    """Checks, before any work, that a features file can be written.

    Args:
        path: The file.
        videos: The videos, which it must not replace.
        model: The model, of which it must not replace a file.

    Raises:
        InvalidOptionError: The name does not end in ``.npz``, or cannot be written to.
    """
    if path.suffix != ".npz":
        raise InvalidOptionError(f"{path}: the features file must end in .npz")
    check_new_file(path, force=True, videos=videos, model=model)


def write(path: Path, videos: Sequence[str], features: Sequence[npt.NDArray[np.float32]]) -> None:
    """Writes ``videos`` [n] (names) and ``features`` float32 [n, hidden]; replaces an older file.

    Raises:
        OutputError: The file cannot be written. An older file stays as it was.
    """
    with whole_file(path) as file:
        np.savez(file, videos=np.array(videos), features=np.stack(features))
