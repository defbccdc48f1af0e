"""Files that are written whole or not at all, and never over another one unasked."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from timesformer_runtime.errors import InvalidOptionError, OutputError, TimesformerError


def check_new_file(path: Path, *, force: bool) -> None:
    """Checks, before any work, that a file can be written.

    Args:
        path: The file.
        force: True where it may replace an older file.

    Raises:
        InvalidOptionError: The file exists already, or cannot be written there.
    """
    if path.is_dir():
        raise InvalidOptionError(f"{path}: is a folder; give the name of a file")
    if path.exists() and not path.is_file():
        raise InvalidOptionError(f"{path}: is not a regular file; give the name of a new file")
    if path.exists() and not force:
        raise InvalidOptionError(f"{path}: exists already; give another name, or `force`")
    folder = path.parent
    if not folder.is_dir():
        raise InvalidOptionError(f"{path}: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InvalidOptionError(f"{path}: the folder {folder} cannot be written to")


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a hidden file that takes its name, and replaces an older one, at the end of the block.

    If the block fails, the hidden file is removed and an older one stays as it was.

    Raises:
        OutputError: The file cannot be written.
    """
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            try:
                yield cast(BinaryIO, file)
                file.flush()
                temporary.chmod(0o666 & ~_umask())  # temporary files start as private
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except TimesformerError:  # of the block; some of them are OSErrors, too
        raise
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written: {error.strerror or error}; make room, or write to another "
            "folder"
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
