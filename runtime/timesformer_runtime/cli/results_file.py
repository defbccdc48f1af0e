"""The results file of ``timesformer batch``: JSON lines, which a later run continues."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from timesformer_runtime.errors import InvalidOptionError
from timesformer_runtime.lines_file import LONGEST_LINE, LinesFile
from timesformer_runtime.source_names import shown
from timesformer_runtime.video_files import FileIdentity, location

# The beginning of every line, up to the last character of the name, and the part after the name.
_START = '{"video": "'
_TO_NAME = re.compile(re.escape(_START) + r'(?:[^"\\\x00-\x1f]|\\.|\\$)*')
_TO_RUN, _RUN = '", "run": ', '{"model": '
_MODEL = "model"  # not compared: a model has many names; its fingerprint is compared
_LONGEST_LINE = LONGEST_LINE


class ResultsFile:
    """Opens a results file, reads which videos are done, and adds lines.

    Each line is written whole. If an earlier run was killed in the middle of a line, this class
    removes the line, and its video is done again. This class refuses a file with any other line,
    and leaves the file as it is.

    A video is done if a line has its absolute path, its size and its time of change. If the file
    of a line is gone or has changed, as after its folder was moved, the video is also done if the
    name in the line leads to it from the current folder, and size and time are those of the line.
    Lines of earlier versions have a name only.

    Args:
        path: The results file. Its folder must exist.
        run: The model and options that make the results, as JSON types. A file is continued with
            equal values only, except for ``model``, the model's name.

    Attributes:
        path: The results file.
        done: Maps the absolute path of each video in the file to True for a result, False for an
            error.
        without_folder: The number of lines of earlier versions with a relative name.

    Raises:
        InvalidOptionError: The file is a pipe or device, holds something else or results of
            another run, or another run is writing it.
        OSError: The file cannot be read or written.
    """

    def __init__(self, path: Path, run: Mapping[str, Any]) -> None:
        self.done: dict[str, bool] = {}
        self.without_folder = 0
        self.path = path
        self._run = dict(run)
        # The video file of each line, by path as in ``done``; None for lines of earlier versions.
        self._files: dict[str, FileIdentity | None] = {}
        # The paths of ``done``, by the file to which a line's name leads from the current folder.
        self._named: dict[FileIdentity, str] = {}
        self._noted: dict[
            str, FileIdentity
        ] = {}  # the files of videos that are being read, by name
        self._lines = LinesFile(path)
        try:
            self._lines.read(self._take, self._check_cut_off, _LONGEST_LINE)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._lines.close()

    def succeeded(self, video: str) -> bool | None:
        """True where the file has a result for a video, False for an error, None for neither."""
        file = FileIdentity.of(video)
        if file.path in self.done and self._files[file.path] in {None, file}:
            return self.done[file.path]
        path = self._named.get(file)
        if path is None:
            return None
        if file.size is None:
            is_moved = not os.path.lexists(file.path)  # the video is missing at both paths
        else:
            is_moved = FileIdentity.of(path) != self._files[path]
        return self.done[path] if is_moved else None

    def noted(self, videos: Iterable[str]) -> Iterator[str]:
        """Gives the videos one by one, and notes the file of each for its line."""
        for video in videos:
            self._noted[video] = FileIdentity.of(video)
            yield video

    def append(self, video: str, outcome: Mapping[str, Any]) -> None:
        """Adds the line of a video: its name, the run, its file, and the outcome.

        Args:
            video: The video's name.
            outcome: A result or an ``error``, as JSON types.

        Raises:
            OutputError: The line cannot be written, or the results file is not there any more.
        """
        file = self._noted.pop(video, None) or FileIdentity.of(video)
        record = {"video": shown(video), "run": self._run, "file": file._asdict(), **outcome}
        self._lines.append(json.dumps(record).encode() + b"\n")
        self._remember(video, file, succeeded="error" not in outcome)

    def check(self) -> None:
        """Checks that the path still leads to the file with all lines that were written.

        Raises:
            OutputError: The file was removed, renamed, replaced or cut, or another program
                writes it.
        """
        self._lines.check()

    def _remember(self, video: str, file: FileIdentity | None, *, succeeded: bool) -> None:
        here = location(video)
        path = here if file is None else file.path
        self.done[path] = succeeded
        self._files[path] = file
        if file is None:
            self.without_folder += not Path(video).is_absolute()
        else:
            self._named[file._replace(path=here)] = path

    def _take(self, line: bytes, number: int) -> None:
        video, described, succeeded = self._read_line(line, number)
        self._remember(video, described, succeeded=succeeded)

    def _read_line(self, line: bytes, number: int) -> tuple[str, FileIdentity | None, bool]:
        """Returns the video of a line, its file, and True for a result, False for an error."""
        try:
            record = json.loads(line)
            video, run = record["video"], dict(record["run"])
            file = None if "file" not in record else FileIdentity(**record["file"])
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
        """Checks that a last line without a line end is the beginning of a line of this run."""
        try:
            text = line.decode("ascii")
            record = _decoded(text, 0)
        except (ValueError, RecursionError):
            raise self._not_a_result(number) from None
        if record is not None:
            self._read_line(line, number)  # only the line end is missing
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
    """Decodes the JSON value that begins at an offset; None where it is not complete."""
    try:
        return json.JSONDecoder().raw_decode(text, start)[0]
    except ValueError:
        return None


def _agrees(text: str, start: str) -> bool:
    """True where one of the texts is the beginning of the other."""
    return text.startswith(start) or start.startswith(text)


def _check_types(video: Any, file: FileIdentity | None) -> None:
    """Checks that a line has the types that this command writes.

    Raises:
        TypeError: The line has other types.
    """
    path, size, modified = file or FileIdentity("", None, None)
    is_ours = (
        isinstance(video, str)
        and isinstance(path, str)
        and isinstance(size, int | None)
        and isinstance(modified, float | int | None)
    )
    if not is_ours:
        raise TypeError
