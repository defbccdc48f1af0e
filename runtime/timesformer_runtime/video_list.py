"""Which videos are meant: files, folders, patterns and lists become one list of paths."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from timesformer_runtime.errors import InvalidOptionError

# What counts as a video in a folder; a file that is named may have any suffix.
SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("mp4", "m4v", "mov", "3gp", "3g2", "mkv", "webm", "avi", "flv", "gif", "ivf", "asf"),
        *("wmv", "mpg", "mpeg", "ts", "mts", "m2ts", "ogg", "ogv"),
        *("264", "h264", "265", "h265", "hevc"),
    )
)
_LIST = "-"


def find_videos(arguments: Iterable[str], standard_input: BinaryIO | None) -> list[str]:
    """Turns what a user named into paths of videos, each of them once, in order.

    Args:
        arguments: Paths of files and folders, which are searched with all that is in them;
            patterns such as ``clips/**/*.mp4``; and ``-`` for paths on standard input, one a
            line. A path that does not exist stays as it is.
        standard_input: Where that list comes from; None where there is none.

    Raises:
        InvalidOptionError: A folder has no video or cannot be read, there is no standard input,
            or nothing is left at all.
    """
    found: dict[str, None] = {}
    for argument in arguments:
        if argument == _LIST:
            found.update(dict.fromkeys(_listed(standard_input)))
        else:
            found.update(dict.fromkeys(_expanded(argument)))
    if not found:
        raise InvalidOptionError("no video was named; give files, folders, patterns or a list")
    return list(found)


def _expanded(argument: str) -> Iterator[str]:
    if glob.has_magic(argument) and not os.path.lexists(argument):
        matches = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207
        for match in matches:
            if not Path(match).is_dir():
                yield match
            elif "**" not in argument:  # there the folder's files are matches themselves
                yield from _videos_below(match)
        if matches:
            return
    if Path(argument).is_dir():
        yield from _videos_below(argument)
    else:
        yield argument


def _videos_below(folder: str) -> list[str]:
    def refuse(error: OSError) -> None:
        raise InvalidOptionError(f"{error.filename} cannot be read: {error.strerror}") from error

    videos = []
    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        videos += [str(Path(parent, name)) for name in sorted(files) if _is_video(name)]
    if not videos:
        raise InvalidOptionError(
            f"{folder} has no file that is named like a video (.mp4, .mkv, ...); name the files"
        )
    return videos


def _is_video(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")


def _listed(standard_input: BinaryIO | None) -> Iterator[str]:
    if standard_input is None:  # as after "<&-"
        raise InvalidOptionError("standard input is closed; pipe a list into it, or leave out '-'")
    for line in standard_input:
        path = os.fsdecode(line).rstrip("\r\n")
        if path:
            yield path
