"""Finds the videos that a command line names: files, folders, patterns, lists, standard input."""

from __future__ import annotations

import glob
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from timesformer_runtime.errors import InvalidOptionError, InvalidVideoError
from timesformer_runtime.source_names import shown
from timesformer_runtime.video_files import (
    folders_in,
    joined,
    location,
    may_be_video,
    mode_of,
    videos_in,
)

STDIN = "-"  # for ``source`` one video, for ``find_videos`` a list of paths


def source(video: str) -> str | BinaryIO:
    """Gives the path that names one video, or standard input for ``-``.

    Raises:
        InvalidVideoError: Standard input is closed.
    """
    if video != STDIN:
        return video
    if sys.stdin is None:  # as after "<&-"
        raise InvalidVideoError("standard input is closed; pipe a video into it, or give a path")
    # Unbuffered, so that ``poll`` can tell if bytes are there, and the time limit ends the wait.
    raw: BinaryIO = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
    return raw


def find_videos(arguments: Iterable[str], standard_input: BinaryIO | None) -> list[str]:
    """Turns the arguments of a command into paths of videos, each video once, in order.

    A file with several names, such as ``a.mp4`` and ``./a.mp4``, keeps the first. A symbolic link
    to a file counts as a file of its own.

    Args:
        arguments: Each is the path of a file; the path of a folder, which is searched with all
            folders in it, also behind symbolic links; a pattern such as ``clips/**/*.mp4``, whose
            matching folders are searched too; or ``-`` for paths on standard input, one a line.
            In folders, and among the matches of patterns, only regular files count: no pipes, no
            devices. A path that does not exist stays in the list, and so does a folder that
            cannot be read or has no video: opening it raises the error.
        standard_input: The list for ``-``; None where standard input is closed.

    Raises:
        InvalidOptionError: Standard input is closed, or no argument leads to a video.
    """
    found: dict[str, str] = {}
    without_videos: list[str] = []
    for argument in arguments:
        paths = list(_paths_in_list(standard_input) if argument == STDIN else _expanded(argument))
        if not paths and argument != STDIN:
            without_videos.append(argument)
            paths = [argument]
        for path in paths:
            found.setdefault(location(path), path)
    if not set(found.values()).difference(without_videos):
        raise InvalidOptionError(_why_there_is_none(without_videos))
    return list(found.values())


def _why_there_is_none(without_videos: list[str]) -> str:
    if not without_videos:
        return "no video was named; give files, folders, patterns or a list"
    first = without_videos[0]
    name = shown(first)
    if os.path.isdir(first):  # noqa: PTH112
        return f"{name} has no file that is named like a video (.mp4, .mkv, ...); name the files"
    return f"{name} matches no video; name the files"


def _expanded(argument: str) -> Iterable[str]:
    if glob.has_magic(argument) and not os.path.lexists(argument):
        try:
            matches = sorted({*_matching(argument)})
        except (ValueError, RecursionError):  # no file can have such a name
            matches = []
        if matches:
            return [video for match in matches for video in _videos_at(match)]
    # ``Path.is_dir`` raises errors for long names, and for names in folders without permission.
    return videos_in(argument) if os.path.isdir(argument) else [argument]  # noqa: PTH112


def _matching(pattern: str) -> Iterator[str]:
    """Gives the matches of a pattern, and the folders on the way that cannot be read.

    ``glob.glob`` would follow links in circles, and leave out folders that it cannot read.
    """
    pattern = pattern.replace(os.sep, "/")
    head, deep, tail = f"/{pattern}/".partition("/**/")
    if not deep:
        yield from glob.glob(pattern)  # noqa: PTH207
        return
    while tail.startswith("**/"):
        tail = tail.removeprefix("**/")
    start = head[1:] or ("/" if pattern.startswith("/") else "")
    for folder in glob.glob(start) if start else [os.curdir]:  # noqa: PTH207
        for parent, paths in folders_in(folder):
            if paths is None:
                yield parent
            else:
                yield from _matching(joined(glob.escape(parent), tail.rstrip("/") or "*"))


def _videos_at(match: str) -> Iterator[str]:
    mode = mode_of(match)
    if stat.S_ISDIR(mode):
        yield from videos_in(match)
    elif may_be_video(mode):
        yield match


def _paths_in_list(standard_input: BinaryIO | None) -> Iterator[str]:
    if standard_input is None:  # as after "<&-"
        raise InvalidOptionError("standard input is closed; pipe a list into it, or leave out '-'")
    for line in standard_input:
        path = os.fsdecode(line).rstrip("\r\n")
        if path:
            yield path
