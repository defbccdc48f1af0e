"""Files of results that are continued."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from timesformer_runtime.errors import InvalidOptionError
from timesformer_runtime.results_file import ResultsFile

RUN = {"model": "shots", "dtype": "int8"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "results.jsonl"
    with ResultsFile(path, RUN) as results:
        results.append("a.mp4", {"predictions": [{"label": "cut", "score": 0.5}]})
        results.append("b\n\udcff.mp4", {"error": "it is empty"})
    return path


def test_lines(path: Path) -> None:
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert first == {
        "video": "a.mp4",
        "run": RUN,
        "predictions": [{"label": "cut", "score": 0.5}],
    }
    assert second == {"video": "b\n\udcff.mp4", "run": RUN, "error": "it is empty"}


def test_one_file_has_many_names(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    with ResultsFile(path, RUN) as results:
        for name in ("./a.mp4", "x/../a.mp4", str(path.parent / "a.mp4")):
            assert results.has(name, or_failed=False)
        assert not results.has("x/a.mp4", or_failed=True)
        results.append("./c.mp4", {})
        assert results.has("c.mp4", or_failed=False)


def test_two_runs_do_not_write_one_file(path: Path) -> None:
    whole = path.read_bytes()
    with ResultsFile(path, RUN), pytest.raises(InvalidOptionError, match="another run is writing"):
        ResultsFile(path, RUN)
    with ResultsFile(path, RUN) as results:
        assert len(results.done) == 2
    assert path.read_bytes() == whole


def test_every_cut_inside_a_line_is_mended(path: Path) -> None:
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        with ResultsFile(path, RUN) as results:
            expected = {"a.mp4": True, "b\n\udcff.mp4": False}
            kept = (length >= first) + (length == len(whole))
            assert len(results.done) == kept
            for video, succeeded in list(expected.items())[:kept]:
                assert results.has(video, or_failed=True)
                assert results.has(video, or_failed=False) == succeeded
            results.append("c.mp4", {})
            assert results.has("c.mp4", or_failed=False)
        assert path.read_bytes().startswith(whole[: [0, first, len(whole)][kept]])
        assert [json.loads(line)["video"] for line in path.read_text().splitlines()] == [
            *list(expected)[:kept],
            "c.mp4",
        ]


@pytest.mark.parametrize(
    "content",
    [b"no results", b"{}\n", b"[1]\n", b'"x"\n', b"\0\n", b"1", b'{"video": "a", "run": 1}\n'],
)
def test_files_of_others_are_left_alone(path: Path, content: bytes) -> None:
    for before in (b"", path.read_bytes()):
        path.write_bytes(before + content)
        with pytest.raises(InvalidOptionError, match=r"line \d is no result of this command"):
            ResultsFile(path, RUN)
        assert path.read_bytes() == before + content


def test_results_of_another_run_are_refused(path: Path) -> None:
    message = r"results.jsonl: line 1 was made with dtype 'int8', not 'fp32'; give another output"
    with pytest.raises(InvalidOptionError, match=message):
        ResultsFile(path, {**RUN, "dtype": "fp32"})
    with pytest.raises(InvalidOptionError, match="made with crops None, not 3"):
        ResultsFile(path, {**RUN, "crops": 3})


def test_a_model_may_have_another_name(path: Path) -> None:
    with ResultsFile(path, {**RUN, "model": "./shots"}) as results:
        assert results.has("a.mp4", or_failed=False)
        results.append("c.mp4", {})
    names = [json.loads(line)["run"]["model"] for line in path.read_text().splitlines()]
    assert names == ["shots", "shots", "./shots"]


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ResultsFile(tmp_path / "no" / "results.jsonl", RUN)
    with pytest.raises(IsADirectoryError):
        ResultsFile(tmp_path, RUN)
