"""A labels file: the names that belong to the numbers of a list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from timesformer_runtime.errors import InvalidOptionError, quoted
from timesformer_runtime.evaluate.datasets.label_names import number_of
from timesformer_runtime.evaluate.datasets.text_files import fields_of, parse_json, read_text


def read_labels_file(path: Path) -> dict[int, str]:
    """Reads the name of each number.

    The file is JSON: a list of names, or an object of names and numbers in either direction, where
    numbers may be strings, as in Something-Something's. Or it is text: one name a line from 0 on,
    or a number and a name in each line, in either order, also with a header such as ``id,name``.

    Raises:
        InvalidOptionError: The file is something else, or gives a number two names.
    """
    text = read_text(
        path,
        wanted="a file of labels",
        remedy="give one as `labels`, with a name in each line, or leave it out",
    )
    if path.suffix.lower() == ".json" or text.lstrip().startswith(("{", "[")):
        pairs = _pairs_of_json(path, parse_json(text, str(path)))
    else:
        pairs = _pairs_of_lines(path, [line.strip() for line in text.splitlines() if line.strip()])
    names: dict[int, str] = {}
    for number, name in pairs:
        if names.setdefault(number, name) != name:
            raise InvalidOptionError(
                f"{path} gives {number} two names, {quoted(names[number])} and {quoted(name)}; "
                "leave one of them out"
            )
    if not names:
        raise InvalidOptionError(f"{path} has no names; give a file with a name in each line")
    return names


def check_unique(path: Path, names: Mapping[int, str]) -> None:
    """Checks that a labels file gives each number a name of its own.

    Args:
        path: The file.
        names: The names that it gives the numbers.

    Raises:
        InvalidOptionError: Two numbers have one name.
    """
    numbers: dict[str, int] = {}
    for number, name in names.items():
        if numbers.setdefault(name, number) != number:
            raise InvalidOptionError(
                f"{path} names both {numbers[name]} and {number} {quoted(name)}; correct one of "
                "them"
            )


def _pairs_of_json(path: Path, value: Any) -> Iterable[tuple[int, str]]:
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return enumerate(value)
    if isinstance(value, dict):
        for name, number in ((str(key), str(item)) for key, item in value.items()):
            if number_of(name) is None and number_of(number) is None:
                break
        else:
            by_number = all(number_of(str(key)) is not None for key in value)
            pairs = ((k, v) if by_number else (v, k) for k, v in value.items())
            return [(number_of(str(number)) or 0, str(name)) for number, name in pairs]
    raise InvalidOptionError(f"{path} must be a list of names, or an object of names and numbers")


def _pairs_of_lines(path: Path, lines: list[str]) -> Iterable[tuple[int, str]]:
    if not lines:
        return ()
    for separator in (",", "\t", " "):
        rows = [
            [field.strip() for field in fields_of(line, separator, f"{path}: a line")]
            if separator != " "
            else line.split(maxsplit=1)
            for line in lines
        ]
        for number, name in ((0, 1), (1, 0)):
            body = rows if _is_number(rows[0], number) else rows[1:]
            if body and all(len(row) == 2 and _is_number(row, number) for row in body):
                return [(number_of(row[number]) or 0, row[name]) for row in body]
    return enumerate(lines)


def _is_number(row: list[str], column: int) -> bool:
    return column < len(row) and number_of(row[column]) is not None
