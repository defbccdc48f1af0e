"""Tables with a header: Hugging Face's metadata, other CSV files, and Kinetics' annotations."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from timesformer_runtime.errors import InvalidOptionError, listed, quoted
from timesformer_runtime.evaluate.datasets.label_names import forgiving, number_of
from timesformer_runtime.evaluate.datasets.samples import Entry
from timesformer_runtime.evaluate.datasets.text_files import parse_json, several_of
from timesformer_runtime.video_files import videos_in

_FILES = ("file_name", "video", "video_path", "path", "file", "filename", "file_path", "filepath")
_NAME = "label_name"  # of a column of names beside one of numbers
_LABELS = ("label", "labels", "class", "class_name", _NAME)
_YOUTUBE, _SPLIT = "youtube_id", "split"
_SEPARATORS = (",", "\t", ";")

Row = tuple[int, Mapping[str, Any]]  # number of the line, and the values by the column's name


def rows_of_csv(path: Path, text: str) -> list[Row] | None:
    """Reads the rows of a CSV file; None where its first line is not a header.

    Raises:
        InvalidOptionError: The file is not valid CSV.
    """
    head = text.split("\n", 1)[0].strip()
    for separator in _SEPARATORS:
        names = [name.strip().strip('"').lower() for name in head.split(separator)]
        if _YOUTUBE in names or ({*names} & {*_FILES} and {*names} & {*_LABELS}):
            break
    else:
        return None
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        next(reader)
        return [
            (
                reader.line_num,
                dict.fromkeys(names, "") | dict(zip(names, map(str.strip, row), strict=False)),
            )
            for row in reader
            if any(row)
        ]
    except csv.Error as error:
        raise InvalidOptionError(f"{path}: line {reader.line_num}: {error}") from error


def rows_of_json_lines(path: Path, text: str) -> list[Row]:
    """Reads the rows of a file of JSON lines, as of Hugging Face's ``metadata.jsonl``.

    Raises:
        InvalidOptionError: A line is not a JSON object.
    """
    rows: list[Row] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            value = parse_json(line, f"{path}: line {number}")
            if not isinstance(value, dict):
                raise InvalidOptionError(f"{path}: line {number} is not a JSON object")
            rows.append((number, value))
    return rows


def read_table(
    path: Path,
    rows: Sequence[Row],
    locate: Callable[[Sequence[str]], list[str]],
    split: str | None,
    *,
    several: bool,
) -> list[Entry]:
    """Reads a table with a column for the file and one for the label.

    Args:
        path: The table.
        rows: Its rows.
        locate: Gives the path of each file.
        split: The part of the dataset to take, as the column ``split`` names it.
        several: True where a video may have several labels.

    Raises:
        InvalidOptionError: A column or a value is missing.
    """
    rows = _of_split(path, rows, split)
    file_column, label_column = _column(path, rows, _FILES), _column(path, rows, _LABELS)
    files = [str(_value(path, row, file_column)) for row in rows]
    return [
        Entry(
            file,
            where,
            _labels(_value(path, row, label_column), several=several),
            f"line {row[0]}",
            "" if label_column == _NAME else str(row[1].get(_NAME) or ""),
        )
        for row, file, where in zip(rows, files, locate(files), strict=True)
    ]


def is_kinetics(rows: Sequence[Row]) -> bool:
    """True for rows of Kinetics' annotations."""
    return bool(rows) and _YOUTUBE in rows[0][1]


def read_kinetics(path: Path, rows: Sequence[Row], root: Path, split: str | None) -> list[Entry]:
    """Reads Kinetics' annotations, and finds the files by the names that downloaders give them.

    These are ``{id}_{start:06d}_{end:06d}.mp4`` and ``{id}.mp4``, also with another suffix, in a
    folder for each class or in any other.

    Args:
        path: The annotations.
        rows: Their rows.
        root: The folder in which the files are, at any depth.
        split: The part of the dataset to take.

    Raises:
        InvalidOptionError: The rows have no labels.
    """
    rows = _of_split(path, rows, split)
    label_column = _column(path, rows, _LABELS)
    files: dict[str, list[str]] = {}
    for video in videos_in(str(root)):
        files.setdefault(Path(video).stem, []).append(video)
    return [_kinetics_entry(path, row, label_column, root, files) for row in rows]


def _kinetics_entry(
    path: Path, row: Row, label_column: str, root: Path, files: Mapping[str, list[str]]
) -> Entry:
    """Makes the entry of a row; its path is that of the first name where no file is there."""
    video, label = (str(_value(path, row, column)) for column in (_YOUTUBE, label_column))
    stems = [video]
    start, end = (_seconds(path, row, name) for name in ("time_start", "time_end"))
    if start is not None and end is not None:
        stems = [f"{video}_{start:06d}_{end:06d}", f"{video}_{start}_{end}", video]
    for stem in stems:
        found = files.get(stem)
        if found:
            wanted = forgiving(label)
            best = max(found, key=lambda file: forgiving(Path(file).parent.name) == wanted)
            file = str(Path(best).relative_to(root))
            return Entry(file, best, (label,), f"line {row[0]}")
    file = f"{stems[0]}.mp4"
    return Entry(file, str(root / file), (label,), f"line {row[0]}")


def _seconds(path: Path, row: Row, name: str) -> int | None:
    """Reads a time of Kinetics' annotations, in seconds; None for a fraction, nan, or no time."""
    value = row[1].get(name)
    text = "" if value is None else str(value)
    number = number_of(text)
    if text and number is None:
        try:
            float(text)  # with a fraction, or nan: no downloader names files so
        except ValueError:
            raise InvalidOptionError(
                f"{path}: line {row[0]} has the {name} {quoted(text)}; it must be a number of "
                "seconds"
            ) from None
    return number


def _of_split(path: Path, rows: Sequence[Row], split: str | None) -> Sequence[Row]:
    if not rows:
        raise InvalidOptionError(f"{path} has a header and no rows; give a list of videos")
    parts = list(dict.fromkeys(str(row.get(_SPLIT, "")) for _, row in rows))
    if split is None:
        if len(parts) > 1:
            raise InvalidOptionError(
                f"{path} has several parts in its column {_SPLIT}: {listed(parts)}; name one with "
                "`split`"
            )
        return rows
    if split not in parts:
        raise InvalidOptionError(
            f"`split` is {quoted(split)}; the column {_SPLIT} of {path} has "
            f"{listed(filter(None, parts)) or 'no values'}"
        )
    return [(number, row) for number, row in rows if str(row.get(_SPLIT, "")) == split]


def _column(path: Path, rows: Sequence[Row], names: Sequence[str]) -> str:
    for name in names:
        if name in rows[0][1]:
            return name
    raise InvalidOptionError(
        f"{path} has the columns {listed(rows[0][1])}, but none named {' or '.join(names[:2])}"
        + ("; lists for tests have no labels: give one that has" if names is _LABELS else "")
    )


def _value(path: Path, row: Row, column: str) -> Any:
    value = row[1].get(column)
    if value is None or value in ("", []):
        raise InvalidOptionError(f"{path}: line {row[0]} has no {column}; fill it in, or remove it")
    return value


def _labels(value: Any, *, several: bool) -> tuple[str, ...]:
    """Reads a cell: one label, or several as a JSON list or separated by ``|`` or ``;``."""
    if several and isinstance(value, str):
        if value.startswith("["):
            try:
                value = json.loads(value)
            except ValueError:
                value = [part.strip(" '\"") for part in value.strip("[]").split(",")]
        else:
            value = several_of(value)
    if isinstance(value, list):
        return tuple(str(label).strip() for label in value)
    return (str(value),)
