"""A file of JSON lines, one per video, that a run which was broken off can continue."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from timesformer_runtime.cli.video_list import location
from timesformer_runtime.errors import InvalidOptionError, OutputError
from timesformer_runtime.source_names import shown

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

# How every line begins, as far as the name's last character, and how it goes on.
_START = '{"video": "'
_TO_NAME = re.compile(re.escape(_START) + r'(?:[^"\\\x00-\x1f]|\\.|\\$)*')
_TO_RUN, _RUN = '", "run": ', '{"model": '
_MODEL = "model"  # is information: the same file has many names, and its fingerprint tells which
_LONGEST_LINE = 1 << 26  # bytes; thousands of labels and clips take a few million


class VideoFile(NamedTuple):
    """Tells a video from others of its name, and from one that was put in its place.

    Attributes:
        path: The absolute path.
        size: Bytes; None for what is not a regular file, or not there.
        modified: Seconds since 1970, to the microsecond; None where ``size`` is None.
    """

    path: str
    size: int | None
    modified: float | None

    @classmethod
    def of(cls, video: str) -> Self:
        """Looks at the file that a name means now, from the current folder."""
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


class ResultsFile:
    """Opens a file for more lines, and reads which videos it has already.

    A line that was cut off when an earlier run was killed is removed, so that its video is done
    again. Lines are written whole, by one call of the system. A file of which any line is of
    something else is left as it is.

    A video is there when a line has its path, and the size and time of change that it still has.
    Where the file of a line is gone, as when its folder was moved, its size, its time and its name
    from the current folder count. Lines of earlier versions have nothing but that name.

    Args:
        path: The file. Its folder must exist.
        run: What all its results are made with: JSON types. All but the ``model``, which is only
            its name, must be the same when the file is continued.

    Attributes:
        path: The file.
        done: The absolute paths of the videos in the file, and whether each of them succeeded.
        without_folder: How many lines have a relative name, and do not say of which folder.

    Raises:
        InvalidOptionError: The file is a pipe or device, holds something else or results of
            another run, or another run is writing it.
        OSError: It cannot be read or written.
    """

    def __init__(self, path: Path, run: Mapping[str, Any]) -> None:
        self.done: dict[str, bool] = {}
        self.without_folder = 0
        self.path = path
        self._run = dict(run)
        self._files: dict[str, VideoFile | None] = {}  # as ``done``; None: of an earlier version
        self._named: dict[VideoFile, str] = {}  # the paths of lines, by what their names mean here
        self._noted: dict[str, VideoFile] = {}
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:  # of the same class
            reason = f"{error.strerror}; give a file in a folder that is there and can be written"
            raise OSError(error.errno, reason, str(path)) from None
        try:
            self._check_kind()
            self._lock()
            self._length = self._read()
            if self._length < os.fstat(self._file).st_size:
                os.ftruncate(self._file, self._length)
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
        succeeded = self.succeeded(video)
        return bool(succeeded) or (or_failed and succeeded is False)

    def succeeded(self, video: str) -> bool | None:
        """Whether a video succeeded that is in the file; None where it is not."""
        file = VideoFile.of(video)
        if file.path in self.done and self._files[file.path] in {None, file}:
            return self.done[file.path]
        path = self._named.get(file)
        if path is None:
            return None
        if file.size is None:
            is_moved = not os.path.lexists(file.path)  # both are missing
        else:
            is_moved = VideoFile.of(path) != self._files[path]
        return self.done[path] if is_moved else None

    def noted(self, videos: Iterable[str]) -> Iterator[str]:
        """Gives the videos, each to be read now: its line tells from which file it was made."""
        for video in videos:
            self._noted[video] = VideoFile.of(video)
            yield video

    def append(self, video: str, outcome: Mapping[str, Any]) -> None:
        """Adds the line of a video: its name, the run, its file, and what came out.

        Args:
            video: Its name.
            outcome: JSON types, such as an ``error``.

        Raises:
            OutputError: The line cannot be written, or the file is not there any more.
        """
        file = self._noted.pop(video, None) or VideoFile.of(video)
        record = {"video": shown(video), "run": self._run, "file": file._asdict(), **outcome}
        self.check()
        self._write(json.dumps(record).encode() + b"\n")
        self._remember(video, file, succeeded="error" not in outcome)

    def check(self) -> None:
        """Makes sure that what was written is in the file of that name.

        Raises:
            OutputError: It was removed, renamed, replaced or cut, or another program writes it.
        """
        remedy = "leave it alone while it is written, and start again"
        try:
            there = self.path.stat()
        except OSError as error:
            raise OutputError(
                f"{self.path}: the file into which results were written is not there any more "
                f"({error.strerror}); put it back, or {remedy}"
            ) from error
        written = os.fstat(self._file)
        if not os.path.samestat(there, written):
            raise OutputError(
                f"{self.path}: another file took the place of the one into which results were "
                f"written; put that one back, or {remedy}"
            )
        if written.st_size != self._length:
            raise OutputError(
                f"{self.path}: another program changed the file: it has {written.st_size} bytes, "
                f"not the {self._length} that were written; {remedy}"
            )

    def _write(self, line: bytes) -> None:
        left = line
        try:
            while left:  # a full disk or a signal can cut a write short
                left = left[os.write(self._file, left) :]
        except OSError as error:
            if len(left) < len(line):
                os.ftruncate(self._file, self._length)
            raise OutputError(
                f"{self.path}: cannot be written: {error.strerror}; make room, or free what holds "
                "it, and start again: what is in it is not done again"
            ) from error
        self._length += len(line)

    def _remember(self, video: str, file: VideoFile | None, *, succeeded: bool) -> None:
        here = location(video)
        path = here if file is None else file.path
        self.done[path] = succeeded
        self._files[path] = file
        if file is None:
            self.without_folder += not Path(video).is_absolute()
        else:
            self._named[file._replace(path=here)] = path

    def _check_kind(self) -> None:
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            raise InvalidOptionError(
                f"{self.path} is not a regular file, so a run that breaks off could not go on; "
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
        length = number = 0
        with os.fdopen(os.dup(self._file), "rb") as file:
            while line := file.readline(_LONGEST_LINE):
                number += 1
                if not line.endswith(b"\n"):
                    self._check_cut_off(line, number)
                    break
                video, described, succeeded = self._read_line(line, number)
                self._remember(video, described, succeeded=succeeded)
                length += len(line)
        return length

    def _read_line(self, line: bytes, number: int) -> tuple[str, VideoFile | None, bool]:
        """The video of a line, its file, and whether it succeeded."""
        try:
            record = json.loads(line)
            video, run = record["video"], dict(record["run"])
            file = None if "file" not in record else VideoFile(**record["file"])
            _check_types(video, file)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._not_a_result(number) from error
        self._check_run(run, number)
        return video, file, "error" not in record

    def _check_run(self, run: Mapping[str, Any], number: int) -> None:
        for name in sorted({*run, *self._run} - {_MODEL}):
            if run.get(name) != self._run.get(name):
                raise InvalidOptionError(
                    f"{self.path}: line {number} was made with {name} {run.get(name)!r}, not "
                    f"{self._run.get(name)!r}; give another output, or the options of that run"
                )

    def _check_cut_off(self, line: bytes, number: int) -> None:
        """Makes sure that a last line, without its end, is the beginning of one of this run."""
        try:
            text = line.decode("ascii")
            record = _decoded(text, 0)
        except (ValueError, RecursionError):
            raise self._not_a_result(number) from None
        if record is not None:
            self._read_line(line, number)  # nothing but its end is missing
            return
        name = _TO_NAME.match(text)
        if not _agrees(text, _START if name is None else f"{name[0]}{_TO_RUN}{_RUN}"):
            raise self._not_a_result(number)
        run = _decoded(text, len(f"{name[0]}{_TO_RUN}")) if name else None
        if run is not None:
            self._check_run(run, number)

    def _not_a_result(self, number: int) -> InvalidOptionError:
        return InvalidOptionError(
            f"{self.path}: line {number} is not a result of this command; give another output"
        )


def _decoded(text: str, start: int) -> Any:
    """The JSON value that begins there, whatever follows; None where it has no end."""
    try:
        return json.JSONDecoder().raw_decode(text, start)[0]
    except ValueError:
        return None


def _agrees(text: str, start: str) -> bool:
    """Whether two texts are the same as far as both go."""
    return text.startswith(start) or start.startswith(text)


def _check_types(video: Any, file: VideoFile | None) -> None:
    """Makes sure that a line has the types that this command writes.

    Raises:
        TypeError: It has others.
    """
    path, size, modified = file or VideoFile("", None, None)
    is_ours = (
        isinstance(video, str)
        and isinstance(path, str)
        and isinstance(size, int | None)
        and isinstance(modified, float | int | None)
    )
    if not is_ours:
        raise TypeError
