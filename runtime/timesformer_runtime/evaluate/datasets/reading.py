"""Reads a dataset of any form, and finds the model's labels for its videos."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from timesformer_runtime.errors import InvalidOptionError, quoted
from timesformer_runtime.evaluate.datasets.folders import read_class_folders
from timesformer_runtime.evaluate.datasets.label_names import LabelNames, number_of
from timesformer_runtime.evaluate.datasets.labels_file import check_unique, read_labels_file
from timesformer_runtime.evaluate.datasets.lists import read_list
from timesformer_runtime.evaluate.datasets.samples import Entry, Sample
from timesformer_runtime.evaluate.datasets.something import read_something
from timesformer_runtime.evaluate.datasets.tables import (
    is_kinetics,
    read_kinetics,
    read_table,
    rows_of_csv,
    rows_of_json_lines,
)
from timesformer_runtime.evaluate.datasets.text_files import parse_json, read_text
from timesformer_runtime.video_files import SUFFIXES, location

LABELS_BY = ("names", "numbers")
_SEVERAL = "if a video may have several labels, say `function_to_apply=sigmoid`"
# Text behind the suffix of a video: perhaps labels that count as a part of its name.
_BEHIND_SUFFIX = re.compile(
    rf"(?:{'|'.join(map(re.escape, sorted(SUFFIXES)))})[,\s]+(\S.*)", re.IGNORECASE
)
_METADATA = ("metadata.csv", "metadata.jsonl")


@dataclasses.dataclass(frozen=True)
class DatasetOptions:
    """Options for reading a dataset.

    Attributes:
        root: The folder of the videos of a list; by default the list's own folder or the current
            one, whichever has more of the files.
        labels: A file with the names of the list's numbers.
        labels_by: ``names`` or ``numbers``: which of them counts where the labels file numbers the
            names in another order than the model; None makes that an error.
        split: The part to take of a table with a column ``split``.

    Raises:
        InvalidOptionError: A value is not allowed.
    """

    root: Path | None = None
    labels: Path | None = None
    labels_by: str | None = None
    split: str | None = None

    def __post_init__(self) -> None:
        if self.root is not None and not self.root.is_dir():
            raise InvalidOptionError(f"`root` is {self.root}; it must be a folder")
        if self.labels_by is not None and self.labels_by not in LABELS_BY:
            raise InvalidOptionError(
                f"`labels_by` is {self.labels_by!r}; it must be {' or '.join(LABELS_BY)}"
            )
        if self.labels_by is not None and self.labels is None:
            raise InvalidOptionError(
                f"`labels_by` is {self.labels_by}, but there is no labels file: give the file as "
                "`labels`, or leave out `labels_by`"
            )

    def to_dict(self) -> dict[str, Any]:
        """The options as JSON types; paths are absolute."""
        return {
            name: str(value.absolute()) if isinstance(value, Path) else value
            for name, value in vars(self).items()
        }


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The videos of a dataset with the model's labels.

    Attributes:
        samples: The videos, each once, in the dataset's order.
        notes: A sentence for each thing that the user may not expect.
    """

    samples: tuple[Sample, ...]
    notes: tuple[str, ...]


def read_dataset(
    data: Path, model_labels: Sequence[str], options: DatasetOptions, *, several: bool
) -> Dataset:
    """Reads the videos of a dataset, and finds their labels among those of a model.

    Args:
        data: A folder, a list, a table or annotations.
        model_labels: The labels of the model, in its order.
        options: How to read the dataset.
        several: True where a video may have several labels.

    Raises:
        InvalidOptionError: The dataset cannot be read, has a label that the model does not have,
            or none of its files exists.
    """
    if os.path.isdir(data):  # noqa: PTH112  # a Path raises for names that are too long
        entries, notes = _read_folder(data, options, several=several)
    else:
        entries, notes = _read_file(data, options, several=several), []
    model = LabelNames(model_labels)
    find = _finder(data, entries, model, options, several=several)
    if options.labels_by != "numbers":
        _check_names(data, entries, find, model)
    samples = _samples(data, entries, find, notes, several=several)
    if not any(os.path.exists(sample.path) for sample in samples):  # noqa: PTH110
        raise InvalidOptionError(
            f"none of the {len(samples)} files of {data} exists, such as {samples[0].path}; "
            f"{_why_missing(samples[0].file, model, several=several)}"
        )
    return Dataset(tuple(samples), tuple(notes))


def _why_missing(file: str, model: LabelNames, *, several: bool) -> str:
    root = "give the folder of the videos with `root`"
    behind = _BEHIND_SUFFIX.search(file)
    if not several and behind and _are_labels(behind[1], model):
        return f"{_SEVERAL}, else give a path and one label in each line, or {root}"
    if "\\" in file and os.sep != "\\":
        return f"write / in place of \\ in the paths, or {root}"
    return root


