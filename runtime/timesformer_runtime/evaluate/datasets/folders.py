"""Datasets that are a folder: with a folder for each class, or with Hugging Face's metadata."""

from __future__ import annotations

import os
from pathlib import Path

from timesformer_runtime.errors import InvalidOptionError, listed, named
from timesformer_runtime.evaluate.datasets.samples import Entry
from timesformer_runtime.video_files import SUFFIXES, videos_in

_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "validate", "test", "eval"})


def read_class_folders(folder: Path) -> tuple[list[Entry], list[str]]:
    """Reads a folder in which each folder holds the videos of one class.

    Returns:
        The entries, and a sentence for each thing that was left out.

    Raises:
        InvalidOptionError: The folders do not exist, or hold no videos.
    """
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))  # noqa: PTH208
    except OSError as error:
        raise InvalidOptionError(f"{folder} cannot be read: {error.strerror}") from error
    classes = [name for name in names if (folder / name).is_dir()]
    loose = [name for name in names if Path(name).suffix.lower() in SUFFIXES]
    if classes and all(name.lower() in _SPLITS for name in classes):
        raise InvalidOptionError(
            f"{folder} has the parts {listed(classes)} of a dataset, not a folder for each class; "
            f"give one of them, such as {folder / classes[-1]}"
        )
    entries = [
        Entry(str(Path(path).relative_to(folder)), path, (name,), f"folder {named(name)}")
        for name in classes
        for path in videos_in(str(folder / name))
        if path != str(folder / name)  # a folder that cannot be read
    ]
    if not entries:
        raise InvalidOptionError(
            f"{folder} has no videos in a folder for each class (such as {folder / 'CLASS'}/"
            "1.mp4); arrange them so, or give a list of files and labels"
        )
    notes = []
    if loose:
        notes.append(
            f"{len(loose)} video{'s lie' if len(loose) > 1 else ' lies'} in {folder} itself, "
            f"without a label, and {'are' if len(loose) > 1 else 'is'} left out: "
            f"{listed(loose, 3)}"
        )
    filled = {entry.labels[0] for entry in entries}
    empty = [name for name in classes if name not in filled]
    if empty:
        notes.append(f"no videos in {listed(empty, 5)}")
    return entries, notes
