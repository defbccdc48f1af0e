"""Writes a folder whole or not at all: beside its place first, then renamed into it."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from timesformer_exporter.errors import InvalidOptionError, OutputExistsError

REPORT = "export_report.json"
# What an export writes; a folder that holds anything else is not ours to delete.
_WRITTEN = frozenset({"config.json", "preprocessor_config.json", REPORT, "README.md", "onnx"})


def check_output(output: Path, *, force: bool) -> None:
    """Refuses early what could not be written in the end.

    Raises:
        OutputExistsError: The folder is there and ``force`` is not given, or it is there and is
            not an earlier export, which ``force`` does not delete.
        InvalidOptionError: It cannot be a folder of its own, or the folder that would hold it is
            not there or not writable.
    """
    parent = output.absolute().parent
    if output.name in ("", "..") or os.path.ismount(output):
        raise InvalidOptionError(
            f"--output {output} cannot be renamed into place; give a folder inside it"
        )
    try:
        str(output).encode()
    except UnicodeEncodeError as error:
        raise InvalidOptionError(
            f"--output {str(output)!a}: ONNX Runtime opens only paths in UTF-8; give another name"
        ) from error
    if not parent.is_dir():
        raise InvalidOptionError(f"--output {output}: there is no folder {parent}; create it first")
    if not os.access(parent, os.W_OK):
        raise InvalidOptionError(f"--output {output}: the folder {parent} is not writable")
    if not os.path.lexists(output):
        return
    if not force:
        raise OutputExistsError(f"{output} exists; give --force to replace it, or another --output")
    problem = _not_ours(output)
    if problem is not None:
        raise OutputExistsError(
            f"{output} exists and is not an earlier export ({problem}); "
            "--force does not delete it: move it away, or give another --output"
        )


@contextmanager
def staging_folder(output: Path) -> Iterator[Path]:
    """A hidden folder beside ``output`` to write into, gone at the end unless ``publish`` moved it.

    It is removed on any exception, KeyboardInterrupt included.
    """
    parent = output.absolute().parent
    staging = Path(tempfile.mkdtemp(prefix=f".{output.name}.partial-", dir=parent))
    try:
        staging.chmod(0o777 & ~_umask())  # mkdtemp's is for its owner alone
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def publish(staging: Path, output: Path, *, force: bool) -> None:
    """Renames a finished staging folder to ``output``, replacing an earlier export if forced.

    Raises:
        OutputExistsError: ``output`` is there, and may not be replaced.
    """
    check_output(output, force=force)
    replaced = staging.with_name(f"{staging.name}-replaced")
    try:
        if output.exists():
            output.rename(replaced)
        staging.rename(output)
    except BaseException:  # an interrupt between the two renames, too
        if replaced.exists() and not output.exists():
            replaced.rename(output)
        raise
    finally:
        if output.exists():
            shutil.rmtree(replaced, ignore_errors=True)


def write_json(path: Path, values: Any) -> None:
    """Writes readable JSON."""
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _not_ours(folder: Path) -> str | None:
    """Why a folder is no earlier export, or None. An empty folder may be replaced too."""
    if folder.is_symlink():
        return "it is a symbolic link"
    if not folder.is_dir():
        return "it is a file"
    names = {path.name for path in folder.iterdir()}
    if names and REPORT not in names:
        return f"it has no {REPORT}"
    others = sorted(names - _WRITTEN)
    return f"it holds {others[0]}, which no export writes" if others else None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
