"""Files of results that are continued."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from timesformer_runtime.cli import results_file
from timesformer_runtime.cli.results_file import ResultsFile
from timesformer_runtime.errors import InvalidOptionError, OutputError

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
    there = {"size": None, "modified": None}  # neither of them is
    assert first == {
        "video": "a.mp4",
        "run": RUN,
        "file": {"path": os.path.realpath("a.mp4"), **there},
        "predictions": [{"label": "cut", "score": 0.5}],
    }
    assert second == {
        "video": "b\n\udcff.mp4",
        "run": RUN,
        "file": {"path": os.path.realpath("b\n\udcff.mp4"), **there},
        "error": "it is empty",
    }


def test_one_file_has_many_names(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    with ResultsFile(path, RUN) as results:
        for name in ("./a.mp4", "x/../a.mp4", str(path.parent / "a.mp4")):
            assert results.succeeded(name) is True
        assert results.succeeded("x/a.mp4") is None
        results.append("./c.mp4", {})
        assert results.succeeded("c.mp4") is True


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
                assert results.succeeded(video) is succeeded
            results.append("c.mp4", {})
            assert results.succeeded("c.mp4") is True
        assert path.read_bytes().startswith(whole[: [0, first, len(whole)][kept]])
        assert [json.loads(line)["video"] for line in path.read_text().splitlines()] == [
            *list(expected)[:kept],
            "c.mp4",
        ]


OWN = json.dumps({"video": "a.mp4", "run": RUN, "predictions": []}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"no results",
        b"{}\n",
        b"[1]\n",
        b'"x"\n',
        b"\0\n",
        b"1",
        b'{"video": "a", "run": 1}\n',
        b'{"video": "a", "note": "mine"}',
        b'{"video": "a", "note": "mine"}\n',
        b'{"video": "a", "note": "mi',
        b'{"video": 1, "no',
        b'{"video": "a", "run": {"model": 1, "of": "another command"}, "mi',
        b'{"video": "a", "run": {"speed": 12}, "mi',
        b'{"video": "a", "predictions": []}\n',
        b'[{"video": "a", "run": {"model": "shots", "dtype": "int8"}}]',
        b"[" * 100_000,
        b'{"video": ' + b"[" * 100_000 + b"\n",
        b'{"video": "a", "file": {"path": "/a", "colour": 1}, "run": {}}\n',
        b'{"video": "a", "file": {"path": 1, "size": 1, "modified": 1}, "run": {}}\n',
        b'{"video": ["a"], "run": {"model": "shots", "dtype": "int8"}}\n',
        b'{"video": "\xff',
        b'{"video": "a\n',
        bytes(100_000),
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
        OWN.replace(b"int8", b"fp32"),
        OWN.replace(b"int8", b"fp32")[:-9],
        OWN + b" and more",
    ],
)
def test_files_of_others_are_left_alone(path: Path, content: bytes) -> None:
    message = r"line \d (is not a result of this command|was made with)"
    for before in (b"", path.read_bytes()):
        path.write_bytes(before + content)
        modified = path.stat().st_mtime_ns
        with pytest.raises(InvalidOptionError, match=message):
            ResultsFile(path, RUN)
        assert path.read_bytes() == before + content
        assert path.stat().st_mtime_ns == modified


def test_files_of_others_behind_a_link_are_left_alone(path: Path) -> None:
    path.write_bytes(b'{"video": "a", "note": "mine"}')
    link = path.with_name("link")
    link.symlink_to(path)
    with pytest.raises(InvalidOptionError, match="line 1 is not a result of this command"):
        ResultsFile(link, RUN)
    assert path.read_bytes() == b'{"video": "a", "note": "mine"}'


def test_a_file_without_a_line_end_is_not_read_in_whole(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results_file, "_LONGEST_LINE", 1 << 10)
    path.write_bytes(b'{"video": "a", ' + bytes(1 << 20))
    with pytest.raises(InvalidOptionError, match="line 1 is not a result of this command"):
        ResultsFile(path, RUN)
    assert len(path.read_bytes()) == (1 << 20) + 15


def test_a_line_that_is_too_long_does_not_cost_those_after_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ResultsFile(path, RUN) as results:
        results.append("a.mp4", {"labels": "x" * 2000})
        results.append("b.mp4", {})
    before = path.read_bytes()
    monkeypatch.setattr(results_file, "_LONGEST_LINE", 1 << 10)
    with pytest.raises(InvalidOptionError, match=r"longer than 1024 bytes.*give another"):
        ResultsFile(path, RUN)
    assert path.read_bytes() == before


def test_a_last_line_that_lacks_only_its_end_is_written_again(path: Path) -> None:
    path.write_bytes(OWN)
    with ResultsFile(path, RUN) as results:
        assert results.succeeded("a.mp4") is None
        results.append("a.mp4", {})
    assert path.read_bytes().count(b"\n") == len(path.read_text().splitlines()) == 1


# --- Which videos are there ----------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders with different videos of one name, and ``results.jsonl`` beside them."""
    for name, content in (("a", b"one"), ("b", b"another")):
        (tmp_path / name / "clips").mkdir(parents=True)
        (tmp_path / name / "clips" / "x.mp4").write_bytes(content)
    return tmp_path / "a", tmp_path / "b"