def _check_names(
    data: Path, entries: Sequence[Entry], find: Callable[[str], int], model: LabelNames
) -> None:
    """Refuses a table whose numbers and names of labels contradict each other."""
    for entry in entries:
        has_both = entry.name and number_of(entry.labels[0]) is not None
        place = _find_one(entry.name, model, f"{data}: {entry.where}") if has_both else None
        if place is not None and place not in map(find, entry.labels):
            number = entry.labels[0]
            raise InvalidOptionError(
                f"{data}: {entry.where} has the label {quoted(number)} and the name "
                f"{quoted(entry.name)}, but the model's {find(number)} is "
                f"{quoted(model.labels[find(number)])}; correct the numbers, or give the names "
                "alone as the column label"
            )


def _find_one(name: str, model: LabelNames, where: str) -> int | None:
    """Finds a label of the model; the error for a name of two labels says where it is."""
    try:
        return model.find(name)
    except InvalidOptionError as error:
        raise InvalidOptionError(f"{where}: {error}") from error


def _read_folder(
    folder: Path, options: DatasetOptions, *, several: bool
) -> tuple[list[Entry], list[str]]:
    for name in _METADATA:
        if (folder / name).is_file():
            if options.root is None:
                options = dataclasses.replace(options, root=folder)
            return _read_file(folder / name, options, several=several), []
    for name in ("root", "split"):
        if getattr(options, name) is not None:
            raise InvalidOptionError(
                f"`{name}` is for lists; {folder} is a folder with a folder for each class: leave "
                "it out"
            )
    return read_class_folders(folder)


def _read_file(path: Path, options: DatasetOptions, *, several: bool) -> list[Entry]:
    text = read_text(
        path,
        wanted="a list of videos",
        remedy="give a folder with a folder for each class, or a list",
    )
    suffix = path.suffix.lower()
    roots = [options.root] if options.root is not None else [path.parent, Path()]

    def locate(files: Sequence[str]) -> list[str]:
        return _located(files, roots)

    is_table = True
    if suffix == ".json":
        entries, is_table = read_something(path, parse_json(text, str(path)), locate), False
    else:
        rows = rows_of_json_lines(path, text) if suffix == ".jsonl" else rows_of_csv(path, text)
        if rows is None:
            entries, is_table = read_list(path, text, locate, several=several), False
        elif is_kinetics(rows):
            entries = read_kinetics(path, rows, roots[0], options.split)
        else:
            entries = read_table(path, rows, locate, options.split, several=several)
    if options.split is not None and not is_table:
        raise InvalidOptionError(
            f"`split` is for tables with a column split; {path} is not one: leave it out"
        )
    return entries


def _located(files: Sequence[str], roots: Sequence[Path]) -> list[str]:
    """Gives the paths of files in the folder that has most of them, the first of equal ones."""
    paths = [[str(root / file) for file in files] for root in roots]
    return max(paths, key=lambda found: sum(map(os.path.exists, found)))


def _samples(
    data: Path,
    entries: Sequence[Entry],
    find: Callable[[str], int],
    notes: list[str],
    *,
    several: bool,
) -> list[Sample]:
    """Makes the samples; entries of one file become one sample."""
    found: dict[str, tuple[Entry, tuple[int, ...]]] = {}
    repeated = 0
    for entry in entries:
        path = location(entry.path)
        true = tuple(dict.fromkeys(find(label) for label in entry.labels))
        if path not in found:
            found[path] = entry, true
            continue
        first, earlier = found[path]
        if not several and true != earlier:
            raise InvalidOptionError(
                f"{data}: {quoted(entry.file)} has two labels, {quoted(first.labels[0])} "
                f"({first.where}) and {quoted(entry.labels[0])} ({entry.where}); leave one of them "
                f"out, or, {_SEVERAL}"
            )
        repeated += set(true) <= set(earlier)
        found[path] = first, tuple(dict.fromkeys(earlier + true))
    if repeated:
        notes.append(f"{repeated} of the entries repeat a video and count once")
    return [Sample(entry.file, path, true) for path, (entry, true) in found.items()]


def _finder(
    data: Path,
    entries: Sequence[Entry],
    model: LabelNames,
    options: DatasetOptions,
    *,
    several: bool,
) -> Callable[[str], int]:
    """Makes the function that finds the model's number of a label of the dataset."""
    texts = list(dict.fromkeys(label for entry in entries for label in entry.labels))
    where = {label: entry.where for entry in reversed(entries) for label in entry.labels}
    if options.labels is None:
        for text in texts:
            if number_of(text) is None:
                _find_one(text, model, f"{data}: {where[text]}")  # an error names the place
        found = _without_labels_file(texts, model)
        remedy = (
            "the model has no names, only numbers: give them with `labels`, a file with the names"
            if model.are_generic
            else "correct it, or evaluate a model that has it"
        )
    else:
        names = read_labels_file(options.labels)
        by_numbers = _numbers_count(names, model, options)
        if not by_numbers or any(number_of(text) is None for text in texts):
            check_unique(options.labels, names)
        if options.labels_by is None and not by_numbers:
            _check_order(options.labels, names, model)
        found = _with_labels_file(texts, model, names, by_numbers=by_numbers)
        remedy = f"correct it, or {options.labels}"
        if not by_numbers:
            unnamed = [text for text in texts if found[text] is None]
            _check_named(data, options.labels, names, unnamed, where)
    unknown = [text for text in texts if found[text] is None]
    if unknown:
        parts = _labels_in(unknown[0], model)
        if parts:
            remedy = f"write several labels as {'|'.join(parts)}" if several else _SEVERAL
        raise InvalidOptionError(
            _why_unknown(data, unknown, where[unknown[0]], len(texts), model, remedy)
        )
    return lambda text: int(found[text] or 0)


