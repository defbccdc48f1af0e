"""Files that are written whole or not at all, and never over another one unasked."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from timesformer_runtime.errors import InvalidOptionError, TimesformerError, unwritable

# The files of an exported model, and of models that others exported.
_MODEL_FILE = re.compile(
    r"config\.json|(video_pre|pre|)processor_config\.json|export_report\.json|README\.md"
    r"|.*\.onnx([._]data.*)?"
)


def check_new_file(path: Path, *, force: bool, videos: Iterable[str], model: str) -> None:
    """Checks, before any work, that a file can be written.

    Args:
        path: The file.
        force: True where it may replace an older file; never one that the command reads.
        videos: The videos that the command reads.
        model: The model that the command reads: a path or a Hub id.

    Raises:
        InvalidOptionError: The file exists already, is one that the command reads, or cannot be
            written there.
    """
    if path.is_dir():
        raise InvalidOptionError(f"{path} is a folder; give the name of a file")
    if any(_is_same(path, video) for video in videos):
        raise InvalidOptionError(f"{path} is the video itself; give another name")
    if _is_same(path, model):
        raise InvalidOptionError(f"{path} is the model itself; give another name")
    check_outside_model(path, model)
    if os.path.isfile(model) and _is_beside(path, Path(model)):  # noqa: PTH113 (takes any text)
        raise InvalidOptionError(f"{path} is a file of the model {model}; give another name")
    if path.exists() and not path.is_file():
        raise InvalidOptionError(f"{path} is not a regular file; give the name of a new file")
    if path.exists() and not force:
        raise InvalidOptionError(f"{path} exists already; give another name, or `force`")
    folder = path.parent
    if not folder.is_dir():
        raise InvalidOptionError(f"{path}: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InvalidOptionError(
            f"{path}: the folder {folder} cannot be written to; change its permissions, or write "
            "to another folder"
        )


def check_outside_model(path: Path, model: str) -> None:
    """Checks that results do not get among the files of a model.

    Args:
        path: The file or folder of the results.
        model: The model that the command reads: a path or a Hub id.

    Raises:
        InvalidOptionError: The path is the model's folder, or lies in it.
    """
    if os.path.isdir(model) and _is_in(path, Path(model)):  # noqa: PTH112 (takes any text)
        raise InvalidOptionError(
            f"{path} lies in the folder of the model {model}; write to another folder"
        )


def _is_same(path: Path, other: str) -> bool:
    """Tells if two names lead to one file."""
    try:
        return path.samefile(other)
    except (OSError, ValueError):  # one of them is no file: standard input, a URL, a Hub id
        return False


def _is_in(path: Path, folder: Path) -> bool:
    """Tells if a file, or the file that a link leads to, is in a folder."""
    return any(file.is_relative_to(os.path.realpath(folder)) for file in _real_paths(path))


def _is_beside(path: Path, graph: Path) -> bool:
    """Tells if a file, or the file that a link leads to, is one of the model of a graph."""
    folders = {file.parent for file in _real_paths(graph)}
    folders |= {folder.parent for folder in folders if folder.name == "onnx"}
    return path.exists() and any(
        file.parent in folders and _MODEL_FILE.fullmatch(file.name) for file in _real_paths(path)
    )


def _real_paths(path: Path) -> tuple[Path, Path]:
    """Gives a path in its real folder, and the path to which it leads where it is a link."""
    # realpath also takes links that lead to themselves; Path.resolve raises.
    return Path(os.path.realpath(path.parent), path.name), Path(os.path.realpath(path))


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
        raise unwritable(str(path), error) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
