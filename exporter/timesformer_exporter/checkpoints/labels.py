"""Reads the names of the classes from a file that the user gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from timesformer_runtime.errors import InvalidModelError, quoted
from timesformer_runtime.json_object import parse_json, read_text

from timesformer_exporter.errors import InvalidOptionError


def read_labels(path: Path, count: int) -> dict[int, str]:
    """Reads the names of ``count`` classes.

    The file has one name a line (in the order of the classes), or is JSON: a list of names,
    ``{"0": name}`` or ``{name: 0}``.

    Raises:
        InvalidOptionError: The file cannot be read, or does not name each class once.
    """
    try:
        text = read_text(path)
        is_json = text.lstrip()[:1] in {"[", "{"}
        values = parse_json(text, str(path)) if is_json else _lines(text)
    except InvalidModelError as error:
        raise InvalidOptionError(f"`labels` {error}") from error
    pairs = _pairs(path, values)
    labels: dict[int, str] = {}
    for index, label in pairs:
        if not isinstance(label, str) or not label.strip():
            raise InvalidOptionError(
                f"`labels` {path} has {quoted(label)} as the name of class {index}"
            )
        if index in labels:
            raise InvalidOptionError(f"`labels` {path} names class {index} twice")
        labels[index] = label
    if len(labels) != count:
        raise InvalidOptionError(
            f"`labels` {path} names {len(labels)} classes, but the checkpoint has {count}"
        )
    missing = sorted(set(range(count)) - set(labels))
    if missing:
        raise InvalidOptionError(f"`labels` {path} has no name for class {missing[0]}")
    return {index: labels[index] for index in range(count)}


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


def _pairs(path: Path, values: Any) -> list[tuple[int, object]]:
    if isinstance(values, list):
        return list(enumerate(values))
    if all(isinstance(value, int) for value in values.values()):
        return [(index, label) for label, index in values.items()]
    return [(_index(path, index), label) for index, label in values.items()]


def _index(path: Path, index: str) -> int:
    try:
        return int(index)
    except ValueError as error:
        raise InvalidOptionError(
            f"`labels` {path} has the key {quoted(index)}; keys must be indices of classes"
        ) from error