def test_one_name_in_two_folders_is_two_videos(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folders[0].parent / "results.jsonl"
    for folder in folders:
        monkeypatch.chdir(folder)
        with ResultsFile(path, RUN) as results:
            assert results.succeeded("clips/x.mp4") is None
            results.append("clips/x.mp4", {} if folder.name == "a" else {"error": "no video"})
    for folder, succeeded in zip(folders, (True, False), strict=True):
        monkeypatch.chdir(folder)
        with ResultsFile(path, RUN) as results:
            assert results.succeeded("clips/x.mp4") is succeeded
            assert len(results.done) == 2
    paths = [json.loads(line)["file"]["path"] for line in path.read_text().splitlines()]
    assert paths == [str(folder / "clips" / "x.mp4") for folder in folders]


@pytest.mark.parametrize("change", ["size", "time", "removed", "link"])
def test_a_video_that_was_replaced_is_another_one(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    path, video = folders[0].parent / "results.jsonl", folders[0] / "clips" / "x.mp4"
    monkeypatch.chdir(folders[0])
    with ResultsFile(path, RUN) as results:
        results.append("clips/x.mp4", {})
        before = video.stat()
        if change == "time":
            os.utime(video, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))
        elif change == "size":
            video.write_bytes(b"longer")
            os.utime(video, ns=(before.st_atime_ns, before.st_mtime_ns))
        else:
            video.unlink()
            if change == "link":
                video.symlink_to(folders[1] / "clips" / "x.mp4")
        assert results.succeeded("clips/x.mp4") is None
        results.append("clips/x.mp4", {"error": "no video"})
        assert results.succeeded("clips/x.mp4") is False
    with ResultsFile(path, RUN) as results:
        assert results.succeeded("clips/x.mp4") is False


def test_the_line_tells_the_file_that_was_there_when_it_was_read(
    folders: tuple[Path, Path],
) -> None:
    path, video = folders[0].parent / "results.jsonl", folders[0] / "clips" / "x.mp4"
    with ResultsFile(path, RUN) as results:
        (name,) = results.noted([str(video)])
        video.write_bytes(b"replaced while it was read")
        results.append(name, {})
        assert results.succeeded(name) is None


@pytest.mark.parametrize("in_its_place", [False, True])
def test_a_folder_may_be_moved(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, in_its_place: bool
) -> None:
    path = folders[0].parent / "results.jsonl"
    monkeypatch.chdir(folders[0])
    with ResultsFile(path, RUN) as results:
        results.append("clips/x.mp4", {})
    moved = folders[0].rename(folders[0].with_name("moved"))
    if in_its_place:
        folders[1].rename(folders[0])
    monkeypatch.chdir(moved)
    with ResultsFile(path, RUN) as results:
        assert results.succeeded("clips/x.mp4")
        assert results.succeeded("./clips/x.mp4")
        assert results.succeeded(str(folders[0] / "clips" / "x.mp4")) is None


def test_a_copy_beside_its_original_is_another_video(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folders[0].parent / "results.jsonl"
    monkeypatch.chdir(folders[0])
    with ResultsFile(path, RUN) as results:
        results.append("clips/x.mp4", {})
    (folders[1] / "clips" / "x.mp4").unlink()
    os.link("clips/x.mp4", folders[1] / "clips" / "x.mp4")  # the size and time are the same
    monkeypatch.chdir(folders[1])
    with ResultsFile(path, RUN) as results:
        assert results.succeeded("clips/x.mp4") is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_told_by_its_path(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folders[0].parent / "results.jsonl"
    for folder in folders:
        os.mkfifo(folder / "pipe")
        monkeypatch.chdir(folder)
        with ResultsFile(path, RUN) as results:
            assert results.succeeded("pipe") is None
            results.append("pipe", {})
            os.utime("pipe")  # as when something is written to it
            assert results.succeeded("pipe")


def test_files_of_earlier_versions_go_on(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folders[0].parent / "results.jsonl"
    lines = [{"video": "clips/x.mp4", "run": RUN}, {"video": "y.mp4", "run": RUN, "error": "no"}]
    whole = "".join(json.dumps(line) + "\n" for line in lines)
    path.write_text(whole + '{"video": "z.mp4", "run": {"model": "shots", "dty')
    monkeypatch.chdir(folders[0])
    with ResultsFile(path, RUN) as results:
        assert results.without_folder == 2
        assert results.succeeded("clips/x.mp4")
        assert results.succeeded(str(folders[0] / "clips" / "x.mp4"))
        assert results.succeeded("y.mp4") is False
        assert results.succeeded("z.mp4") is None
        results.append("z.mp4", {})
    assert path.read_text().startswith(whole + '{"video": "z.mp4", "run": ')


# --- A file that is changed while it is written --------------------------------------------------


def removed(path: Path) -> None:
    path.unlink()


def renamed(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def cut(path: Path) -> None:
    os.truncate(path, 10)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.replace(path)


def added_to(path: Path) -> None:
    with path.open("a") as file:
        file.write("\n")


@pytest.mark.skipif(os.name != "posix", reason="this system keeps others from open files")
@pytest.mark.parametrize("change", [removed, renamed, cut, emptied, replaced, added_to])
def test_a_file_that_was_changed_meanwhile(path: Path, change: Callable[[Path], None]) -> None:
    with ResultsFile(path, RUN) as results:
        results.append("c.mp4", {})
        results.check()
        change(path)
        content = path.read_bytes() if path.exists() else None
        for action in (results.check, lambda: results.append("d.mp4", {})):
            with pytest.raises(OutputError, match=r"results\.jsonl: .* start again"):
                action()
        assert (path.read_bytes() if path.exists() else None) == content
        assert results.succeeded("d.mp4") is None


@pytest.mark.skipif(not hasattr(os, "pread"), reason="this system has no such limits")
def test_a_line_that_does_not_fit_leaves_no_part_of_it(path: Path) -> None:
    import resource  # noqa: PLC0415

    whole = path.read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with ResultsFile(path, RUN) as results:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 20, before[1]))
        try:
            with pytest.raises(OutputError, match=r"results\.jsonl cannot be written: .*ulimit -f"):
                results.append("c.mp4", {})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
        assert path.read_bytes() == whole
        results.append("c.mp4", {})


def test_results_of_another_run_are_refused(path: Path) -> None:
    message = r"results.jsonl: line 1 was made with dtype 'int8', not 'fp32'; give another output"
    with pytest.raises(InvalidOptionError, match=message):
        ResultsFile(path, {**RUN, "dtype": "fp32"})
    with pytest.raises(InvalidOptionError, match="made with crops None, not 3"):
        ResultsFile(path, {**RUN, "crops": 3})


def test_a_model_may_have_another_name(path: Path) -> None:
    with ResultsFile(path, {**RUN, "model": "./shots"}) as results:
        assert results.succeeded("a.mp4") is True
        results.append("c.mp4", {})
    names = [json.loads(line)["run"]["model"] for line in path.read_text().splitlines()]
    assert names == ["shots", "shots", "./shots"]


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ResultsFile(tmp_path / "no" / "results.jsonl", RUN)
    with pytest.raises(IsADirectoryError):
        ResultsFile(tmp_path, RUN)
