"""Finds video files in folders, and tells one file from another."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

from timesformer_runtime.source_names import shown

# In a folder, files with one of these suffixes count as videos. A file that the user names may have
# any suffix.
SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("mp4", "m4v", "mov", "3gp", "3g2", "mkv", "webm", "avi", "flv", "gif", "ivf", "asf"),
        *("wmv", "mpg", "mpeg", "ts", "mts", "m2ts", "ogg", "ogv"),
        *("264", "h264", "265", "h265", "hevc"),
    )
)


class FileIdentity(NamedTuple):
    """Identifies a video file by path, size and time of change; a replaced file is not equal.

    Attributes:
        path: The absolute path; links to folders are resolved.
        size: Bytes; None if the path is not a regular file.
        modified: Seconds since 1970, to the microsecond; None where ``size`` is None.
    """

    path: str
    size: int | None
    modified: float | None

    @classmethod
    def of(cls, video: str) -> Self:
        """Identifies the file to which a name leads now, from the current folder."""
        name = shown(video)
        if name != video:  # a URL
            return cls(name, None, None)
        path = location(video)
        try:
            status = Path(path).stat()
        except (OSError, ValueError):
            return cls(path, None, None)
        if not stat.S_ISREG(status.st_mode):
            return cls(path, None, None)
        return cls(path, status.st_size, round(status.st_mtime_ns / 1e9, 6))


def videos_in(folder: str) -> Iterator[str]:
    """Gives the videos of a folder and of the folders in it, and folders that cannot be read."""
    for parent, paths in folders_in(folder):
        if paths is None:
            yield parent
            continue
        for path, mode in paths.items():
            if Path(path).suffix.lower() in SUFFIXES and may_be_video(mode):
                yield path


def location(path: str) -> str:
    """Makes the path of a file absolute and resolves links to folders: one name for each file."""
    try:
        folder, name = os.path.split(path)
        return os.path.join(_real_path(os.path.join(os.getcwd(), folder)), name)  # noqa: PTH109, PTH118
    except (OSError, ValueError):
        return path


def folders_in(folder: str) -> Iterator[tuple[str, dict[str, int] | None]]:
    """Gives a folder and all folders below it, each with the paths in it and their modes.

    Each folder comes once, although links can lead in circles. The paths of a folder that cannot
    be read are None.
    """
    visited = set()
    waiting = [folder]
    while waiting:
        parent = waiting.pop()
        try:
            status = Path(parent).stat()
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            names = sorted(name for name in os.listdir(parent) if not name.startswith("."))  # noqa: PTH208
        except OSError:
            names = None
        if names is None or not os.access(parent, os.X_OK):
            yield parent, None
            continue
        paths = {path: mode_of(path) for path in (joined(parent, name) for name in names)}
        waiting += [path for path in reversed(paths) if stat.S_ISDIR(paths[path])]
        yield parent, paths


def joined(folder: str, name: str) -> str:
    """Joins a folder and a name; the current folder is left out."""
    return name if folder == os.curdir else str(Path(folder, name))


def mode_of(path: str) -> int:
    """Reads the mode of the file behind a path; 0 where the system does not tell."""
    try:
        return Path(path).stat().st_mode
    except (OSError, ValueError):
        return 0


def may_be_video(mode: int) -> bool:
    """False for pipes and devices; True if the type is unknown: opening the file tells why."""
    return stat.S_ISREG(mode) or mode == 0


@functools.lru_cache(maxsize=1024)
def _real_path(folder: str) -> str:
    return os.path.realpath(folder)
