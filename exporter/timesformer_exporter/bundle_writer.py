"""Writes a folder whole or not at all: beside its place first, then renamed into it."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from timesformer_exporter.errors import InvalidOptionError, OutputExistsError

REPORT = "export_report.json"


def check_output(output: Path, *, force: bool) -> None:
    """Refuses early what could not be written in the end.

    Raises:
        OutputExistsError: The folder is there and ``force`` is not given, or it is there and is
            not an earlier export, which ``force`` does not delete.
        InvalidOptionError: The folder that would hold it is not there or not writable.
    """
    parent = output.absolute().parent
    if not parent.is_dir():
        raise InvalidOptionError(f"--output {output}: there is no folder {parent}; create it first")
    if not os.access(parent, os.W_OK):
        raise InvalidOptionError(f"--output {output}: the folder {parent} is not writable")
    if not os.path.lexists(output):
        return
    if not force:
        raise OutputExistsError(f"{output} exists; give --force to replace it, or another --output")
    if not _is_export_or_empty(output):
        raise OutputExistsError(
            f"{output} exists and is not an earlier export (it has no {REPORT}); "
            "--force does not delete it: move it away, or give another --output"
        )


@contextmanager
def staging_folder(output: Path) -> Iterator[Path]:
    """A hidden folder beside ``output`` to write into, gone at the end unless ``publish`` moved it.

    It is removed on any exception, KeyboardInterrupt included.
    """
    staging = output.absolute().parent / f".{output.name}.partial-{os.getpid()}"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir()
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def publish(staging: Path, output: Path, *, force: bool) -> None:
    """Renames a finished staging folder to ``output``, replacing an earlier export if forced.

    Raises:
        OutputExistsError: ``output`` is there, and may not be replaced.
    """
    check_output(output, force=force)
    if not output.exists():
        staging.rename(output)
        return
    replaced = staging.with_name(f"{staging.name}-replaced")
    output.rename(replaced)
    try:
        staging.rename(output)
    except OSError:
        replaced.rename(output)
        raise
    shutil.rmtree(replaced)


def write_json(path: Path, values: Any) -> None:
    """Writes readable JSON."""
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _is_export_or_empty(folder: Path) -> bool:
    if not folder.is_dir() or folder.is_symlink():
        return False
    return (folder / REPORT).is_file() or not any(folder.iterdir())
