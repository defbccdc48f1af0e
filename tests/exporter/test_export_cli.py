"""The command ``timesformer-export``, as a person runs it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from timesformer_exporter.cli import command
from timesformer_runtime.cli.output import name_options
from timesformer_runtime.input.preprocess import Preprocessing

from tests.patience import PATIENCE
from tests.tiny_models import tiny_config, write_checkpoint

COMMAND = Path(sys.executable).with_name("timesformer-export")


def _run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(COMMAND), *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100", "NO_COLOR": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def _write(folder: Path) -> None:
    preprocessing = Preprocessing(size=32, crop_size=(32, 32)).to_dict()
    write_checkpoint(folder, tiny_config(), preprocessing=preprocessing)


def test_an_export_shows_its_proof_its_files_and_the_next_command(tmp_path: Path) -> None:
    _write(tmp_path / "my-model")
    done = _run(tmp_path, "--model", "my-model")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "Next: timesformer classify my-model-onnx video.mp4"
    assert re.fullmatch(
        r"Passed: agrees with PyTorch \(largest difference .+, limit .+\), in [\d.]+ s\.", lines[-2]
    )
    assert re.search(r"my-model-onnx/onnx/model\.onnx +0\.2 MB", done.stdout)
    assert re.search(r"[\d.]+ M multiply-adds a clip, \d\d% of the original's", done.stdout)
    assert [row.split("│")[2].strip() for row in lines if "logits" in row] == ["1", "2", "3", "5"]
    assert {path.name for path in tmp_path.iterdir()} == {"my-model", "my-model-onnx"}
    assert "Tracing to ONNX" in done.stderr

    again = _run(tmp_path, "--model", "my-model")
    assert again.returncode == 2
    assert again.stderr == (
        "timesformer-export: my-model-onnx exists; give --force to replace it, or another "
        "--output\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "x", "--opset", "17"], "'--opset'"),
        (["--model", "x", "--target", "gpu"], "'--target'"),
        (
            ["--model", "x", "--target", "portable", "--opset", "23"],
            "for --target portable it must be from 18 to 22",
        ),
        (["--model", "x", "--task", "detection"], "'--task'"),
        (["--model", "x", "--input", "video"], "'--input'"),
        (["--model", "x", "--image-size", "224x"], "'224x' is not a size in pixels; give 224"),
        (["--model", "x", "--image-size", "1x2x3"], "'1x2x3' is not a size in pixels"),
        (["--model", "x", "--image-size", "0x8"], "'0x8' is not a size in pixels"),
        (["--model", "x", "--num-frames", "0"], "'--num-frames'"),
        (["--model", "x", "--atol", "-1"], "'--atol'"),
        (["--modle", "x"], "--modle"),
        ([], "'--model'"),
        (["--model", "x", "--output", "absent/exported"], "create it first"),
        (["--model", "./absent"], "absent"),
        (["--model", "text.pth"], "text.pth"),
        (
            ["--model", "text.pth", "--revision", "v"],
            "--revision is v, but text.pth is a local path",
        ),
        (["--model", ""], "model is empty; give a Hub id, a folder or a checkpoint file"),
        (
            ["--model", "x", "--no-gate"],
            "--no-gate is for int8, fp16 and q4; give one with --dtype",
        ),
        (
            ["--model", "x", "--int8-target", "avx2"],
            "--int8-target is for int8; give it with --dty",
        ),
        (
            ["--model", "x", "--dtype", "int8", *["--int8-target", "avx2"] * 2],
            "--int8-target is ('avx2', 'avx2'); give at least one, and each only once",
        ),
        (["--model", "x", "--private"], "--private is for an upload; give --push-to-hub too"),
        (
            ["--model", "x", "--push-to-hub", "x"],
            "--push-to-hub is 'x'; it must be a name on the Hub",
        ),
        (["--model", "x", "--output", "a\x1bb/c"], r"--output a\x1bb/c: there is no folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "text.pth").write_text("not a checkpoint")
    done = _run(tmp_path, *arguments, HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("timesformer-export: ")
    assert message in last
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["text.pth"]


def test_a_librarys_message_gets_the_commands_names_of_options() -> None:
    message = (
        "give `labels`, `force=True`, `gate=False` or `input=frames`; `other`, `hf auth login`"
    )
    assert name_options(message, command) == (
        "give --labels, --force, --no-gate or --input frames; `other`, `hf auth login`"
    )


def test_help_names_every_option() -> None:
    done = _run(Path.cwd(), "--help")
    assert done.returncode == 0
    for option in (
        "--model",
        "--output",
        "--revision",
        "--local-files-only",
        "--labels",
        "--task",
        "--input",
        "--num-frames",
        "--image-size",
        "--attention-heads",
        "--weights",
        "--dtype",
        "--calibration-videos",
        "--int8-target",
        "--no-gate",
        "--target",
        "--opset",
        "--output-hidden-states",
        "--output-attentions",
        "--atol",
        "--force",
        "--push-to-hub",
        "--private",
        "--push-revision",
    ):
        assert option in done.stdout


def test_a_failed_check_is_exit_code_1(tmp_path: Path) -> None:
    """Weights whose output overflows float32 cannot pass."""
    import torch  # noqa: PLC0415
    from safetensors.torch import load_file, save_file  # noqa: PLC0415

    _write(tmp_path / "huge")
    tensors = load_file(tmp_path / "huge" / "model.safetensors")
    tensors["classifier.weight"] = torch.full_like(tensors["classifier.weight"], 3e38)
    save_file(tensors, tmp_path / "huge" / "model.safetensors", metadata={"format": "pt"})
    done = _run(tmp_path, "--model", "huge")
    assert done.returncode == 1, done.stderr
    assert "check failed: logits at batch 1 PyTorch's values are not finite" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"huge", "huge-onnx.rejected"}
    assert not list(tmp_path.rglob("*.onnx"))


def test_a_variant_that_is_too_far_off_says_what_to_do(tmp_path: Path) -> None:
    _write(tmp_path / "model")
    impossible = (
        "import dataclasses, sys; from timesformer_exporter import cli; "
        "from timesformer_runtime.model import gate; "
        "gate.THRESHOLDS['int8'] = dataclasses.replace(gate.THRESHOLDS['int8'], relative=0.0); "
        "sys.argv = ['timesformer-export', '--model', 'model', '--dtype', 'int8']; cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", impossible],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert "check failed: int8: largest difference, as a share of the range, is" in last
    assert "leave out --dtype int8, give (other) --calibration-videos" in last
    assert "the result is in model-onnx.rejected" in last


def test_a_stopped_export_leaves_nothing_behind(tmp_path: Path) -> None:
    _write(tmp_path / "model")
    for stop, code in ((signal.SIGINT, 130), (signal.SIGTERM, 128 + signal.SIGTERM)):
        process = subprocess.Popen(
            [str(COMMAND), "--model", "model"],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        assert process.stderr is not None
        for line in process.stderr:
            if "Tracing" in line:
                break
        process.send_signal(stop)
        rest = process.stderr.read()
        assert process.wait(timeout=PATIENCE) == code
        assert "Traceback" not in rest
        assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_hangup_that_nohup_ignores_does_not_stop_an_export(tmp_path: Path) -> None:
    _write(tmp_path / "model")
    process = subprocess.Popen(
        ["bash", "-c", 'trap "" HUP; exec "$@"', "bash", str(COMMAND), "--model", "model"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    process.stderr.readline()
    process.send_signal(signal.SIGHUP)
    rest = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 0, rest
    assert (tmp_path / "model-onnx" / "onnx" / "model.onnx").is_file()


def _run_with(
    redirection: str, folder: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Runs the command in a shell that redirects its outputs."""
    return subprocess.run(
        ["bash", "-c", f'"$@" {redirection}', "bash", str(COMMAND), *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize(
    ("redirection", "code", "said"),
    [
        (">/dev/full", 2, "the summary cannot be written to standard output (No space left"),
        (">&-", 2, "the summary cannot be written to standard output (Bad file descriptor)"),
        (">/dev/null 2>&-", 0, ""),
        (">/dev/null 2>/dev/full", 0, ""),
    ],
)
def test_outputs_that_take_nothing(redirection: str, code: int, said: str, tmp_path: Path) -> None:
    _write(tmp_path / "model")
    done = _run_with(redirection, tmp_path, "--model", "model")
    assert done.returncode == code
    stderr = done.stderr.decode()
    assert "Traceback" not in stderr
    if said:
        last = stderr.splitlines()[-1]
        assert last.startswith(f"timesformer-export: {said}")
        assert last.endswith("the files are whole, in model-onnx")
    assert (tmp_path / "model-onnx" / "onnx" / "model.onnx").is_file()


@pytest.mark.parametrize(
    ("output", "arguments", "code"),
    [
        ("stdout", ["--model", "model"], 141),
        ("stderr", ["--model", "model"], 0),
        ("stderr", ["--model", "absent/"], 2),
        ("stdout", ["--help"], 141),
    ],
)
def test_a_closed_pipe_is_not_a_failed_check(
    output: str, arguments: list[str], code: int, tmp_path: Path
) -> None:
    _write(tmp_path / "model")
    read, write = os.pipe()
    os.close(read)
    outputs: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, output: write}
    process = subprocess.Popen([str(COMMAND), *arguments], cwd=tmp_path, text=True, **outputs)
    os.close(write)
    stderr = process.communicate(timeout=PATIENCE)[1] or ""
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    exported = (tmp_path / "model-onnx" / "onnx" / "model.onnx").is_file()
    assert exported == (arguments == ["--model", "model"])


def test_names_that_would_change_the_terminal_or_that_it_cannot_show(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file  # noqa: PLC0415

    name = "mé\x1b[31m"
    _write(tmp_path / name)
    done = _run_with("2>&1", tmp_path, "--model", name, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stdout
    assert b"\x1b" not in done.stdout
    shown = rb"m\xe9\x1b[31m"
    assert b"Loading " + shown in done.stdout
    assert shown + b"-onnx/onnx/model.onnx" in done.stdout
    assert b"Next: timesformer classify '" + shown in done.stdout

    weights = tmp_path / name / "model.safetensors"
    tensors = load_file(weights)
    tensors["timesformer.\x1b[2Jx"] = tensors["classifier.bias"].clone()
    save_file(tensors, weights, metadata={"format": "pt"})
    done = _run_with("2>&1", tmp_path, "--model", name, "--force")
    assert done.returncode == 2
    assert b"\x1b" not in done.stdout
    assert rb"timesformer.\x1b[2Jx" in done.stdout.splitlines()[-1]


def test_names_that_look_like_markup(tmp_path: Path) -> None:
    _write(tmp_path / "my [v2]")
    done = _run(tmp_path, "--model", "my [v2]")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "Next: timesformer classify 'my [v2]-onnx' video.mp4"


def test_sizes_beyond_reason(tmp_path: Path) -> None:
    _write(tmp_path / "model")
    done = _run(tmp_path, "--model", "model", "--num-frames", "10000000000")
    assert done.returncode == 2
    assert "num_frames is 10000000000; it must be an integer from 1 to 1000000" in done.stderr
    assert "Traceback" not in done.stderr
    done = _run(tmp_path, "--model", "model", "--image-size", "9" * 5000)
    assert done.returncode == 2, done.stderr
    assert "is not a size in pixels; give 224 or 224x320" in done.stderr
