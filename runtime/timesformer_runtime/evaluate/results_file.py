"""The results of an evaluation: a line for the run, then one for each video."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from timesformer_runtime.errors import InvalidOptionError, listed, named, quoted
from timesformer_runtime.evaluate.datasets.samples import Sample
from timesformer_runtime.lines_file import LinesFile
from timesformer_runtime.video_files import FileIdentity

RESULTS, METRICS, REPORT = "results.jsonl", "metrics.json", "report.html"
_START = '{"evaluation": 1, '
# A model has many names: fingerprints are compared. A dataset may move: its videos are compared.
_NOT_COMPARED = frozenset({"evaluation", "model", "data", "root", "labels", "split"})
_OPTIONS = {
    "method": "sampling",
    "rate": "frame_sampling_rate",
}  # fields that an option names otherwise
_REMEDY = "give another `output`, the same arguments as then, or `force=True` to begin again"


class EvaluationFile:
    """Opens the results of an evaluation, reads which videos are done, and adds lines.

    A video is done if its last line has the name in the dataset, the size and the time of change of
    its file. Lines of videos that the dataset does not have any more do not count.

    Args:
        folder: The folder of the evaluation, which is made if there is none.
        run: The models and options, as JSON types. Results are continued with equal values only.
        samples: The videos, and the names of their true labels.
        force: True to begin again, without the results that exist.

    Attributes:
        path: The file.
        left_out: The names of videos that have a line, and that the dataset does not have.

    Raises:
        InvalidOptionError: The folder has results of another run or other labels, or other files of
            these names; or another run is writing them.
        OSError: The file cannot be read or written.
    """

    def __init__(
        self,
        folder: Path,
        run: Mapping[str, Any],
        samples: Sequence[tuple[Sample, Sequence[str]]],
        *,
        force: bool,
    ) -> None:
        self.path = folder / RESULTS
        self._labels = {sample.file: list(labels) for sample, labels in samples}
        self._paths = {sample.file: sample.path for sample, _ in samples}
        self._run = dict(run)
        # By the name of each video: size and time of change, and the number of its last line.
        self._files: dict[str, tuple[int | None, float | None]] = {}
        self._last: dict[str, int] = {}
        self._failed: set[str] = set()
        self.left_out: set[str] = set()
        self._is_elsewhere = False
        self._count = 0
        self._make(folder, force=force)
        self._lines = LinesFile(self.path)
        try:
            if force:
                self._lines.clear()
            else:
                self._lines.read(self._take, self._check_cut_off)
                self._check_data()
            if not self._count:
                self._add({"evaluation": 1, **self._run})
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Reads the lines from the file: that of the run, and the last one of each video."""
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                record = json.loads(line)
                if number == 1:
                    yield record
                elif self._last.get(record["file"]) == number:
                    yield {**record, "path": self._paths[record["file"]]}

    def close(self) -> None:
        """Closes the file."""
        self._lines.close()

    def is_done(self, sample: Sample, *, failed_too: bool = True) -> bool:
        """True where the file has a line of a video as it is now.

        Args:
            sample: The video.
            failed_too: False to do videos again whose line has an error.
        """
        if not failed_too and sample.file in self._failed:
            return False
        return self._is_same(sample.file)

    def append(self, sample: Sample, file: FileIdentity, outcome: Mapping[str, Any]) -> None:
        """Adds the line of a video.

        Args:
            sample: The video.
            file: Its file as it was before it was read.
            outcome: Results, or an ``error``, as JSON types.

        Raises:
            OutputError: The line cannot be written, or the file is not there any more.
        """
        record = {
            "file": sample.file,
            "path": sample.path,
            "true_labels": self._labels[sample.file],
            "size": file.size,
            "modified": file.modified,
            **outcome,
        }
        self._add(record)
        self._remember(record)

    def check(self) -> None:
        """Checks that the path still leads to the file with all lines that were written.

        Raises:
            OutputError: It does not.
        """
        self._lines.check()

    def _make(self, folder: Path, *, force: bool) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                error.errno, f"{error.strerror}; give a folder that can be made", str(folder)
            ) from None
        if not force and not self.path.exists():
            strange = [name for name in (METRICS, REPORT) if (folder / name).exists()]
            if strange:
                raise InvalidOptionError(
                    f"{folder} has {listed(strange)} but no {RESULTS}; {_REMEDY}"
                )

    def _add(self, record: Mapping[str, Any]) -> None:
        self._lines.append(json.dumps(record).encode() + b"\n")
        self._count += 1

    def _remember(self, record: Mapping[str, Any]) -> None:
        file = record["file"]
        if file not in self._labels:
            self.left_out.add(file)
            return
        self._files[file] = record["size"], record["modified"]
        self._last[file] = self._count
        self._failed.discard(file)
        if "error" in record:
            self._failed.add(file)

    def _take(self, line: bytes, number: int) -> None:
        try:
            record = json.loads(line)
            self._count = number
            if number == 1:
                self._check_run(record)
                return
            self._check_sample(record)
            self._remember(record)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            if isinstance(error, InvalidOptionError):
                raise
            raise self._not_ours(number) from error

    def _check_run(self, record: dict[str, Any]) -> None:
        if record.pop("evaluation") != 1:
            raise self._not_ours(1)
        wanted = json.loads(json.dumps(self._run))
        self._is_elsewhere = any(record.get(name) != wanted.get(name) for name in ("data", "root"))
        for name in sorted({*record, *wanted} - _NOT_COMPARED):
            then, now = record.get(name), wanted.get(name)
            if then != now:
                difference = _difference(name, then, now)
                raise InvalidOptionError(f"{self.path} was made with {difference}; {_REMEDY}")

    def _check_data(self) -> None:
        """Makes sure that most of the results are of videos that the dataset has.

        Datasets often have files of equal names: those of another path must be equal files.
        """
        gone = set(self.left_out)
        if self._is_elsewhere:
            gone |= {file for file in self._last if not self._is_same(file)}
        count = len(self._last) + len(self.left_out)
        if 2 * len(gone) > count:
            raise InvalidOptionError(
                f"{self.path} has the results of {count} videos, {len(gone)} of which the data "
                f"does not have, such as {quoted(min(gone))}; {_REMEDY}"
            )

    def _is_same(self, file: str) -> bool:
        return self._files.get(file) == FileIdentity.of(self._paths[file])[1:]

    def _check_sample(self, record: Mapping[str, Any]) -> None:
        labels = self._labels.get(record["file"], record["true_labels"])
        if labels != record["true_labels"]:
            raise InvalidOptionError(
                f"{self.path}: {quoted(record['file'])} had the label "
                f"{quoted(record['true_labels'])}, and now has {quoted(labels)}; {_REMEDY}"
            )

    def _check_cut_off(self, line: bytes, number: int) -> None:
        """Checks that a last line without a line end can be the beginning of one of this run."""
        start = _START.encode() if number == 1 else b'{"file": "'
        if not (line.startswith(start) or start.startswith(line)):
            raise self._not_ours(number)

    def _not_ours(self, number: int) -> InvalidOptionError:
        return InvalidOptionError(f"{self.path}: line {number} is not of an evaluation; {_REMEDY}")


def _difference(name: str, then: Any, now: Any) -> str:
    """Describes how the options or models of two runs differ, such as ``crops 3, not 1``."""
    if isinstance(then, dict) and isinstance(now, dict):
        if then.keys() != now.keys():
            return f"{name} {listed(then)}, not {listed(now)}"
        changed = [key for key in then if then[key] != now[key]]
        if name == "models":
            return f"another model {listed(changed)}"
        return "; ".join(
            _difference(_OPTIONS.get(key, key), then[key], now[key]) for key in changed
        )
    return f"{name.replace('_', ' ')} {_told(then)}, not {_told(now)}"


def _told(value: Any) -> str:
    return "none" if value is None else named(str(value))
