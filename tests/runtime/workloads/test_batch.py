"""Many videos, as an iterator and as the command."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from timesformer_runtime import InvalidOptionError, VideoClassifier
from timesformer_runtime.errors import MissingOutputError, TimesformerError
from timesformer_runtime.workloads.workers import shared_threads

from tests.patience import PATIENCE
from tests.tiny_graphs import (
    TinyGraph,
    moving_frames,
    own_metadata,
    write_exported_model,
    write_video,
)
from tests.video_files import damage

MANY = 60
BEFORE_GATES = 10  # videos that a run does until it waits


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported model ``shots``, and in ``clips`` three videos and one that is none."""
    folder = tmp_path_factory.mktemp("batch")
    write_exported_model(folder / "shots", ("fp32", "int8"))
    write_video(folder / "clips" / "a.mp4", moving_frames(21))
    write_video(folder / "clips" / "b.mkv", 255 - moving_frames(9))
    write_video(folder / "clips" / "deep" / "c.mp4", moving_frames(30))
    (folder / "clips" / "broken.mp4").write_text("no video")
    (folder / "many").mkdir()
    for number in range(MANY):
        os.link(folder / "clips" / "a.mp4", folder / "many" / f"{number:02}.mp4")
    return folder


@pytest.fixture(scope="module")
def classifier(folder: Path) -> VideoClassifier:
    return VideoClassifier.from_pretrained(folder / "shots", dtype="fp32", device="cpu", threads=2)


# --- The iterator --------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [None, 1, 5])
def test_every_video_has_the_outcome_of_classify(
    folder: Path, classifier: VideoClassifier, workers: int | None
) -> None:
    videos = [*map(str, (folder / "clips").rglob("*.m*")), str(folder / "missing.mp4")]
    outcomes = {
        str(outcome.video): outcome
        for outcome in classifier.batch(videos, 3, "sigmoid", workers=workers)
    }
    assert sorted(outcomes) == sorted(videos)
    for video, outcome in outcomes.items():
        if "broken" in video or "missing" in video:
            assert outcome.result is None
            with pytest.raises(TimesformerError) as error:
                classifier.classify(video)
            assert repr(error.value) == repr(outcome.error)
        else:
            assert outcome.error is None
            assert outcome.result is not None
            expected = classifier.classify(video, 3, "sigmoid")
            assert outcome.result.predictions == expected.predictions
            assert outcome.result.indices == expected.indices


def test_arrays_and_open_files(folder: Path, classifier: VideoClassifier) -> None:
    frames = moving_frames(12)
    with (folder / "clips" / "a.mp4").open("rb") as file:
        outcomes = list(classifier.batch([frames, file], workers=1))
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert outcomes[0].result is not None
    assert outcomes[0].result.predictions == classifier.classify(frames).predictions


def test_only_a_few_videos_are_taken_ahead(folder: Path, classifier: VideoClassifier) -> None:
    taken = 0

    def videos() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield folder / "clips" / "a.mp4"

    outcomes = classifier.batch(videos(), workers=2)
    assert taken == 0
    for given in range(1, 20):
        assert next(outcomes).result is not None
        assert taken <= given + 2 * (2 + 1)
    outcomes.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batch")]


SCRIPT = """
import itertools, sys, threading
from timesformer_runtime import VideoClassifier

classifier = VideoClassifier.from_pretrained("shots", device="cpu", dtype="fp32", threads=1)
begun = threading.Event()

def videos():
    for count in itertools.count():
        if count == 8:
            begun.set()
        if count >= 8:
            threading.main_thread().join()  # it is over, and the interpreter ends
        if count == 20 and not threading.current_thread().daemon:
            return
        yield "clips/a.mp4"

def use():
    print(sum(outcome.result is not None for outcome in classifier.batch(videos())))

def watch():
    while True:
        for _ in classifier.timeline("clips/c.mp4", 0.5, 0.1, workers=2):
            begun.set()

targets = {"batch": use, "timeline": watch}
threading.Thread(target=targets[sys.argv[1]], daemon=sys.argv[2] == "daemon").start()
begun.wait()
"""


