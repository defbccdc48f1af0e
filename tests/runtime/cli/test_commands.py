"""The command ``timesformer`` as users run it: a process with exit code, stdout and stderr."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from timesformer_runtime import VideoClassifier, cli
from timesformer_runtime.cli.model_options import options_of_providers
from timesformer_runtime.input.preprocess import Preprocessing
from timesformer_runtime.input.sampling import uniform
from timesformer_runtime.model.golden import GENERATOR, golden_frames

from tests.command_line import COMMAND, Result, assert_bad_input, timesformer
from tests.hub_server import HubServer, Repository
from tests.patience import PATIENCE
from tests.tiny_graphs import (
    FRAMES,
    LABELS,
    SIZE,
    TinyGraph,
    expected_logits,
    model_config,
    own_metadata,
    preprocessor_config,
    write_exported_model,
    write_sidecars,
    write_video,
    write_videos,
)
from tests.video_files import damage, read_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported model ``shots``, videos ``a.mp4`` and ``b.mkv``, and the text ``broken.mp4``."""
    folder = tmp_path_factory.mktemp("cli")
    write_exported_model(folder / "shots")
    write_videos(folder)
    featured = TinyGraph(metadata=own_metadata(), features=True)
    featured.save(folder / "featured.onnx")
    headless = TinyGraph(output="features", metadata=own_metadata(task="feature-extraction"))
    headless.save(folder / "headless.onnx")
    return folder


# --- classify ------------------------------------------------------------------------------------


def test_a_readable_table(folder: Path) -> None:
    result = timesformer(
        folder, "classify", "shots", "a.mp4", "b.mkv", "--top-k", 2, "--threads", 1
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr.startswith("shots: fp32, device cpu (auto: ")
    assert result.stderr.rstrip().endswith(", 1 thread")
    classifier = VideoClassifier.from_pretrained(folder / "shots", device="cpu", threads=1)
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0] == ["video", "label", "score", "seconds"]
    expected = []
    for name in ("a.mp4", "b.mkv"):
        for rank, prediction in enumerate(classifier(folder / name, top_k=2)):
            start = [name] if rank == 0 else []
            expected.append([*start, prediction["label"], f"{prediction['score']:.4f}"])
    assert [row[: len(wanted)] for row, wanted in zip(rows[1:], expected, strict=True)] == expected


def test_one_json_object_per_line(folder: Path) -> None:
    result = timesformer(folder, "classify", "shots", "a.mp4", "b.mkv", "--json", "--device", "cpu")
    assert result.returncode == 0
    assert result.stderr.startswith("shots: fp32, device cpu, ")
    first, second = (json.loads(line) for line in result.stdout.splitlines())
    assert {"video", "predictions", "frames", "views", "damaged", "seconds"} <= set(first)
    assert (first["damaged"], first["problems"]) == (False, [])
    assert first["video"] == "a.mp4"
    assert second["video"] == "b.mkv"
    assert first["frames"]["indices"] == [0, 6, 13, 20]
    assert first["frames"]["times"] == pytest.approx([0, 0.6, 1.3, 2.0])
    assert set(first["seconds"]) == {"decode", "preprocess", "inference"}
    assert [set(p) for p in first["predictions"]] == [{"label", "score"}] * 4
    assert sum(p["score"] for p in first["predictions"]) == pytest.approx(1.0)
    assert {p["label"] for p in first["predictions"]} == set(LABELS)


@pytest.mark.parametrize("as_json", [False, True])
def test_a_bad_file_does_not_stop_the_others(folder: Path, as_json: bool) -> None:
    option = ["--json"] if as_json else []
    videos = ("missing.mp4", "a.mp4", "broken.mp4", ".", "b.mkv")
    result = timesformer(folder, "classify", "shots", *videos, "--top-k", 1, *option)
    assert result.returncode == 2
    errors = [line for line in result.stderr.splitlines() if line.startswith("timesformer: ")]
    assert len(errors) == 3
    assert "missing.mp4" in errors[0]
    assert "broken.mp4" in errors[1]
    assert "folder" in errors[2]
    if not as_json:
        assert [line.split()[0] for line in result.stdout.splitlines()] == [
            "video",
            "a.mp4",
            "b.mkv",
        ]
        return
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["video"] for line in lines] == list(videos)
    assert [set(line) == {"video", "error"} for line in lines] == [True, False, True, True, False]
    assert all("\n" not in line.get("error", "") for line in lines)


