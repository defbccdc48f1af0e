"""Lists: a path and its label, or several labels, in each line."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from timesformer_runtime.errors import InvalidOptionError, quoted
from timesformer_runtime.evaluate.datasets.label_names import number_of
from timesformer_runtime.evaluate.datasets.samples import Entry
from timesformer_runtime.evaluate.datasets.text_files import fields_of, several_of
from timesformer_runtime.video_files import SUFFIXES

# A path with spaces, the suffix of a video, and the labels behind it.
_NAMED = re.compile(
    rf"(.+(?:{'|'.join(re.escape(suffix) for suffix in sorted(SUFFIXES))}))\s+(\S.*)",
    re.IGNORECASE,
)

Fields = tuple[str, tuple[str, ...]]  # the path, and the labels


def read_list(
    path: Path, text: str, locate: Callable[[Sequence[str]], list[str]], *, several: bool
) -> list[Entry]:
    """Reads a list such as those of the authors and of mmaction2.

    The separator is a tab where every line has one, else a comma, else spaces. With spaces, the
    label is all that follows the suffix of the video, such as ``.mp4``; where no name has one, the
    last word. Several labels are separated as the path is, or by ``|`` or ``;``.

    Args:
        path: The list.
        text: Its contents.
        locate: Gives the path of each file.
        several: True where a video may have several labels.

    Raises:
        InvalidOptionError: A line has no label, or the list is empty.
    """
    lines = [(n, line.strip()) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise InvalidOptionError(f"{path} is empty; give a list with a path and a label in a line")
    split = _splitter(path, [line for _, line in lines], several=several)
    found: list[tuple[int, Fields]] = []
    for number, line in lines:
        fields = split(line)
        if fields is None:
            raise InvalidOptionError(
                f"{path}: line {number} is {quoted(line)}; it must be a path and a label, "
                "separated by a space, a comma or a tab"
            )
        found.append((number, fields))
    paths = locate([file for _, (file, _) in found])
    if not any(map(os.path.exists, paths)):
        _check_columns(path, found)
    return [
        Entry(file, where, _each(labels) if several else labels, f"line {number}")
        for (number, (file, labels)), where in zip(found, paths, strict=True)
    ]


def _each(labels: Sequence[str]) -> tuple[str, ...]:
    return tuple(label for text in labels for label in several_of(text))


def _splitter(path: Path, lines: Sequence[str], *, several: bool) -> Callable[[str], Fields | None]:
    with_tabs, with_commas = (all(mark in line for line in lines) for mark in "\t,")
    if with_commas and not with_tabs and all(map(_has_commas_in_its_name, lines)):
        with_commas = False
    if not (with_tabs or with_commas):
        return lambda line: _spaced(line, several=several)
    separator = "\t" if with_tabs else ","
    return lambda line: _separated(
        fields_of(line, separator, f"{path}: a line"), separator, several=several
    )


def _has_commas_in_its_name(line: str) -> bool:
    """True for lines such as ``Smith, John.mp4 3``."""
    named = _NAMED.fullmatch(line)
    return named is not None and "," not in named[2]


def _separated(fields: list[str], separator: str, *, several: bool) -> Fields | None:
    count = _labels_at_the_end(fields) if several else 1
    file = separator.join(fields[:-count]).strip()
    labels = tuple(label.strip() for label in fields[-count:])
    return (file, labels) if file and all(labels) else None


def _labels_at_the_end(fields: Sequence[str]) -> int:
    """Counts the labels of a line: all numbers at its end, or all but the first field."""
    numbers = 0
    while numbers < len(fields) - 1 and number_of(fields[-1 - numbers].strip()) is not None:
        numbers += 1
    return numbers or max(1, len(fields) - 1)


def _spaced(line: str, *, several: bool) -> Fields | None:
    quote = re.fullmatch(r"([\"'])(.+)\1\s+(\S.*)", line)
    if quote:
        return quote[2], tuple(quote[3].split()) if several else (quote[3],)
    named = _NAMED.fullmatch(line)
    if named:
        words = named[2].split()
        are_numbers = all(number_of(word) is not None for word in words)
        return named[1], tuple(words) if several and are_numbers else (named[2],)
    words = line.split()
    if len(words) < 2:
        return None
    count = _labels_at_the_end(words) if several and number_of(words[-1]) is not None else 1
    file = line
    for word in reversed(words[-count:]):  # the path keeps its own spaces
        file = file.removesuffix(word).rstrip()
    return file, tuple(words[-count:])


def _check_columns(path: Path, found: Sequence[tuple[int, Fields]]) -> None:
    """Refuses lists of folders of frames: path, number of frames, label."""
    endings = [file.rpartition(" ")[2] for _, (file, _) in found]
    if all(number_of(word) is not None for word in endings) and all(
        " " in file and Path(file).suffix.lower() not in SUFFIXES for _, (file, _) in found
    ):
        raise InvalidOptionError(
            f"{path} lists folders of frames with their number (line {found[0][0]}: "
            f"{quoted(found[0][1][0])}); give a list of video files"
        )