def _check_named(
    data: Path,
    path: Path,
    names: Mapping[int, str],
    unknown: Sequence[str],
    where: Mapping[str, str],
) -> None:
    """Refuses a number that the labels file does not name."""
    for text in unknown:
        number = number_of(text)
        if number is not None and number not in names:
            raise InvalidOptionError(
                f"{data}: {where[text]} has the label {quoted(text)}, which has no name in "
                f"{path}, which has {len(names)} name{'' if len(names) == 1 else 's'}; add it there"
            )


def _labels_in(text: str, model: LabelNames) -> list[str]:
    """Gives the labels of a text that is several of the model's; none for any other text."""
    for separator in ("|", ";", ",", None):
        parts = [part.strip(" '\"") for part in text.strip("[]").split(separator)]
        if len(parts) > 1 and None not in _without_labels_file(parts, model).values():
            return parts
    return []


def _are_labels(text: str, model: LabelNames) -> bool:
    is_one = None not in _without_labels_file([text], model).values()
    return is_one or bool(_labels_in(text, model))


def _without_labels_file(texts: Sequence[str], model: LabelNames) -> dict[str, int | None]:
    are_numbers = all(number_of(text) is not None for text in texts)
    if are_numbers and not all(text in model.labels for text in texts):
        numbers = {text: number_of(text) for text in texts}
        count = len(model.labels)
        return {
            text: number if number is not None and 0 <= number < count else None
            for text, number in numbers.items()
        }
    return {text: model.find(text) for text in texts}


def _numbers_count(names: Mapping[int, str], model: LabelNames, options: DatasetOptions) -> bool:
    """Tells whether the numbers of a labels file count, and not its names."""
    if options.labels_by is not None:
        return options.labels_by == "numbers"
    return model.are_generic and all(model.find(name) is None for name in names.values())


def _with_labels_file(
    texts: Sequence[str], model: LabelNames, names: Mapping[int, str], *, by_numbers: bool
) -> dict[str, int | None]:
    """Finds labels by the names of a labels file, or by its numbers."""
    known = {} if by_numbers else {number: model.find(name) for number, name in names.items()}
    numbers = LabelNames(tuple(names.values()))
    keys = tuple(names)
    found: dict[str, int | None] = {}
    for text in texts:
        number = number_of(text)
        if number is None:
            place = numbers.find(text)
            number = None if place is None else keys[place]
        if by_numbers:
            valid = number is not None and 0 <= number < len(model.labels)
            found[text] = number if valid else None
        else:
            found[text] = model.find(text) if number not in known else known[number]
    return found


def _check_order(path: Path, names: Mapping[int, str], model: LabelNames) -> None:
    """Refuses a labels file that numbers names in another order than the model, from 0 or 1."""
    known = {number: model.find(name) for number, name in names.items()}
    shifts = {number - index for number, index in known.items() if index is not None}
    if shifts <= {0} or (shifts == {1} and 0 not in names):
        return
    number, index = next((n, i) for n, i in known.items() if i is not None and n - i != 0)
    raise InvalidOptionError(
        f"{path} numbers {quoted(names[number])} {number}, and the model {index} (its {number} is "
        f"{quoted(model.labels[number]) if number < len(model.labels) else 'missing'}); say which "
        "counts with `labels_by=names` or `labels_by=numbers`"
    )


def _why_unknown(
    data: Path, unknown: Sequence[str], where: str, count: int, model: LabelNames, remedy: str
) -> str:
    text, last = unknown[0], len(model.labels) - 1
    more = f" ({len(unknown)} of {count} different labels are unknown)" if len(unknown) > 1 else ""
    start = f"{data}: {where} has the label {quoted(text)}, which the model does not have{more}; "
    number = number_of(text)
    if number is None:
        return f"{start}{model.nearest(text)}; {remedy}"
    if 0 <= number <= last:
        return f"{start}the data has names and numbers: write all labels as one of the two"
    hint = (
        ": lists that count from 1 need a labels file (`labels`), whose names count"
        if number == last + 1
        else ""
    )
    return f"{start}its numbers are 0 to {last}{hint}"