def test_standard_input(folder: Path) -> None:
    with (folder / "a.mp4").open("rb") as file:
        result = timesformer(folder, "classify", "shots", "-", "--json", stdin=file)
    by_name = timesformer(folder, "classify", "shots", "a.mp4", "--json")
    assert result.returncode == 0, result.stderr
    piped, named = json.loads(result.stdout), json.loads(by_name.stdout)
    assert piped["predictions"] == named["predictions"]
    assert piped["frames"] == named["frames"]


def test_names_that_a_terminal_cannot_show(folder: Path) -> None:
    strange = "[bold]\udcff\u00e9 x.mp4"
    os.link(folder / "a.mp4", os.fsencode(folder) + b"/" + os.fsencode(strange))
    for option in ([], ["--json"]):
        environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
        result = timesformer(
            folder, "classify", "shots", strange, "--top-k", 1, *option, env=environment
        )
        assert result.returncode == 0, result.stderr
        assert "[bold]\\udcff" in result.stdout
    assert json.loads(result.stdout)["video"] == strange


def test_escape_sequences_do_not_reach_the_terminal(folder: Path) -> None:
    strange = "\x1b[31mred.mp4"
    os.link(folder / "a.mp4", folder / strange)
    result = timesformer(folder, "classify", "shots", strange, f"no{strange}", "--top-k", 1)
    assert "\x1b" not in result.stdout + result.stderr
    header, row = result.stdout.splitlines()
    assert row.startswith("\\x1b[31mred.mp4  ")
    assert header.index("label") == len("no\\x1b[31mred.mp4  ")
    assert_bad_input(result, "timesformer: no\\x1b[31mred.mp4: there is no such file")
    assert_bad_input(timesformer(folder, "classify", strange, "-"), "\\x1b[31mred.mp4: ")


def test_standard_input_that_is_closed(folder: Path) -> None:
    line = [*COMMAND, "classify", "shots", "-", "a.mp4"]
    result = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *line],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert_bad_input(
        result,
        "timesformer: standard input is closed; pipe a video into it, or give a path",
    )
    assert "a.mp4" in result.stdout


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("", "the path of a video is empty; give a file"),
        ("e", "e: there is no such file; check the path"),
        ("a\nb  c", "a\\nb  c: there is no such file; check the path"),
        ("x" * 300, f"{'x' * 300!r} is not a path that can be read: File name too long"),
        ("-", "<stdin> is empty"),
    ],
)
def test_each_error_names_its_video_once(folder: Path, name: str, error: str) -> None:
    result = timesformer(folder, "classify", "shots", name, stdin=subprocess.DEVNULL)
    assert_bad_input(result, f"timesformer: {error}")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(5, "Input/output error"), "a.mp4: [Errno 5] Input/output error"),
        (MemoryError(), "a.mp4: there is not enough memory for it"),
    ],
)
def test_errors_of_the_system_are_those_of_their_video(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    message: str,
) -> None:
    classify = VideoClassifier.classify

    def failing(self: VideoClassifier, video: Any, *args: Any, **options: Any) -> Any:
        if video == "a.mp4":
            raise error
        return classify(self, video, *args, **options)

    monkeypatch.setattr(VideoClassifier, "classify", failing)
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as exit_code:
        cli.command.main(["classify", "shots", "a.mp4", "b.mkv"], standalone_mode=False)
    assert exit_code.value.code == 2
    printed = capsys.readouterr()
    assert printed.err.splitlines()[1:] == [f"timesformer: {message}"]
    assert "b.mkv" in printed.out


@pytest.mark.parametrize(
    ("limit", "remedy"),
    [
        (["--max-packets", "1"], "give a shorter video, or raise --max-packets"),
        (["--max-seconds", "1ms"], "give a shorter or smaller video, or raise --max-seconds"),
        (["--max-pixels", "1"], "scale it down first, or raise --max-pixels"),
        (["--max-bytes", "1"], "give a smaller video, or raise --max-bytes"),
    ],
)
@pytest.mark.parametrize("command", ["classify", "classify --json", "batch", "timeline", "stream"])
def test_errors_of_a_video_name_options_as_the_command_does(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    limit: list[str],
    remedy: str,
) -> None:
    results = tmp_path / "results.jsonl"
    more = ["--output", str(results)] if command == "batch" else []
    arguments = [*command.split(), "shots", "a.mp4", *limit, *more]
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["timesformer", *arguments])
    with pytest.raises(SystemExit) as exit_code:
        cli.main()
    assert exit_code.value.code == 2
    printed = capsys.readouterr()
    assert remedy in printed.err
    if command == "classify --json":
        assert json.loads(printed.out)["error"].endswith(remedy)
    if command == "batch":
        assert json.loads(results.read_text())["error"].endswith(remedy)


