"""Writes the file of ``timesformer classify --features``, whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from timesformer_runtime.errors import InvalidOptionError, OutputError


def check_path(path: Path) -> None:
    """Checks, before any work, that a features file can be written.

    Raises:
        InvalidOptionError: The name does not end in ``.npz``, or its folder cannot be written to.
    """
    if path.suffix != ".npz":
        raise InvalidOptionError(f"{path}: the features file must end in .npz")
    if path.is_dir():
        raise InvalidOptionError(f"{path}: is a folder; give the name of a file")
    folder = path.parent
    if not folder.is_dir():
        raise InvalidOptionError(f"{path}: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InvalidOptionError(f"{path}: the folder {folder} cannot be written to")


def write(path: Path, videos: Sequence[str], features: Sequence[npt.NDArray[np.float32]]) -> None:
    """Writes ``videos`` [n] (names) and ``features`` float32 [n, hidden]; replaces an older file.

    Raises:
        OutputError: The file cannot be written. An older file stays as it was.
    """
    try:
        _replace(path, videos, features)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written: {error.strerror or error}; make room, or give another file"
        ) from error


def _replace(
    path: Path, videos: Sequence[str], features: Sequence[npt.NDArray[np.float32]]
) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as file:
        temporary = Path(file.name)
        try:
            np.savez(file, videos=np.array(videos), features=np.stack(features))
            file.flush()
            temporary.chmod(0o666 & ~_umask())  # temporary files start as private
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
