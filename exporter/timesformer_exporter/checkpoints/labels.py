"""Names of classes from a file."""

from __future__ import annotations

import json
from pathlib import Path

from timesformer_exporter.errors import InvalidOptionError


def read_labels(path: Path, count: int) -> dict[int, str]:
    """Reads the names of ``count`` classes.

    The file has one name a line (in the order of the classes), or is JSON: a list of names,
    ``{"0": name}`` or ``{name: 0}``.

    Raises:
        InvalidOptionError: The file cannot be read, or does not name each class once.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidOptionError(f"--labels {path} cannot be read: {error}") from error
    is_json = text.lstrip()[:1] in {"[", "{"}
    pairs = _from_json(path, text) if is_json else list(enumerate(_lines(text)))
    labels: dict[int, str] = {}
    for index, label in pairs:
        if not isinstance(label, str) or not label.strip():
            raise InvalidOptionError(f"--labels {path} has {label!r} as the name of class {index}")
        if index in labels:
            raise InvalidOptionError(f"--labels {path} names class {index} twice")
        labels[index] = label
    if len(labels) != count:
        raise InvalidOptionError(
            f"--labels {path} names {len(labels)} classes, but the checkpoint has {count}"
        )
    missing = sorted(set(range(count)) - set(labels))
    if missing:
        raise InvalidOptionError(f"--labels {path} has no name for class {missing[0]}")
    return {index: labels[index] for index in range(count)}


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


def _from_json(path: Path, text: str) -> list[tuple[int, object]]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidOptionError(f"--labels {path} is not valid JSON: {error}") from error
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
            f"--labels {path} has the key {index!r}; keys must be indices of classes"
        ) from error
