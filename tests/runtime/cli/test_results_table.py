"""``timesformer batch --parquet``: the table of a results file. Needs pyarrow."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from timesformer_runtime import VideoClassifier
from timesformer_runtime.errors import OutputError

from tests.command_line import Result, assert_bad_input, timesformer
from tests.tiny_graphs import write_exported_model, write_videos

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra `parquet`)")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table")
    write_exported_model(folder / "shots")
    write_videos(folder)
    return folder


def _batch(folder: Path, *more: object) -> Result:
    return timesformer(folder, "batch", "shots", *more, "--device", "cpu", "--dtype", "fp32")


def test_a_row_for_each_video(folder: Path, tmp_path: Path) -> None:
    lines, table = tmp_path / "results.jsonl", tmp_path / "results.parquet"
    done = _batch(folder, "a.mp4", "b.mkv", "broken.mp4", "--output", lines, "--parquet", table)
    assert done.returncode == 2, "one of the videos is broken"
    assert done.stderr.splitlines()[-1] == f"{table}: 3 rows"
    found = parquet.read_table(table)
    rows = {row.pop("video"): row for row in found.to_pylist()}
    assert sorted(rows) == ["a.mp4", "b.mkv", "broken.mp4"]
    classifier = VideoClassifier.from_pretrained(folder / "shots", dtype="fp32", device="cpu")
    for name in ("a.mp4", "b.mkv"):
        expected = classifier.classify(folder / name)
        np.testing.assert_allclose(
            rows[name].pop("scores"), [p["score"] for p in expected.predictions], rtol=1e-5
        )
        assert rows[name] == {
            "path": str((folder / name).resolve()),
            "labels": [prediction["label"] for prediction in expected.predictions],
            "times": list(expected.times or ()),
            "problems": list(expected.problems),
            "error": None,
        }
    broken = rows["broken.mp4"]
    assert "broken.mp4" in broken.pop("error")
    assert broken.pop("path") == str((folder / "broken.mp4").resolve())
    assert broken == {"labels": [], "scores": [], "times": None, "problems": []}
    run = json.loads(found.schema.metadata[b"timesformer_run"])
    assert (run["model"], run["top_k"]) == ("shots", 5)


def test_a_later_run_replaces_the_table(folder: Path, tmp_path: Path) -> None:
    lines, table = tmp_path / "results.jsonl", tmp_path / "results.parquet"
    arguments = ["--output", lines, "--parquet", table]
    assert _batch(folder, "broken.mp4", *arguments).returncode == 2
    assert parquet.read_table(table).num_rows == 1
    done = _batch(folder, "a.mp4", "broken.mp4", "--retry-failed", *arguments)
    assert done.stderr.splitlines()[-1] == f"{table}: 2 rows"
    assert len(lines.read_text().splitlines()) == 3
    assert sorted(parquet.read_table(table)["video"].to_pylist()) == ["a.mp4", "broken.mp4"]


def test_types_do_not_depend_on_the_values(tmp_path: Path) -> None:
    """Several tables could not be read together otherwise."""
    results_table = pytest.importorskip("timesformer_runtime.cli.results_table")
    good: dict[str, Any] = {"video": "a.mp4", "run": {}, "predictions": []}
    schemas = []
    for number, lines in enumerate(
        ([], [good], [{"video": "\udcff.mp4", "run": {}, "error": "x"}])
    ):
        (tmp_path / "lines").write_text("".join(json.dumps(line) + "\n" for line in lines))
        table = tmp_path / f"{number}.parquet"
        assert results_table.write_table(tmp_path / "lines", table) == len(lines)
        assert parquet.read_table(table).num_rows == len(lines)
        schemas.append(parquet.read_schema(table))
    assert schemas[0] == schemas[1] == schemas[2]


def test_groups_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results_table = pytest.importorskip("timesformer_runtime.cli.results_table")
    monkeypatch.setattr(results_table, "_ROWS", 3)
    lines: list[dict[str, Any]]
    lines = [{"video": f"{n % 8}.mp4", "run": {}, "error": str(n)} for n in range(12)]
    lines[11]["file"] = {"path": os.path.realpath("3.mp4")}  # lines of earlier versions have none
    (tmp_path / "lines").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert results_table.write_table(tmp_path / "lines", tmp_path / "table") == 8
    found = parquet.read_table(tmp_path / "table")
    assert found["error"].to_pylist() == [str(n) for n in range(4, 12)], "the last line counts"


def test_a_table_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results_table = pytest.importorskip("timesformer_runtime.cli.results_table")
    (tmp_path / "lines").write_text(json.dumps({"video": "a", "run": {}, "error": "x"}) + "\n")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(results_table.parquet.ParquetWriter, "write_table", full)
    with pytest.raises(
        OutputError, match=r"table cannot be written: No space left on device; make room"
    ):
        results_table.write_table(tmp_path / "lines", tmp_path / "table")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lines"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("r.jsonl", "--parquet and --output name one file; give two"),
        ("a.mp4", "a.mp4 exists already, and is not a table of this command"),
        ("no/t.parquet", "no/t.parquet: there is no folder no; make it first"),
        ("shots", "shots is a folder"),
        ("-", "a table cannot go to standard output"),
        ("shots/t.parquet", "shots/t.parquet lies in the folder of the model shots"),
    ],
)
def test_bad_input(folder: Path, table: str, message: str) -> None:
    done = _batch(folder, "a.mp4", "--output", "r.jsonl", "--parquet", table)
    assert_bad_input(done, message)
    assert not (folder / "r.jsonl").exists()
