"""Finds the description of a model's preprocessing in the files that can hold one."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from timesformer_runtime.errors import InvalidModelError, quoted
from timesformer_runtime.input.preprocess import Preprocessing
from timesformer_runtime.json_object import read_json_object

# transformers 5 writes the processors of all modalities into the first file, each under a key.
PREPROCESSOR_FILES = (
    "processor_config.json",
    "video_preprocessor_config.json",
    "preprocessor_config.json",
)
_NESTED, _VIDEO, _ = PREPROCESSOR_FILES
_NESTED_KEYS = ("video_processor", "image_processor")
_SAMPLING = ("do_sample_frames", "num_frames", "fps")


@dataclasses.dataclass(frozen=True)
class PreprocessorConfig:
    """A description of a model's preprocessing.

    Attributes:
        path: The file.
        source: The file's name, and the key under which the file has the description, if any.
        values: The contents, for ``Preprocessing.from_dict``.
        notes: A sentence for each thing that the user may not expect.
    """

    path: Path
    source: str
    values: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def read(self) -> Preprocessing:
        """Makes the described preprocessing.

        Raises:
            InvalidModelError: A value is not valid, or not known here.
        """
        return Preprocessing.from_dict(self.values, self.source)


def choose_preprocessor(paths: Iterable[Path]) -> PreprocessorConfig | None:
    """Reads the descriptions beside a model, and chooses one of them as transformers does.

    The first folder with a description counts. In that folder a video processor comes before an
    image processor, and for each of the two, ``processor_config.json`` before a file of its own.

    Args:
        paths: The files, folder by folder.

    Returns:
        None where no file describes any preprocessing.

    Raises:
        InvalidModelError: A file is broken.
    """
    for _, files in itertools.groupby(paths, key=lambda path: path.parent):
        found = sorted((config for path in files for config in _configs(path)), key=_rank)
        if found:
            notes = (*_disagreements(found), *_sampling_notes(found[0]))
            return dataclasses.replace(found[0], notes=notes)
    return None


def _configs(path: Path) -> Iterator[PreprocessorConfig]:
    values = read_json_object(path)
    if path.name != _NESTED:
        yield PreprocessorConfig(path, path.name, values)
        return
    for key in _NESTED_KEYS:
        nested = values.get(key)
        if nested is None:
            continue
        if not isinstance(nested, dict):
            raise InvalidModelError(f"{path}: {key} is {quoted(nested)}; it must be a JSON object")
        yield PreprocessorConfig(path, f"{path.name} ({key})", nested)


def _rank(config: PreprocessorConfig) -> tuple[bool, bool]:
    is_nested = config.path.name == _NESTED
    is_of_video = config.path.name == _VIDEO or config.source.endswith(f"({_NESTED_KEYS[0]})")
    return not is_of_video, not is_nested


def _disagreements(configs: Sequence[PreprocessorConfig]) -> list[str]:
    first = configs[0]
    return [
        f"{first.source} and {other.source} describe different preprocessing: {first.source} "
        "counts, as in transformers."
        for other in configs[1:]
        if _differ(first, other)
    ]


def _differ(first: PreprocessorConfig, other: PreprocessorConfig) -> bool:
    try:
        return first.read() != other.read()
    except InvalidModelError:  # if the first one is broken, its reader raises this again
        return True


def _sampling_notes(config: PreprocessorConfig) -> list[str]:
    """Makes a note if a video processor chooses frames, which this runtime ignores."""
    asked = {key: config.values[key] for key in _SAMPLING if config.values.get(key)}
    if not asked.get("do_sample_frames"):
        return []
    wishes = ", ".join(f"{key} {quoted(value)}" for key, value in asked.items())
    return [
        f"{config.source} also chooses frames ({wishes}); this runtime does not use that, but its "
        "own sampling."
    ]
