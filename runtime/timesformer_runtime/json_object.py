"""JSON from files that anyone may have written, read within limits for both packages."""

from __future__ import annotations

import dataclasses
import json
import math
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timesformer_runtime.errors import InvalidModelError, quoted

_MOST_BYTES = 16 << 20  # a configuration that names 100,000 classes has 5 MB
_DEEPEST = 64  # levels; far above every configuration, and below Python's recursion limit
_MOST_DIGITS = 20  # of an integer of 64 bits; longer ones become floats, which can be infinite


def read_json_object(path: Path) -> dict[str, Any]:
    """Reads a file that holds a JSON object.

    Raises:
        InvalidModelError: The file cannot be read, is too large, or does not hold a JSON object.
    """
    return _as_object(read_json(path), str(path))


def parse_json_object(text: str, name: str) -> dict[str, Any]:
    """Reads a JSON object from a text that messages call ``name``.

    Raises:
        InvalidModelError: The text is too large, or is not a JSON object.
    """
    return _as_object(parse_json(text, name), name)


def read_json(path: Path) -> Any:
    """Reads a file that holds any JSON, in UTF-8.

    Raises:
        InvalidModelError: The file cannot be read, is too large, or is not valid JSON.
    """
    return parse_json(read_text(path), str(path))


def read_text(path: Path) -> str:
    """Reads a text file in UTF-8, with or without a byte order mark.

    Raises:
        InvalidModelError: The file cannot be read, is too large, or is not UTF-8.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
            raise InvalidModelError(f"{path} is not a file; give a file")
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)  # never more, whatever size the file states
    except OSError as error:
        raise InvalidModelError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > _MOST_BYTES:
        raise _too_large(str(path))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidModelError(
            f"{path} cannot be read as UTF-8 ({error.reason} at byte {error.start}); save it as "
            "UTF-8"
        ) from error


def parse_json(text: str, name: str) -> Any:
    """Reads any JSON from a text that messages call ``name``.

    Like Python's ``json``, this function accepts ``NaN`` and ``Infinity``: the code that uses a
    field refuses them. Integers beyond 64 bits become floats.

    Raises:
        InvalidModelError: The text is too large, nested too deep, not Unicode in one of its
            strings, or not valid JSON.
    """
    if len(text) > _MOST_BYTES:
        raise _too_large(name)
    try:
        value = json.loads(text, parse_int=_integer)
    except RecursionError as error:
        raise _too_deep(name) from error
    except ValueError as error:
        raise InvalidModelError(f"{name} is not valid JSON: {error}") from error
    _check_depth_and_text(value, name)
    return value


def whole_number(value: object) -> object:
    """Turns a float such as 8.0 into an integer; returns every other value as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def json_fields(values: Any) -> dict[str, Any]:
    """A dataclass's fields for JSON: numbers that are not finite become null."""
    return {key: finite(value) for key, value in dataclasses.asdict(values).items()}


def finite(value: Any) -> Any:
    """Replaces numbers that are not finite by None, which JSON can write, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)


def _as_object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidModelError(f"{name} holds a {type(value).__name__}, not a JSON object")
    return value


def _check_depth_and_text(value: object, name: str) -> None:
    """Checks the depth and the texts of a value, level by level, without recursion."""
    level = [value]
    for _ in range(_DEEPEST):
        below: list[object] = []
        for item in level:
            if isinstance(item, str):
                _check_text(item, name)
            elif isinstance(item, list):
                below += item
            elif isinstance(item, dict):
                below += item.keys()
                below += item.values()
        if not below:
            return
        level = below
    raise _too_deep(name)


def _check_text(text: str, name: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidModelError(
            f"{name} has text that is not Unicode: {quoted(text)} holds half of a surrogate pair; "
            "correct it"
        ) from error


def _too_large(name: str) -> InvalidModelError:
    return InvalidModelError(
        f"{name} has more than {_MOST_BYTES >> 20} MB; a configuration has less: give another file"
    )


def _too_deep(name: str) -> InvalidModelError:
    return InvalidModelError(
        f"{name} is not valid JSON: it is nested more than {_DEEPEST} levels deep"
    )