@pytest.mark.parametrize(
    ("what", "kind"), [("batch", "daemon"), ("batch", "usual"), ("timeline", "daemon")]
)
def test_a_thread_that_outlives_the_main_one(folder: Path, what: str, kind: str) -> None:
    """A daemon ends without a word; another thread gets all of its results."""
    (folder / "clips" / "c.mp4").write_bytes((folder / "clips" / "deep" / "c.mp4").read_bytes())
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, what, kind],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == ("20\n" if kind == "usual" else "")
    (folder / "clips" / "c.mp4").unlink()


def test_any_error_is_that_of_its_video(
    folder: Path, classifier: VideoClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = VideoClassifier.read

    def failing(self: VideoClassifier, video: Any, **options: Any) -> Any:
        if isinstance(video, Exception):
            raise video
        return read(self, video, **options)

    monkeypatch.setattr(VideoClassifier, "read", failing)
    errors: list[Any] = [RuntimeError("a bug"), MemoryError(), OSError(5, "Input/output error")]
    outcomes = list(classifier.batch([*errors, folder / "clips" / "a.mp4"], workers=1))
    assert [str(outcome.error) for outcome in outcomes] == [
        "a bug",
        "there is not enough memory for it",
        "[Errno 5] Input/output error",
        "None",
    ]


def test_wrong_arguments_are_told_before_any_work(
    folder: Path, classifier: VideoClassifier
) -> None:
    for workers in (0, 1000, True, "2"):
        with pytest.raises(InvalidOptionError, match=f"`workers` is {workers!r}; it must be"):
            classifier.batch([], workers=workers)  # type: ignore[arg-type]
    with pytest.raises(InvalidOptionError, match="`top_k` is 0"):
        classifier.batch([], top_k=0)
    for videos in ("a.mp4", b"a.mp4", Path("a.mp4"), io.BytesIO(), moving_frames(4), 5, None):
        name = type(videos).__name__
        with pytest.raises(InvalidOptionError, match=f"`videos` is one {name}; it must be a list"):
            classifier.batch(videos)  # type: ignore[arg-type]
    headless = TinyGraph(output="features", metadata=own_metadata(task="feature-extraction"))
    headless.save(folder / "headless.onnx")
    with pytest.raises(MissingOutputError, match="it has no output 'logits'"):
        VideoClassifier.from_pretrained(folder / "headless.onnx").batch([])


# --- The command ---------------------------------------------------------------------------------


def arguments(folder: Path, *more: object) -> list[str]:
    module = [sys.executable, "-m", "timesformer_runtime", "batch", "shots"]
    return [*module, *map(str, more), "--device", "cpu", "--dtype", "fp32"]


def batch(
    folder: Path, *more: object, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments(folder, *more),
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


def read_lines(path: Path) -> list[dict[str, Any]]:
    content = path.read_text()
    assert content.endswith("\n")
    return [json.loads(line) for line in content.splitlines()]


def test_a_line_per_video(folder: Path, tmp_path: Path, classifier: VideoClassifier) -> None:
    path = tmp_path / "results.jsonl"
    result = batch(
        folder, "clips", "-", "--output", path, "--top-k", 2, stdin="no.mp4\nclips/a.mp4\n"
    )
    assert result.returncode == 2
    assert result.stdout == ""
    lines = {line["video"]: line for line in read_lines(path)}
    failed = {"no.mp4", "clips/broken.mp4"}
    assert set(lines) == {"clips/a.mp4", "clips/b.mkv", "clips/deep/c.mp4", *failed}
    for video, line in lines.items():
        assert line["run"]["model"] == "shots"
        assert line["run"]["dtype"] == "fp32"
        assert line["run"]["sampling"]["method"] == "uniform"
        if video in failed:
            assert set(line) == {"video", "run", "file", "error"}
            assert f"timesformer: {line['error']}" in result.stderr
        else:
            expected = classifier.classify(folder / video, 2).to_dict()
            assert line["predictions"] == expected["predictions"]
            assert line["frames"] == expected["frames"]
    assert "results.jsonl: 5 videos in " in result.stderr
    assert result.stderr.splitlines()[-1].endswith("a second, 2 failed")


def test_what_is_there_is_not_done_again(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    assert batch(folder, "clips/a.mp4", "--output", path).returncode == 0
    first = path.read_text()
    assert batch(folder, "clips", "--output", path).returncode == 2
    second = path.read_text()
    assert second.startswith(first)
    again = batch(folder, "clips", "--output", path)
    assert again.returncode == 2  # an earlier failure is one
    assert path.read_text() == second
    assert re.search(r"\b0 videos in \S+ s, 4 were done before, 1 failed\n", again.stderr)
    retried = batch(folder, "clips", "--output", path, "--retry-failed")
    assert retried.returncode == 2
    assert [line["video"] for line in read_lines(path)].count("clips/broken.mp4") == 2
    other = batch(folder, "clips", "--output", path, "--top-k", 1)
    assert other.returncode == 2
    assert "line 1 was made with top_k 5, not 1; give another output" in other.stderr


def test_a_second_folder_with_the_same_names_is_done_too(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    for name, frames in (("one", moving_frames(8)), ("two", 255 - moving_frames(9))):
        write_video(tmp_path / name / "a.mp4", frames)
    ends = []
    for name in ("one", "two", "one", "two"):
        run = arguments(folder, "a.mp4", "--output", path)
        run[run.index("shots")] = str(folder / "shots")
        ends.append(subprocess.run(run, cwd=tmp_path / name, capture_output=True, check=False))
    assert [end.returncode for end in ends] == [0, 0, 0, 0]
    lines = read_lines(path)
    assert [line["video"] for line in lines] == ["a.mp4", "a.mp4"]
    assert [line["frames"]["count"] for line in lines] == [8, 9]
    paths = [line["file"]["path"] for line in lines]
    assert paths == [str(tmp_path / name / "a.mp4") for name in ("one", "two")]


def test_a_video_that_was_replaced_is_done_again(folder: Path, tmp_path: Path) -> None:
    path, video = tmp_path / "results.jsonl", tmp_path / "a.mp4"
    for count in (8, 9):
        write_video(video, moving_frames(count))
        assert batch(folder, video, "--output", path).returncode == 0
    assert [line["frames"]["count"] for line in read_lines(path)] == [8, 9]


def test_lines_of_an_earlier_version_count(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    assert batch(folder, "clips/a.mp4", "--output", path).returncode == 0
    (line,) = read_lines(path)
    del line["file"]
    path.write_text(json.dumps(line) + "\n")
    result = batch(folder, "clips/a.mp4", "--output", path)
    assert result.returncode == 0
    assert read_lines(path) == [line]
    assert "1 of its lines, of an earlier version, have names without a folder" in result.stderr
    assert re.search(r"\b0 videos in \S+ s, 1 was done before\n", result.stderr)


@pytest.mark.parametrize("content", ['{"video": "mine"}', '{"video": "mine"}\n', "[1, 2]", "\0"])
def test_a_file_of_somebody_else_is_not_touched(folder: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "notes.json").write_text(content)
    result = batch(folder, "clips/a.mp4", "--output", tmp_path / "notes.json")
    assert result.returncode == 2
    assert "notes.json: line 1 is not a result of this command" in result.stderr.splitlines()[-1]
    assert (tmp_path / "notes.json").read_text() == content


@pytest.mark.skipif(os.name != "posix", reason="this system keeps others from open files")
@pytest.mark.parametrize("change", ["removed", "renamed", "cut"])
def test_an_output_that_is_changed_meanwhile_is_told(
    folder: Path, tmp_path: Path, change: str
) -> None:
    path = tmp_path / "results.jsonl"
    process, gate = started(folder, path)
    if change == "removed":
        path.unlink()
    elif change == "renamed":
        path.rename(tmp_path / "elsewhere")
    else:
        os.truncate(path, 100)
    gate.write_bytes(b"no video")
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert errors.splitlines()[-1].startswith(f"timesformer: {path}: ")
    assert errors.splitlines()[-1].endswith("leave it alone while it is written, and start again")


def test_results_of_a_model_that_was_replaced_are_refused(folder: Path, tmp_path: Path) -> None:
    run = [sys.executable, "-m", "timesformer_runtime", "batch", "model.onnx"]
    run += [str(folder / "clips" / "a.mp4"), "--output", "results.jsonl", "--device", "cpu"]
    ends = []
    for scale in (1.0, 1.0, 2.0):  # as after another calibration: only the weights tell
        TinyGraph(metadata=own_metadata(), scale=scale).save(tmp_path / "model.onnx")
        ends.append(subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False))
    assert [end.returncode for end in ends] == [0, 0, 2]
    assert "line 1 was made with fingerprint" in ends[-1].stderr


def started(folder: Path, path: Path) -> tuple[subprocess.Popen[str], Path]:
    """A run over many videos that has written some lines, and waits for the first of two pipes."""
    gates = [path.with_name(f"gate{number}.mp4") for number in range(2)]
    for gate in gates:
        os.mkfifo(gate)
    videos = ["many/0?.mp4", *gates, "many", "--workers", len(gates)]
    process = subprocess.Popen(
        arguments(folder, *videos, "--output", path),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + PATIENCE
    while not path.exists() or path.read_bytes().count(b"\n") < BEFORE_GATES:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return process, gates[0]


@pytest.mark.parametrize("torn", [0, 1, 40, 300])
def test_a_killed_run_goes_on_where_it_stopped(folder: Path, tmp_path: Path, torn: int) -> None:
    path = tmp_path / "results.jsonl"
    process, _ = started(folder, path)
    process.kill()
    process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGKILL
    if torn:  # as when it is killed while it writes, or before all of that is on the disk
        path.write_bytes(path.read_bytes()[:-torn])
    kept = path.read_bytes()
    kept = kept[: kept.rindex(b"\n") + 1]
    count = kept.count(b"\n")
    assert BEFORE_GATES - 2 <= count <= BEFORE_GATES
    result = batch(folder, "many", "--output", path)
    assert result.returncode == 0, result.stderr
    assert path.read_bytes().startswith(kept)
    videos = [line["video"] for line in read_lines(path)]
    assert sorted(videos) == sorted(set(videos)) == [f"many/{n:02}.mp4" for n in range(MANY)]
    assert f"{MANY - count} videos in" in result.stderr


@pytest.mark.parametrize(
    ("threads", "expected"), [(1, 1), (2, 1), (8, 1), (9, 3), (11, 11), (12, 2), (64, 8)]
)
def test_runs_share_all_threads_and_are_few(threads: int, expected: int) -> None:
    assert shared_threads(threads) == expected


@pytest.mark.parametrize(("threads", "workers", "expected"), [(1, 3, 2), (2, 3, 1), (1, 1, 1)])
def test_so_many_runs_at_once_as_threads_allow(
    folder: Path, threads: int, workers: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = VideoClassifier.from_pretrained(
        folder / "shots", dtype="fp32", device="cpu", threads=threads
    )
    predict = VideoClassifier.predict
    running: list[int] = []
    most = []

    def counted(*arguments: Any, **options: Any) -> Any:
        running.append(1)
        most.append(len(running))
        time.sleep(0.05)
        answer = predict(*arguments, **options)
        running.pop()
        return answer

    monkeypatch.setattr(VideoClassifier, "predict", counted)
    videos = [folder / "clips" / "a.mp4"] * 8
    assert all(outcome.result for outcome in classifier.batch(videos, workers=workers))
    assert max(most) == expected


def test_interrupt(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    process, _ = started(folder, path)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert errors.split("\n", 1)[1].strip() == "timesformer: interrupted"
    videos = [line["video"] for line in read_lines(path)]
    assert len(videos) == len(set(videos)) == BEFORE_GATES


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["clips/a.mp4"], "'--output'"),
        (["shots", "--output", "r.jsonl"], "shots has no file that is named like a video"),
        (["clips", "--output", "no/r.jsonl"], f"no/r.jsonl: {os.strerror(errno.ENOENT)}"),
        (["clips", "--output", "clips/broken.mp4"], "line 1 is not a result of this command"),
        (["clips", "--output", "r.jsonl", "--workers", 999], "--workers is 999; it must be"),
        (["-", "--output", "r.jsonl"], "no video was named"),
        (["clips", "--output", "-"], "results cannot go to standard output"),
        (["clips", "--output", "/dev/stdout"], "/dev/stdout is not a regular file"),
    ],
)
def test_bad_input(folder: Path, more: list[object], message: str) -> None:
    result = batch(folder, *more, stdin="")
    assert result.returncode == 2
    assert message in result.stderr.splitlines()[-1]
    assert (folder / "clips" / "broken.mp4").read_text() == "no video"


def test_damage_is_told(folder: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), dtype=np.uint8)
    video = damage(write_video(tmp_path / "damaged.mp4", noise))
    result = batch(folder, video, "--output", tmp_path / "r.jsonl")
    assert result.returncode == 0
    (line,) = read_lines(tmp_path / "r.jsonl")
    assert line["damaged"]
    assert f"timesformer: {video}: damaged: " in result.stderr
