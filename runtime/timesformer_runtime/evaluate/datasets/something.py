"""Something-Something v2: annotations as JSON, whose labels are templates."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from timesformer_runtime.errors import InvalidOptionError, quoted
from timesformer_runtime.evaluate.datasets.samples import Entry

_SUFFIXES = (".webm", ".mp4", ".mkv", ".avi")


def read_something(
    path: Path, value: Any, locate: Callable[[Sequence[str]], list[str]]
) -> list[Entry]:
    """Reads a list of objects with ``id`` and ``template``.

    Args:
        path: The annotations.
        value: Their JSON.
        locate: Gives the path of each file.

    Raises:
        InvalidOptionError: The JSON is something else.
    """
    if not isinstance(value, list) or not value:
        raise InvalidOptionError(
            f"{path} is not a list of annotations such as Something-Something's, with id and "
            "template; give one, or a list of paths and labels"
        )
    ids, labels = [], []
    for number, item in enumerate(value):
        if not isinstance(item, dict) or not isinstance(item.get("id"), str | int):
            raise InvalidOptionError(
                f"{path}: annotation {number} is {quoted(item)}; it must have an id"
            )
        label = item.get("template", item.get("label"))
        if not isinstance(label, str | int) or not str(label):
            raise InvalidOptionError(
                f"{path}: annotation {number} (id {item['id']}) has no template; the annotations "
                "of the test set have no labels: give those of the validation set"
            )
        ids.append(str(item["id"]))
        labels.append(str(label))
    paths, files = _with_suffixes(ids, locate)
    return [
        Entry(file, where, (label,), f"annotation {number}")
        for number, (file, where, label) in enumerate(zip(files, paths, labels, strict=True))
    ]


def _with_suffixes(
    ids: Sequence[str], locate: Callable[[Sequence[str]], list[str]]
) -> tuple[list[str], list[str]]:
    """Finds the suffix of each file: that of the dataset, or the one after a conversion."""
    candidates = [locate([f"{name}{suffix}" for name in ids]) for suffix in _SUFFIXES]
    paths, files = [], []
    for name, *found in zip(ids, *candidates, strict=True):
        there = [os.path.exists(path) for path in found]  # noqa: PTH110
        chosen = there.index(True) if True in there else 0
        paths.append(found[chosen])
        files.append(f"{name}{_SUFFIXES[chosen]}")
    return paths, files
