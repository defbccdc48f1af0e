"""Reads the text files of a dataset: lists, tables and JSON."""

from __future__ import annotations

import csv
import json
import stat
from pathlib import Path
from typing import Any

from timesformer_runtime.errors import InvalidOptionError

_MOST_BYTES = 1 << 28  # the list of a million videos takes 100 MB


def read_text(path: Path, *, wanted: str, remedy: str) -> str:
    """Reads a text file in UTF-8, with or without a byte order mark.

    Args:
        path: The file.
        wanted: The content that the file should have, such as ``a list of videos``, for errors.
        remedy: The advice of an error, such as ``give a list``.

    Raises:
        InvalidOptionError: The file cannot be read, is too large, or is not UTF-8.
    """
    try:
        is_file = stat.S_ISREG(path.stat().st_mode)
        content = b""
        if is_file:  # opening a pipe would wait for its writer
            with path.open("rb") as file:
                content = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", error)
        raise InvalidOptionError(f"{path} cannot be read: {reason}; {remedy}") from error
    if not is_file:
        raise InvalidOptionError(f"{path} is not a file; {remedy}")
    if len(content) > _MOST_BYTES:
        raise InvalidOptionError(
            f"{path} has more than {_MOST_BYTES >> 20} MB; {wanted} has less: split it"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidOptionError(
            f"{path} is not {wanted} in UTF-8 ({error.reason} at byte {error.start}); {remedy}, "
            "and save it as UTF-8"
        ) from error


def fields_of(line: str, separator: str, name: str) -> list[str]:
    """Splits a line of CSV; messages call the line ``name``.

    Raises:
        InvalidOptionError: The line is not CSV.
    """
    try:
        return next(csv.reader([line], delimiter=separator))
    except csv.Error as error:
        raise InvalidOptionError(f"{name} is not valid CSV: {error}") from error


def several_of(text: str) -> list[str]:
    """Splits several labels, which are separated by ``|`` or ``;``."""
    return [label.strip() for label in text.replace(";", "|").split("|")]


def parse_json(text: str, name: str) -> Any:
    """Reads any JSON from a text that messages call ``name``.

    Raises:
        InvalidOptionError: The text is not valid JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidOptionError(f"{name} is not valid JSON: {error}") from error
