"""The command ``timesformer evaluate``, as users run it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import timesformer_runtime
from click.testing import CliRunner
from timesformer_runtime import VideoClassifier, cli
from timesformer_runtime.evaluate.loading import LoadedModels

from tests.command_line import COMMAND, Result, assert_bad_input, timesformer
from tests.patience import PATIENCE
from tests.tiny_graphs import moving_frames, write_exported_model, write_video

MANY = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model ``shots``, and ``data`` with a folder for each class; the model's answers."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_exported_model(folder / "shots", ("fp32", "int8"))
    classifier = VideoClassifier.from_pretrained(folder / "shots", dtype="fp32", device="cpu")
    for number in range(4):
        frames = moving_frames(8 + number)
        frames[..., number % 3] = 60 * number
        path = write_video(folder / f"{number}.mp4", frames)
        (answer,) = classifier(path, top_k=1)
        (folder / "data" / answer["label"]).mkdir(parents=True, exist_ok=True)
        path.rename(folder / "data" / answer["label"] / path.name)
    shutil.copy(next((folder / "data").rglob("*.mp4")), folder / "a.mp4")
    (folder / "data" / "cut").mkdir(exist_ok=True)
    (folder / "data" / "cut" / "broken.mp4").write_text("no video")
    return folder


def evaluate(folder: Path, *arguments: object, **options: Any) -> Result:
    return timesformer(folder, "evaluate", *arguments, **options)


def test_results_that_do_not_count_are_told(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "data", tmp_path / "data")
    arguments = (folder / "shots", "data", "--output", "out", "--device", "cpu", "--dtype", "fp32")
    assert evaluate(tmp_path, *arguments).returncode == 0
    (tmp_path / "data" / "cut" / "broken.mp4").unlink()
    done = evaluate(tmp_path, *arguments)
    assert "out: not counted: 1 of its results" in done.stderr
    assert done.stdout.splitlines()[-1].endswith("on 4 videos")


def test_results_do_not_get_among_the_files_of_the_model(folder: Path) -> None:
    before = sorted((folder / "shots").rglob("*"))
    for output in ("shots", "shots/sub"):
        done = evaluate(folder, "shots", "data", "--output", output, "--force", "--device", "cpu")
        assert_bad_input(done, f"{output} lies in the folder of the model shots; write to another")
    assert sorted((folder / "shots").rglob("*")) == before


def test_table_sentence_and_files(folder: Path, tmp_path: Path) -> None:
    arguments = (
        "shots",
        "data",
        "--output",
        tmp_path / "out",
        "--dtype",
        "fp32",
        "--dtype",
        "int8",
    )
    done = evaluate(folder, *arguments, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    head, fp32, int8, sentence = done.stdout.splitlines()
    assert head.split()[:2] == ["model", "top-1"]
    assert fp32.split()[:3] == ["fp32", "100.0", "%"]
    assert int8.split()[0] == "int8"
    assert sentence.endswith("on 4 of 5 videos, 1 unreadable")
    assert "broken.mp4" in done.stderr
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "results.jsonl",
        "metrics.json",
        "report.html",
    }
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["sentence"] == sentence
    again = evaluate(folder, *arguments, "--device", "cpu")
    assert "5 were done before" in again.stderr
    assert again.stdout.splitlines()[-1] == sentence


@pytest.mark.parametrize("name", ["evaluate", "explain", "batch", "timeline"])
def test_an_empty_output_is_not_the_current_folder(name: str) -> None:
    done = CliRunner().invoke(cli.command, [name, "shots", "data", "--output", ""])
    assert done.exit_code == 2
    assert "'--output': it is empty; give a path" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("shots data", "give --output a folder"),
        ("shots data --diagnose --output out", "--diagnose writes nothing: leave out --output"),
        ("shots data --diagnose --force", "--diagnose writes nothing: leave out --force"),
        ("shots data --diagnose --retry-failed", "nothing: leave out --retry-failed"),
        ("shots data --diagnose --against int8", "leave out --against"),
        ("shots data --diagnose --dtype int8 --dtype fp32", "give only one --dtype"),
        ("shots several.txt --output out", "may have several labels, say --function sigmoid"),
        ("shots nothing --output out", "nothing cannot be read"),
        ("shots list.txt --output out", "'cutt', which the model does not have; the nearest are"),
        ("shots gone.txt --output out", "give the folder of the videos with --root"),
        ("shots order.txt --output out --labels names.txt", "--labels-by names or --labels-by num"),
        ("shots order.txt --output out --labels no.txt", "give one as --labels, with a name in"),
        ("shots order.txt --output out --labels a.mp4", "a.mp4 is not a file of labels in UTF-8"),
        ("shots data --output out --root no", "--root is no"),
        ("shots data --output out --workers 1000", "--workers is 1000"),
        ("shots data --output out --dtype int8 --against int8", "--against is int8"),
        ("shots data --output a.mp4", "a.mp4: File exists; give a folder"),
        ("no-model data --output out", "no-model"),
    ],
)
def test_bad_input_is_one_line(folder: Path, arguments: str, message: str) -> None:
    (folder / "list.txt").write_text("a.mp4 cutt\n")
    (folder / "several.txt").write_text("a.mp4 0 1\n")
    (folder / "gone.txt").write_text("x.mp4 cut\n")
    (folder / "order.txt").write_text("a.mp4 0\n")
    (folder / "names.txt").write_text("cut\nnone\nfade_in\nfade_out\n")
    done = evaluate(folder, *arguments.split())
    assert_bad_input(done, message)
    assert not (folder / "out").exists()


def test_results_are_kept_unless_force_is_given(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert evaluate(folder, "shots", "data", "--output", output).returncode == 0
    kept = (output / "results.jsonl").read_bytes()
    other = ("--channel-order", "bgr", "--sampling", "center", "--frame-sampling-rate", 4)
    done = evaluate(folder, "shots", "data", "--output", output, *other)
    assert done.returncode == 2
    assert (
        "was made with sampling uniform, not center; frame sampling rate none, not 4; "
        "channel order rgb, not bgr; give another --output" in done.stderr
    )
    assert "--force to begin again" in done.stderr
    assert (output / "results.jsonl").read_bytes() == kept
    more = ("--dtype", "fp32", "--dtype", "int8")
    done = evaluate(folder, "shots", "data", "--output", output, *more)
    assert done.returncode == 2
    assert "was made with models int8, not fp32, int8; give another --output" in done.stderr
    done = evaluate(
        folder, "shots", "data", "--output", output, "--channel-order", "bgr", "--force"
    )
    assert done.returncode == 0, done.stderr
    assert "bgr" in (output / "results.jsonl").read_text()


def test_nothing_is_lost_when_the_process_is_killed(folder: Path, tmp_path: Path) -> None:
    for number in range(MANY):
        path = tmp_path / "data" / "cut" / f"{number:03}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(folder / "a.mp4", path)
    arguments = [
        *COMMAND,
        "evaluate",
        "shots",
        str(tmp_path / "data"),
        "--output",
        str(tmp_path / "out"),
    ]
    results = tmp_path / "out" / "results.jsonl"
    process = subprocess.Popen(arguments, cwd=folder, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE
        while not results.exists() or results.read_bytes().count(b"\n") < 10:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = results.read_bytes()
    whole = kept[: kept.rindex(b"\n") + 1]
    done = evaluate(folder, "shots", tmp_path / "data", "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    finished = whole.count(b"\n") - 1
    assert f"{finished} were done before" in done.stderr
    lines = results.read_bytes()
    assert lines.startswith(whole)
    assert lines.count(b"\n") == MANY + 1


def test_diagnose_writes_nothing(folder: Path) -> None:
    before = sorted(folder.iterdir())
    done = evaluate(folder, "shots", "data", "--diagnose", "--channel-order", "bgr")
    assert done.returncode == 0, done.stderr
    assert "as it is" in done.stdout
    assert "of 4" in done.stdout
    assert sorted(folder.iterdir()) == before


def test_a_failed_diagnosis_closes_the_models(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []
    monkeypatch.setattr(LoadedModels, "close", lambda _self: closed.append(True))
    (tmp_path / "list.txt").write_text(f"{folder / 'data' / 'cut' / 'broken.mp4'} cut\n")
    arguments = ["evaluate", str(folder / "shots"), str(tmp_path / "list.txt"), "--diagnose"]
    done = CliRunner().invoke(cli.command, arguments)
    assert done.exit_code == 2
    assert closed == [True]


def test_diagnose_and_a_folder_contradict_each_other(folder: Path, tmp_path: Path) -> None:
    done = evaluate(folder, "shots", "data", "--diagnose", "--output", tmp_path / "out")
    assert done.returncode == 2
    assert "leave out --output" in done.stderr
    assert not (tmp_path / "out").exists()


def test_many_missing_videos_are_counted_and_not_all_printed(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "list.txt"
    missing = "".join(f"{number}.mp4 cut\n" for number in range(50))
    data.write_text(f"{folder / 'a.mp4'} cut\n{missing}")
    done = evaluate(folder, "shots", data, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("on 1 of 51 videos, 50 unreadable")
    assert 10 < done.stderr.count(".mp4") < 30
    assert "in the results only" in done.stderr
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert sum("error" in json.loads(line) for line in lines) == 50


def test_none_readable(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data" / "cut"
    data.mkdir(parents=True)
    (data / "a.mp4").write_text("no video")
    done = evaluate(folder, "shots", data.parent, "--output", tmp_path / "out")
    assert done.returncode == 2
    assert "none of the 1 video can be read" in done.stdout


@pytest.mark.parametrize("library", ["scipy", "jinja2"])
def test_a_missing_library_is_one_line(folder: Path, tmp_path: Path, library: str) -> None:
    code = (
        f"import sys; sys.modules[{library!r}] = None\n"
        "from timesformer_runtime.__main__ import main; main()"
    )
    runtime = Path(timesformer_runtime.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code, "evaluate", "shots", "data", "--output", tmp_path / "out"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(runtime)},
        timeout=PATIENCE,
    )
    assert done.returncode == 2, done.stderr
    assert 'pip install "timesformer-onnx[evaluate]"' in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
