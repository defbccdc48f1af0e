"""A file of JSON lines, one per video, that a run which was broken off can continue."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from timesformer_runtime.errors import InvalidOptionError
from timesformer_runtime.video_list import location

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

_START = b'{"video": '  # of every line
_NAME = "model"  # is information: the same file has many names, and its fingerprint tells which


class ResultsFile:
    """Opens a file for more lines, and reads which videos it has already.

    A line that was cut off when an earlier run was killed is removed, so that its video is done
    again. Lines are written whole, by one call of the system.

    Args:
        path: The file. Its folder must exist.
        run: What all its results are made with: JSON types. All but the ``model``, which is only
            its name, must be the same when the file is continued.

    Attributes:
        path: The file.
        done: Where the videos in the file are, and whether each of them succeeded; a relative
            path in the file counts from the current folder.

    Raises:
        InvalidOptionError: The file is a pipe or device, holds something else or results of
            another run, or another run is writing it.
        OSError: It cannot be read or written.
    """

    def __init__(self, path: Path, run: Mapping[str, Any]) -> None:
        self.done: dict[str, bool] = {}
        self.path = path
        self._run = dict(run)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            self._check_kind()
            self._lock()
            os.ftruncate(self._file, self._read())
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)

    def has(self, video: str, *, or_failed: bool) -> bool:
        """Whether the file has a result for a video, or an error if that counts as well."""
        path = location(video)
        return self.done.get(path, False) or (or_failed and path in self.done)

    def append(self, video: str, outcome: Mapping[str, Any]) -> None:
        """Adds the line of a video: its name, the run, and what came out, such as an ``error``."""
        line = json.dumps({"video": video, "run": self._run, **outcome}).encode() + b"\n"
        while line:  # a full disk or a signal can cut a write short
            line = line[os.write(self._file, line) :]
        self.done[location(video)] = "error" not in outcome

    def _check_kind(self) -> None:
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            raise InvalidOptionError(
                f"{self.path} is no regular file, in which a run that was broken off could go on; "
                "give the path of one"
            )

    def _lock(self) -> None:
        """Keeps a second run off the file, which would cut the first one's lines."""
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InvalidOptionError(
                f"{self.path}: another run is writing it; wait for its end, or give another output"
            ) from error
        except OSError:
            return  # a file system without locks

    def _read(self) -> int:
        """Reads the lines that are there; returns the length of the whole ones in bytes."""
        length = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n") and _is_cut_off(line):
                    break
                self._read_line(line, number)
                length += len(line)
        return length

    def _read_line(self, line: bytes, number: int) -> None:
        try:
            record = json.loads(line)
            video, run = str(record["video"]), dict(record["run"])
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidOptionError(
                f"{self.path}: line {number} is no result of this command; give another output"
            ) from error
        for name in sorted({*run, *self._run} - {_NAME}):
            if run.get(name) != self._run.get(name):
                raise InvalidOptionError(
                    f"{self.path}: line {number} was made with {name} {run.get(name)!r}, not "
                    f"{self._run.get(name)!r}; give another output, or the options of that run"
                )
        self.done[location(video)] = "error" not in record


def _is_cut_off(line: bytes) -> bool:
    return line.startswith(_START) or _START.startswith(line)
