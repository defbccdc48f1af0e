"""Finds the calibration videos and tries to decode them, before any long work."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from timesformer_runtime.errors import TimesformerError
from timesformer_runtime.video_files import videos_in

from timesformer_exporter.errors import InvalidOptionError
from timesformer_exporter.proof.gate_clips import read_video


def find_videos(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Lists the files that are given and all videos in folders that are given, each once.

    Raises:
        InvalidOptionError: A path does not exist, or a folder has no file named like a video.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if not os.path.exists(path):  # noqa: PTH110  # a Path raises for names that are too long
            raise InvalidOptionError(f"`calibration_videos` {path}: there is no such path")
        for video in map(Path, _videos_in(path) if path.is_dir() else [path]):
            found.setdefault(video.resolve(), video)
    return tuple(found.values())


def readable_videos(
    videos: Sequence[Path], num_frames: int, tell: Callable[[str], None]
) -> tuple[Path, ...]:
    """Keeps the videos that decode; ``tell`` gets a line about each one that does not.

    Raises:
        InvalidOptionError: None of the videos decodes.
    """
    readable = []
    for video in videos:
        try:
            read_video(video, num_frames)
            readable.append(video)
        except TimesformerError as error:
            message = str(error)
            named = message if str(video) in message else f"{video}: {message}"
            tell(f"Skipped for calibration: {named}")
    if not readable:
        raise InvalidOptionError(
            f"`calibration_videos`: none of the {len(videos)} file(s) is a video that decodes; "
            "give some that do"
        )
    return tuple(readable)


def _videos_in(folder: Path) -> list[str]:
    videos = list(videos_in(str(folder)))
    if not videos:
        raise InvalidOptionError(
            f"`calibration_videos` {folder}: the folder holds no file that is named like a video "
            "(.mp4, .mkv, ...); give files, or another folder"
        )
    return videos
