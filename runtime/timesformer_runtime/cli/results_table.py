"""The results of ``timesformer batch`` as a Parquet table, made of the lines of a results file."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from timesformer_runtime.errors import InvalidOptionError
from timesformer_runtime.extras import needs_extra
from timesformer_runtime.ray.columns import result_types
from timesformer_runtime.video_files import location
from timesformer_runtime.whole_file import check_new_file, whole_file

with needs_extra("parquet"):
    import pyarrow
    from pyarrow import parquet

_RUN = b"timesformer_run"  # the key of the metadata
_ROWS = 10_000  # of a group, which is in memory
_COLUMNS = {"video": pyarrow.string(), "path": pyarrow.string(), **result_types(pyarrow)}


def check_table(path: Path, model: str) -> None:
    """Checks, before any work, that a table can be written to a path.

    Args:
        path: The file.
        model: The model, of which it must not replace a file.

    Raises:
        InvalidOptionError: Another file is there, or the file cannot be written.
    """
    check_new_file(path, force=True, videos=(), model=model)  # a video is not a table
    if path.exists() and not _is_ours(path):
        raise InvalidOptionError(
            f"{path} exists already, and is not a table of this command; give another name"
        )


def write_table(results: Path, path: Path) -> int:
    """Writes the table of a results file, with a row for the last line of each video.

    The columns are ``video``, the name of the video; ``path``, its absolute path; and those of
    ``timesformer_runtime.ray.ClassifyVideos``: ``labels``, ``scores``, ``times`` (seconds),
    ``problems`` and ``error``. Model and options are metadata of the file, as JSON.

    Args:
        results: The results file.
        path: The Parquet file, which replaces an older one.

    Returns:
        The number of rows.

    Raises:
        OutputError: The file cannot be written.
    """
    last = {_path(record): number for number, record in enumerate(_records(results))}
    records = (
        record for number, record in enumerate(_records(results)) if last[_path(record)] == number
    )
    group = [*itertools.islice(records, _ROWS)]
    run = group[0]["run"] if group else {}
    schema = pyarrow.schema(_COLUMNS.items(), metadata={_RUN: json.dumps(run).encode()})
    with whole_file(path) as file, parquet.ParquetWriter(file, schema) as writer:
        while group:
            writer.write_table(pyarrow.Table.from_pylist([*map(_row, group)], schema))
            group = [*itertools.islice(records, _ROWS)]
    return len(last)


def _is_ours(path: Path) -> bool:
    try:
        return _RUN in (parquet.read_schema(path).metadata or {})
    except (OSError, pyarrow.ArrowException):
        return False


def _records(results: Path) -> Iterator[dict[str, Any]]:
    with results.open("rb") as lines:
        yield from map(json.loads, lines)


def _path(record: dict[str, Any]) -> str:
    """The absolute path of a line's video; lines of earlier versions have only its name."""
    return str(record["file"]["path"]) if "file" in record else location(record["video"])


def _row(record: dict[str, Any]) -> dict[str, Any]:
    predictions = record.get("predictions", [])
    return {
        "video": _text(record["video"]),
        "path": _text(_path(record)),
        "labels": [_text(prediction["label"]) for prediction in predictions],
        "scores": [prediction["score"] for prediction in predictions],
        "times": record.get("frames", {}).get("times"),
        "problems": [_text(problem) for problem in record.get("problems", [])],
        "error": _text(record["error"]) if "error" in record else None,
    }


def _text(text: str) -> str:
    """Writes the bytes of names that are not UTF-8 as escapes; Parquet does not take them."""
    return text.encode(errors="backslashreplace").decode()
