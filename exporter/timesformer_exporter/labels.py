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
    labels = _from_json(path, text) if text.lstrip()[:1] in {"[", "{"} else _from_lines(text)
    if len(labels) != count:
        raise InvalidOptionError(
            f"--labels {path} names {len(labels)} classes, but the checkpoint has {count}"
        )
    missing = sorted(set(range(count)) - set(labels))
    if missing:
        raise InvalidOptionError(f"--labels {path} has no name for class {missing[0]}")
    empty = [index for index, label in labels.items() if not label.strip()]
    if empty:
        raise InvalidOptionError(f"--labels {path} has an empty name for class {empty[0]}")
    return dict(sorted(labels.items()))


def _from_lines(text: str) -> dict[int, str]:
    return dict(enumerate(line.strip() for line in text.strip().splitlines()))


def _from_json(path: Path, text: str) -> dict[int, str]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidOptionError(f"--labels {path} is not valid JSON: {error}") from error
    if isinstance(values, list):
        pairs = list(enumerate(values))
    elif all(isinstance(value, int) for value in values.values()):
        pairs = [(index, label) for label, index in values.items()]
    else:
        pairs = [(_index(path, index), label) for index, label in values.items()]
    labels = dict(pairs)
    if not all(isinstance(label, str) for label in labels.values()):
        raise InvalidOptionError(f"--labels {path} has a name that is not a string")
    if len(labels) != len(pairs):
        raise InvalidOptionError(f"--labels {path} names a class twice")
    return labels


def _index(path: Path, index: str) -> int:
    try:
        return int(index)
    except ValueError as error:
        raise InvalidOptionError(
            f"--labels {path} has the key {index!r}; keys must be indices of classes"
        ) from error