def test_damage_is_told(folder: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), dtype=np.uint8)
    path = damage(write_video(tmp_path / "damaged.mp4", noise))
    clip = read_clip(path, lambda count: uniform(count, FRAMES))
    assert clip.failed_packets > 1
    assert f"{clip.failed_packets} packets did not decode" in clip.problems
    result = timesformer(folder, "classify", "shots", path, "a.mp4")
    assert result.returncode == 0, result.stderr
    assert result.stderr.splitlines()[1:] == [
        f"timesformer: {path}: damaged: {'; '.join(clip.problems)}; "
        f"labels are of the {clip.count} frames that it has"
    ]
    marked = [line for line in result.stdout.splitlines() if line.endswith("damaged")]
    assert len(marked) == 1
    assert marked[0].startswith(str(path))
    result = timesformer(folder, "classify", "shots", path, "a.mp4", "--json")
    damaged, sound = (json.loads(line) for line in result.stdout.splitlines())
    assert damaged["damaged"]
    assert damaged["problems"] == list(clip.problems)
    assert damaged["failed_packets"] == clip.failed_packets
    assert (sound["damaged"], sound["problems"], sound["failed_packets"]) == (False, [], 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shots", "-", "a.mp4", "-"], 'standard input can be read only once; give "-" once'),
        (["missing", "a.mp4"], "missing: there is no such folder or file"),
        (["shots", "a.mp4", "--dtype", "int8"], "there is no int8 (model_int8.onnx); it has fp32"),
        (["shots", "a.mp4", "--dtype", "int9"], "--dtype is 'int9'; it must be one of"),
        (["shots", "a.mp4", "--revision", "main"], "shots is not a Hub id: leave --revision out"),
        (["shots", "a.mp4", "--device", "tpu"], "'--device'"),
        (["shots", "a.mp4", "--threads", "0"], "'--threads'"),
        (["shots", "a.mp4", "--session-option", "session.x"], "'session.x' is not KEY=VALUE"),
        (["shots", "a.mp4", "--session-option", "enable_mem_pattern=yes"], "give '0' or '1'"),
        (["shots", "a.mp4", "--top-k", "0"], "'--top-k'"),
        (["shots", "a.mp4", "--topk", "1"], "--topk"),
        (["shots"], "'VIDEO...'"),
        (["broken.mp4", "a.mp4"], "a model file must end in .onnx"),
        (["headless.onnx", "a.mp4"], "--task video-classification --model shots/original"),
        (["nobody/nothing", "a.mp4", "--local-files-only"], "no folder or file nobody/nothing"),
        (["nobody/nothing", "a.mp4", "--local-files-only"], "run it once without --local-files-on"),
    ],
)
def test_bad_input(folder: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    environment = {**os.environ, "HF_HOME": str(tmp_path)}
    result = timesformer(folder, "classify", *arguments, env=environment)
    assert_bad_input(result, message)
    assert result.stdout == ""


def test_a_corrupt_model(folder: Path, tmp_path: Path) -> None:
    content = (folder / "featured.onnx").read_bytes()
    (tmp_path / "half.onnx").write_bytes(content[: len(content) // 2])
    result = timesformer(folder, "classify", tmp_path / "half.onnx", "a.mp4")
    assert_bad_input(result, "half.onnx: ONNX Runtime")
    assert len(result.stderr.splitlines()) == 1  # and nothing of ONNX Runtime's log


def test_cuda_that_cannot_be_had(folder: Path) -> None:
    from timesformer_runtime.model.device import cuda_problem  # noqa: PLC0415

    if cuda_problem() is None:
        pytest.skip("CUDA works here")
    result = timesformer(folder, "classify", "shots", "a.mp4", "--device", "cuda")
    assert_bad_input(result, "device 'cuda' is not available: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--device cuda:x", "'--device': --device is 'cuda:x'; it must be one of auto, cpu, cuda"),
        ("--device cpu --allow-cpu-nodes", "--allow-cpu-nodes is for another device than 'cpu'"),
        ("--device cpu --provider cpu", "--device cpu and --provider contradict each other"),
        ("--provider tpu", "provider 'tpu' is not in ONNX Runtime"),
        ("--provider cpu --provider CPUExecutionProvider", "--provider has CPUExecutionProvider, "),
        ("--provider cpu --allow-cpu-nodes", "--allow-cpu-nodes is for another device than 'cpu'"),
        ("--provider-option a=1", "'a=1' needs a provider; name it with --provider"),
        (
            "--provider cpu --provider-option a=b",
            "--provider-option has 'a' for 'cpu', which has no",
        ),
        (
            "--provider cpu --provider-option cpu:use_arena=0 --provider-option a=b",
            "'cpu', which has no options: leave that out, or use --session-option",
        ),
        ("--provider cpu --provider-option a", "'a' is not KEY=VALUE"),
        ("--provider cpu --provider-option =1", "'=1' is not KEY=VALUE"),
        ("--provider cpu --provider-option cpu:=1", "'cpu:=1' is not KEY=VALUE"),
        ("--provider cpu --provider-option gpu:a=1", "give one of cpu:a=1"),
        ("--provider tpu --provider cpu --provider-option a=1", "give one of tpu:a=1, cpu:a=1"),
    ],
)
def test_devices_and_providers_that_are_not_valid(folder: Path, options: str, message: str) -> None:
    result = timesformer(folder, "classify", "shots", "a.mp4", *options.split())
    assert_bad_input(result, message)


def test_a_provider_by_its_name(folder: Path) -> None:
    result = timesformer(folder, "classify", "shots", "a.mp4", "--threads", 1, "--provider", "cpu")
    assert result.returncode == 0
    assert result.stderr == "shots: fp32, device cpu, 1 thread\n"


def test_options_reach_the_providers_that_they_name() -> None:
    assert options_of_providers(["a", "b"], ["b:x=1", "a:y=2=3", "b:z:w="]) == [
        {"y": "2=3"},
        {"x": "1", "z:w": ""},
    ]
    assert options_of_providers(["a"], ["x=1", "a:y=2"]) == [{"x": "1", "y": "2"}]
    assert options_of_providers(["a"], []) is None
    names = ["OpenVINO", "CPUExecutionProvider"]
    assert options_of_providers(names, ["openvino:x=1", "CPU:y=2"]) == [{"x": "1"}, {"y": "2"}]


@pytest.mark.skipif("TIMESFORMER_TEST_CLIPS" not in os.environ, reason="no folder of real clips")
def test_every_real_clip_gives_labels_or_one_clear_error(folder: Path) -> None:
    clips = sorted(p for p in Path(os.environ["TIMESFORMER_TEST_CLIPS"]).iterdir() if p.is_file())
    result = timesformer(folder, "classify", "shots", *clips, "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["video"] for line in lines] == [str(clip) for clip in clips]
    failed = [line for line in lines if "error" in line]
    assert result.returncode == (2 if failed else 0)
    damaged = [line for line in lines if line.get("damaged")]
    told = result.stderr.splitlines()
    assert len(told) == 1 + len(failed) + len(damaged)
    assert sum(": damaged: " in line for line in told) == len(damaged)
    assert all("\n" not in line["error"] for line in failed)
    for line in lines:
        if "error" not in line:
            assert sum(p["score"] for p in line["predictions"]) == pytest.approx(1.0)
            assert len(line["frames"]["indices"]) == len(line["frames"]["times"]) == FRAMES


# --- classify --features -------------------------------------------------------------------------


def test_features_file(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    path.write_text("an older file")
    result = timesformer(
        folder, "classify", "featured.onnx", "a.mp4", "broken.mp4", "b.mkv", "--features", path
    )
    assert result.returncode == 2  # of broken.mp4; the others are in the file
    classifier = VideoClassifier.from_pretrained(folder / "featured.onnx", device="cpu")
    with np.load(path) as saved:
        assert saved["videos"].tolist() == ["a.mp4", "b.mkv"]
        assert saved["features"].dtype == np.float32
        expected = classifier.features([folder / "a.mp4", folder / "b.mkv"])
        np.testing.assert_allclose(saved["features"], expected, rtol=1e-5)
    assert [file.name for file in tmp_path.iterdir()] == ["f.npz"]
    assert "a.mp4" in result.stdout  # the labels are still printed
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_features_of_a_model_without_a_head(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    result = timesformer(folder, "classify", "headless.onnx", "a.mp4", "--json", "--features", path)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["predictions"] == []
    with np.load(path) as saved:
        assert saved["features"].shape == (1, 4)


@pytest.mark.parametrize(
    ("model", "file", "message"),
    [
        ("shots", "f.npz", "it has no output 'features' (it has logits)"),
        ("featured.onnx", "f.npy", "must end in .npz"),
        ("featured.onnx", "no/where/f.npz", "there is no folder no/where"),
        ("featured.onnx", "folder.npz", "is a folder"),
        ("shots", "shots/f.npz", "shots/f.npz lies in the folder of the model shots"),
    ],
)
def test_features_that_cannot_be_written(folder: Path, model: str, file: str, message: str) -> None:
    (folder / "folder.npz").mkdir(exist_ok=True)
    result = timesformer(folder, "classify", model, "a.mp4", "--features", file)
    assert_bad_input(result, message)
    assert result.stdout == ""  # before any work
    assert not (folder / "f.npz").exists()


def test_no_features_file_when_every_video_failed(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    result = timesformer(folder, "classify", "featured.onnx", "broken.mp4", "--features", path)
    assert_bad_input(result, "broken.mp4")
    assert list(tmp_path.iterdir()) == []


# --- verify, doctor, and the rest ----------------------------------------------------------------


def golden_model(path: Path, offset: float) -> Path:
    shape = (FRAMES, SIZE, SIZE, 3)
    preprocessing = Preprocessing.from_dict(preprocessor_config())
    values = expected_logits(preprocessing(golden_frames(3, shape)), channel_axis=1) + offset
    golden = {
        "generator": GENERATOR,
        "seed": 3,
        "shape": shape,
        "output": "logits",
        "values": values.tolist(),
    }
    return TinyGraph(metadata=own_metadata(golden=golden)).save(path)


def test_verify(folder: Path, tmp_path: Path) -> None:
    good = timesformer(folder, "verify", golden_model(tmp_path / "good.onnx", 0.0))
    assert good.returncode == 0, good.stderr
    assert "top-1 agrees" in good.stdout
    assert good.stdout.splitlines()[1].startswith("passed: max-abs at most")
    bad = timesformer(folder, "verify", golden_model(tmp_path / "bad.onnx", 0.5))
    assert bad.returncode == 1
    assert "max-abs 0.5" in bad.stdout
    assert "FAILED: max-abs at most" in bad.stdout


def test_verify_of_a_model_without_golden_check(folder: Path) -> None:
    assert_bad_input(timesformer(folder, "verify", "shots"), "shots: it has no golden check")


def test_doctor(folder: Path) -> None:
    result = timesformer(folder, "doctor")
    assert result.returncode in {0, 1}, result.stderr
    facts = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    for name in ("python", "timesformer-onnx", "numpy", "av", "onnxruntime", "providers", "cuda"):
        assert name in facts
    assert "CPUExecutionProvider" in facts["providers"]
    assert int(facts["threads"].split()[0]) >= 1
    assert (result.returncode == 1) == ("problem:" in result.stdout)


def test_help_and_version(folder: Path) -> None:
    assert timesformer(folder, "--version").stdout.startswith("timesformer-onnx ")
    for command in (
        "classify",
        "timeline",
        "batch",
        "stream",
        "verify",
        "inspect",
        "bench",
        "doctor",
    ):
        text = timesformer(folder, command, "--help").stdout
        assert text.startswith(f"Usage: timesformer {command}")
    assert "MODEL VIDEO..." in timesformer(folder, "classify", "-h").stdout
    code = "import timesformer_runtime.cli, sys; print(*sys.modules)"  # all that --help needs
    assert {"numpy", "av", "rich", "onnxruntime"}.isdisjoint(run_python(folder, code).split())


def test_an_unknown_command_is_named(folder: Path) -> None:
    assert_bad_input(timesformer(folder, "clasify"), "'clasify'")
    assert_bad_input(timesformer(folder), "(see timesformer --help)")


def test_the_console_script(folder: Path) -> None:
    script = Path(sys.executable).with_name("timesformer")
    if not script.exists():
        pytest.skip("the package is not installed here")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("timesformer-onnx ")


@pytest.mark.parametrize("as_json", [False, True])
def test_a_closed_pipe_is_quiet(folder: Path, as_json: bool) -> None:
    option = ["--json"] if as_json else []
    process = subprocess.Popen(
        [*COMMAND, "classify", "shots", *["a.mp4"] * 40, *option],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith('{"video": "a.mp4"' if as_json else "video")
    process.stdout.close()
    errors = process.stderr.read().splitlines()
    assert process.wait(PATIENCE) == 141
    assert len(errors) == 1  # what was said about the model
    process.stderr.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_output_that_cannot_be_written(folder: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "classify", "shots", "a.mp4", "--json"],
            cwd=folder,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()[1:]
    assert line.startswith("timesformer: standard output")
    assert line.endswith(
        "cannot be written: No space left on device; make room, or write to another disk"
    )
    if Path("/proc/self/fd").exists():
        assert "(/dev/full)" in line


COMMANDS = [
    ["--help"],
    ["--version"],
    ["batch", "--help"],
    ["doctor"],
    ["verify", "golden.onnx"],
    ["classify", "shots", "a.mp4"],
    ["timeline", "shots", "a.mp4", "--csv"],
    ["stream", "shots", "a.mp4", "--json"],
    ["inspect", "shots"],
    ["bench", "shots", "--seconds", "0", "--threads", "1"],
]


def in_shell(folder: Path, redirections: str, arguments: list[str]) -> Result:
    """Runs a command with redirections in the shell's words."""
    golden_model(folder / "golden.onnx", 0.0)
    return subprocess.run(
        ["sh", "-c", f'"$@" {redirections}', "sh", *COMMAND, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


@pytest.mark.skipif(os.name != "posix", reason="this system has no such shell")
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_every_command_ends_quietly_at_a_closed_pipe(folder: Path, arguments: list[str]) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    golden_model(folder / "golden.onnx", 0.0)
    with open(write_end, "wb") as pipe:  # noqa: PTH123
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=folder,
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
    assert done.returncode == 141
    assert not re.search("timesformer: |Traceback|[Bb]roken ?[Pp]ipe", done.stderr)


@pytest.mark.skipif(os.name != "posix", reason="this system has no such shell")
@pytest.mark.parametrize("arguments", COMMANDS[3:], ids=" ".join)
def test_results_that_nobody_would_get_are_told(folder: Path, arguments: list[str]) -> None:
    done = in_shell(folder, ">&-", arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (  # before any work
        "timesformer: standard output is closed, and results would be lost; send it to a file, "
        "or leave it open\n"
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("redirections", ["2>&-", "2>/dev/full"])
@pytest.mark.parametrize("arguments", COMMANDS[5:8], ids=" ".join)
def test_results_come_also_where_nothing_can_be_said(
    folder: Path, redirections: str, arguments: list[str]
) -> None:
    done = in_shell(folder, redirections, arguments)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) > 0


@pytest.mark.skipif(os.name != "posix", reason="this system has no such shell")
def test_a_results_file_is_not_taken_for_an_output(folder: Path, tmp_path: Path) -> None:
    """The next file that is opened gets the number of one that is closed."""
    path = tmp_path / "r.jsonl"
    batch = ["batch", "shots", "a.mp4", "missing.mp4", "--output", str(path)]
    assert in_shell(folder, "<&- >&- 2>&-", batch).returncode == 2
    assert [set(json.loads(line)) > {"video", "run"} for line in path.read_text().splitlines()] == [
        True,
        True,
    ]


# --- Names and labels of others ------------------------------------------------------------------

STRANGE_LABELS = ("\x1b[31mred\x07", "caf\u00e9 \u4e2d\u6587", "turned \u202e", 'two\nlines, "q"')


@pytest.fixture(scope="module")
def strange(folder: Path) -> str:
    """A model with labels that a terminal would act on, or cannot show."""
    labels = {str(number): label for number, label in enumerate(STRANGE_LABELS)}
    metadata = own_metadata(config=json.dumps(model_config(id2label=labels)))
    TinyGraph(metadata=metadata).save(folder / "strange.onnx")
    return "strange.onnx"


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "utf-8:strict"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["classify", "a.mp4"],
        ["classify", "a.mp4", "--json"],
        ["timeline", "a.mp4", "--top-k", "4", "--csv"],
        ["stream", "a.mp4", "--top-k", "4"],
        ["classify", "caf\u00e9\u4e2d\udcff.mp4", "caf\u00e9.mp4"],
        ["stream", "\x1b[31m\u4e2d.mp4"],
        ["classify", "a.mp4", "--top-k", "\u4e2d\x1b[31m"],
    ],
    ids=ascii,
)
def test_nothing_of_others_fails_or_acts(
    folder: Path, strange: str, arguments: list[str], encoding: str
) -> None:
    command, *rest = arguments
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(
        [*COMMAND, command, strange, *map(os.fsencode, rest)],
        cwd=folder,
        capture_output=True,
        check=False,
        timeout=PATIENCE,
        env=environment,
    )
    text = (done.stdout + done.stderr).decode(encoding.partition(":")[0])
    is_sound = rest[0] == "a.mp4" and "\x1b" not in rest[-1]
    assert done.returncode == (0 if is_sound else 2)
    assert "Traceback" not in text
    assert not any(ord(c) < 32 and c != "\n" for c in text)
    assert not any(0x7F <= ord(c) < 0xA0 for c in text)
    if "--json" in rest:
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert {p["label"] for line in lines for p in line["predictions"]} == {*STRANGE_LABELS}
    elif "--csv" in rest:
        rows = list(csv.reader(done.stdout.decode(encoding.partition(":")[0]).splitlines()))
        labels = {row[2] for row in rows[1:]}
        assert len(labels) == 4
        assert "\\x1b[31mred\\x07" in labels
        assert 'two\\nlines, "q"' in labels
        assert "caf\u00e9 \u4e2d\u6587" in labels or "utf-8" not in encoding


def test_a_long_text_of_others_is_shortened(folder: Path) -> None:
    text = "x" * 100_000
    result = timesformer(folder, "classify", "shots", "a.mp4", "--top-k", text)
    assert_bad_input(result, "[...]")
    assert len(result.stderr) < 20_000


def test_a_features_file_of_strange_names(folder: Path, tmp_path: Path) -> None:
    name = "strange\udcff\x1b.mp4"
    os.link(folder / "a.mp4", os.fsencode(folder) + b"/" + os.fsencode(name))
    path = tmp_path / "f.npz"
    done = timesformer(folder, "classify", "featured.onnx", name, "--features", path)
    assert done.returncode == 0, done.stderr
    with np.load(path) as saved:
        assert saved["videos"].tolist() == [name]


@pytest.mark.skipif(os.name != "posix", reason="this system has no such limits")
def test_a_features_file_that_does_not_fit(folder: Path, tmp_path: Path) -> None:
    line = [*COMMAND, "classify", "featured.onnx", "a.mp4", "--features", str(tmp_path / "f.npz")]
    done = subprocess.run(
        ["sh", "-c", 'trap "" XFSZ; ulimit -f 0; exec "$@"', "sh", *line],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 2
    assert f"{tmp_path}/f.npz cannot be written: " in done.stderr
    assert "(ulimit -f), or write to another folder" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_interrupt(folder: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "classify", "shots", *["a.mp4"] * 2000, "--json"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert errors.split("\n", 1)[1].strip() == "timesformer: interrupted"


# --- Models on the Hub ---------------------------------------------------------------------------


def community_files(folder: Path) -> Path:
    """The layout of ``onnx-community/timesformer-*``: open dimensions, several variants."""
    shape = ("batch_size", "num_frames", "num_channels", "height", "width")
    for number, name in enumerate(("model", "model_int8", "model_quantized")):
        graph = TinyGraph(shape=shape, scale=1.0 + number)
        graph.save(
            folder / "onnx" / f"{name}.onnx",
            save_as_external_data=name == "model",
            location="model.onnx_data",
            size_threshold=80,
        )
    write_sidecars(folder)
    (folder / "README.md").write_text("a model card")
    return folder


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    files = community_files(tmp_path / "repository")
    weights = {"config.json": b"{}", "pytorch_model.bin": b"weights"}
    with HubServer(
        {
            "onnx-community/shots": Repository.of_folder(files, revisions=("v1",)),
            "facebook/weights": Repository(weights),
            "facebook/gated": Repository.of_folder(files, gated=True),
        }
    ) as server:
        yield server


def on_hub(folder: Path, hub: HubServer, home: Path, *arguments: object, **more: str) -> Result:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return timesformer(folder, "classify", *arguments, env=inherited | hub.environment(home) | more)


def test_a_model_of_the_community_by_its_id(folder: Path, hub: HubServer, tmp_path: Path) -> None:
    home = tmp_path / "home"
    options = ("--json", "--dtype", "fp32")
    result = on_hub(folder, hub, home, "onnx-community/shots", "a.mp4", *options)
    assert result.returncode == 0, result.stderr
    assert "onnx-community/shots: fp32, device cpu" in result.stderr
    local = timesformer(folder, "classify", "shots", "a.mp4", "--json")
    predictions = json.loads(result.stdout)["predictions"]
    assert [p["label"] for p in predictions] == [
        p["label"] for p in json.loads(local.stdout)["predictions"]
    ]
    fetched = {line.rpartition("/")[2] for line in hub.requests if "/resolve/" in line}
    wanted = {"config.json", "preprocessor_config.json", "model.onnx", "model.onnx_data"}
    assert fetched == wanted  # not the other variants, nor the card
    # Again, without the network.
    before = len(hub.requests)
    for more in ({"HF_HUB_OFFLINE": "1"}, {}):
        flags = () if more else ("--local-files-only",)
        again = on_hub(folder, hub, home, "onnx-community/shots", "a.mp4", *options, *flags, **more)
        assert json.loads(again.stdout)["predictions"] == predictions
    assert len(hub.requests) == before


def test_the_preprocessing_of_transformers_5_on_the_hub(
    folder: Path, hub: HubServer, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    plain = json.loads((repository / "preprocessor_config.json").read_text())
    bright = plain | {"image_mean": [0.0, 0.0, 0.0]}
    (repository / "processor_config.json").write_text(json.dumps({"video_processor": bright}))
    with_both = Repository.of_folder(repository)
    (repository / "processor_config.json").unlink()
    (repository / "preprocessor_config.json").write_text(json.dumps(bright))
    hub.repositories |= {"me/both": with_both, "me/bright": Repository.of_folder(repository)}

    results = {
        name: on_hub(folder, hub, tmp_path / "home", name, "a.mp4", "--json", "--dtype", "fp32")
        for name in ("me/both", "me/bright", "onnx-community/shots")
    }

    both, bright_alone, shots = (
        json.loads(result.stdout)["predictions"] for result in results.values()
    )
    assert both == bright_alone
    assert both != shots
    said = results["me/both"].stderr
    assert "processor_config.json (video_processor) counts, as in transformers" in said
    assert "counts" not in results["me/bright"].stderr


def test_other_variants_and_revisions(folder: Path, hub: HubServer, tmp_path: Path) -> None:
    for dtype, file in (("int8", "model_int8.onnx"), ("q8", "model_quantized.onnx")):
        options = ("--dtype", dtype, "--revision", "v1")
        result = on_hub(folder, hub, tmp_path / dtype, "onnx-community/shots", "a.mp4", *options)
        assert result.returncode == 0, result.stderr
        assert any(line.endswith(f"/resolve/v1/onnx/{file}") for line in hub.requests)
        assert not any(line.endswith("model.onnx_data") for line in hub.requests)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nobody/nothing"], "there is no folder or file nobody/nothing here"),
        (["facebook/weights"], "timesformer-export --model facebook/weights"),
        (["facebook/gated"], "facebook/gated is gated"),
        (["onnx-community/shots", "--revision", "v9"], "no revision v9"),
        (["onnx-community/shots", "--dtype", "q4"], "it has fp32, int8, q8"),
    ],
)
def test_refusals_of_the_hub(
    folder: Path, hub: HubServer, tmp_path: Path, arguments: list[str], message: str
) -> None:
    model, *options = arguments
    result = on_hub(folder, hub, tmp_path / "home", model, "a.mp4", *options)
    assert_bad_input(result, message)


def test_without_huggingface_hub(folder: Path, hub: HubServer, tmp_path: Path) -> None:
    """Models on this machine run without it; a Hub id says which pip command brings it."""
    blocker = (
        "import sys\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'huggingface_hub':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Blocker())\n"
    )
    (tmp_path / "sitecustomize.py").write_text(blocker)
    paths = {"PYTHONPATH": str(tmp_path)}
    result = on_hub(folder, hub, tmp_path / "home", "onnx-community/shots", "a.mp4", **paths)
    assert_bad_input(result, 'pip install "timesformer-onnx[hub]"')
    assert on_hub(folder, hub, tmp_path / "home", "shots", "a.mp4", **paths).returncode == 0


# --- What is imported ----------------------------------------------------------------------------


def run_python(folder: Path, code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_is_light(folder: Path) -> None:
    loaded = run_python(folder, "import timesformer_runtime, sys; print(*sys.modules)").split()
    heavy = {"numpy", "av", "onnxruntime", "rich", "click", "huggingface_hub", "importlib.metadata"}
    assert heavy.isdisjoint(loaded)


def test_a_classification_never_imports_the_training_world(folder: Path) -> None:
    code = """
import sys
from timesformer_runtime.cli import command
command.main(["classify", "shots", "a.mp4"], standalone_mode=False)
print("MODULES", *sys.modules)
"""
    modules = run_python(folder, code).split("MODULES")[1].split()
    roots = {name.split(".")[0] for name in modules}
    assert {"numpy", "av", "onnxruntime", "timesformer_runtime"} <= roots
    unwanted = {"torch", "onnx", "onnxscript", "transformers", "safetensors", "PIL", "scipy"}
    assert roots.isdisjoint(unwanted | {"timesformer_exporter", "huggingface_hub"})


def test_the_public_names(folder: Path) -> None:
    code = """
import timesformer_runtime as package
for name in package.__all__:
    assert getattr(package, name) is not None, name
assert set(package.__all__) <= set(dir(package))
assert package.__version__[0].isdigit()
try:
    package.nothing
except AttributeError as error:
    print(error)
"""
    assert "has no attribute 'nothing'" in run_python(folder, code)


def test_too_little_memory_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def greedy(_self: VideoClassifier) -> None:
        bytearray(1 << 60)

    monkeypatch.setattr(VideoClassifier, "verify", greedy)
    monkeypatch.setattr(sys, "argv", ["timesformer", "verify", str(folder / "shots")])
    with pytest.raises(SystemExit) as exit_code:
        cli.main()
    assert exit_code.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "timesformer: there is not enough memory for it"


def test_a_command_imports_no_other_command() -> None:
    code = (
        "import sys; from timesformer_runtime.cli import command\n"
        "command.main(['classify', '--help'], standalone_mode=False)\n"
        "print([name for name in command.commands if f'timesformer_runtime.cli.{name}' in "
        "sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['classify']"
