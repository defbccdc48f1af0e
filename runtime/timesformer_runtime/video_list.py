"""Which videos are meant: files, folders, patterns and lists become one list of paths."""

from __future__ import annotations

import glob
import os
import stat
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

    A file that is named in several ways, as ``a.mp4`` and ``./a.mp4``, keeps the first of them;
    a symbolic link to a file is another one.

    Args:
        arguments: Paths of files and folders, which are searched with all that is in them, also
            behind symbolic links; patterns such as ``clips/**/*.mp4``; and ``-`` for paths on
            standard input, one a line. A path that does not exist stays as it is. In folders and
            among the matches of patterns only regular files count: no pipes, no devices.
        standard_input: Where that list comes from; None where there is none.

    Raises:
        InvalidOptionError: A folder has no video or cannot be read, there is no standard input,
            or nothing is left at all.
    """
    found: dict[str, str] = {}
    for argument in arguments:
        for path in _listed(standard_input) if argument == _LIST else _expanded(argument):
            found.setdefault(os.path.abspath(path), path)  # noqa: PTH100  # a Path keeps '..'
    if not found:
        raise InvalidOptionError("no video was named; give files, folders, patterns or a list")
    return list(found.values())


def _expanded(argument: str) -> Iterator[str]:
    if glob.has_magic(argument) and not os.path.lexists(argument):
        matches = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207
        for match in matches:
            mode = _mode(match)
            if _may_be_video(mode):
                yield match
            elif (
                stat.S_ISDIR(mode) and "**" not in argument
            ):  # there the folder's files are matches themselves
                yield from _videos_of(match)
        if matches:
            return
    if Path(argument).is_dir():
        yield from _videos_of(argument)
    else:
        yield argument


def _videos_of(folder: str) -> list[str]:
    try:
        videos = list(_videos_below(folder))
    except OSError as error:
        raise InvalidOptionError(f"{error.filename} cannot be read: {error.strerror}") from error
    if not videos:
        raise InvalidOptionError(
            f"{folder} has no file that is named like a video (.mp4, .mkv, ...); name the files"
        )
    return videos


def _videos_below(folder: str) -> Iterator[str]:
    """The videos in a folder, then those in its folders, each of which is visited once."""
    visited = set()
    waiting = [folder]
    while waiting:
        parent = waiting.pop()
        status = Path(parent).stat()
        identity = status.st_dev, status.st_ino
        if identity in visited:  # links can lead in circles
            continue
        visited.add(identity)
        names = sorted(name for name in os.listdir(parent) if not name.startswith("."))  # noqa: PTH208
        paths = {path: _mode(path) for path in (str(Path(parent, name)) for name in names)}
        waiting += [path for path in reversed(paths) if stat.S_ISDIR(paths[path])]
        for path, mode in paths.items():
            if Path(path).suffix.lower() in SUFFIXES and _may_be_video(mode):
                yield path


def _mode(path: str) -> int:
    """What is behind a path; 0 where nothing tells."""
    try:
        return Path(path).stat().st_mode
    except (OSError, ValueError):
        return 0


def _may_be_video(mode: int) -> bool:
    """Not a pipe, for instance; what nothing is known about has its error when it is opened."""
    return stat.S_ISREG(mode) or mode == 0


def _listed(standard_input: BinaryIO | None) -> Iterator[str]:
    if standard_input is None:  # as after "<&-"
        raise InvalidOptionError("standard input is closed; pipe a list into it, or leave out '-'")
    for line in standard_input:
        path = os.fsdecode(line).rstrip("\r\n")
        if path:
            yield path
