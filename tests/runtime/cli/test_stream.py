"""``timesformer stream`` as users run it: a process with exit code, stdout and stderr."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from timesformer_runtime import VideoClassifier
from timesformer_runtime.cli.stream import stream

from tests.command_line import COMMAND, Result, timesformer
from tests.live_sources import free_udp_url, sender
from tests.patience import PATIENCE
from tests.tiny_graphs import LABELS, write_exported_model
from tests.video_files import moving_pictures, write_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported model ``shots`` and the video ``clip.mp4`` of 4.4 seconds."""
    folder = tmp_path_factory.mktemp("stream")
    write_exported_model(folder / "shots")
    write_video(folder / "clip.mp4", moving_pictures(110, seed=1))
    return folder


def scores(predictions: Any) -> dict[str, float]:
    return {prediction["label"]: prediction["score"] for prediction in predictions}


def run(folder: Path, *arguments: object) -> Result:
    return timesformer(folder, "stream", "shots", *arguments)


def test_a_file_is_replayed(folder: Path) -> None:
    result = run(folder, "clip.mp4", "--window", "2s", "--stride", "1000ms", "--json")
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    classifier = VideoClassifier.from_pretrained(folder / "shots")
    expected = classifier.stream(folder / "clip.mp4", window=2.0, stride=1.0, top_k=1)
    for line, one in zip(lines, expected, strict=True):
        assert (line["start"], line["frames"]["times"]) == (one.start, [*one.times])
        assert scores(line["predictions"]) == pytest.approx(scores(one.predictions))


def test_the_table(folder: Path) -> None:
    result = run(folder, "clip.mp4", "--top-k", "2")
    header, first, second = (line.split() for line in result.stdout.splitlines()[:3])
    assert header == ["start", "end", "label", "score", "latency", "dropped", "damaged"]
    assert first[:2] == ["0:00.0", "0:04.0"]
    assert {first[2], second[0]} <= set(LABELS)
    assert first[-1] == "0"


def test_the_help_says_which_limits_are_for_files() -> None:
    shown = " ".join(CliRunner().invoke(stream, ["--help"]).output.split())
    for option in ("--max-packets N", "--max-seconds TIME"):
        assert f"{option} For files, not live sources: Refuse videos" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.mp4"], "none.mp4: there is no such file"),
        (["gopher://host/"], "gopher://host/ is not a URL that can be read live"),
        (["clip.mp4", "--timeout", "3s"], "--timeout is for live sources"),
        (["clip.mp4", "--reconnect", "3", "--no-reconnect"], "contradict each other"),
        (["clip.mp4", "--window", "long"], "'long' is not a duration"),
        (["clip.mp4", "--format", "nonsense"], "--format is 'nonsense'"),
        (["clip.mp4", "--max-pixels", "100"], "frames of 64x48 pixels"),
        (["clip.mp4", "--max-packets", "5"], "clip.mp4 has more than 5 packets"),
        (["udp://127.0.0.1:9", "--max-packets", "5"], "--max-packets is for files"),
        (["/dev/video9", "--format", "mjpeg", "--max-seconds", "5"], "--max-seconds is for files"),
        (["clip.mp4", "--max-seconds", "0.000001s"], "clip.mp4 takes longer than 1e-06 seconds"),
    ],
)
def test_bad_input_is_one_line(folder: Path, arguments: list[str], message: str) -> None:
    result = run(folder, *arguments)
    lines = [line for line in result.stderr.splitlines() if line.startswith("timesformer: ")]
    assert result.returncode == 2, result.stderr
    assert len(lines) == 1, result.stderr
    assert message in lines[0]
    assert result.stdout == ""


@pytest.mark.parametrize("stalled", [False, True])
def test_ctrl_c_ends_the_command_at_once(folder: Path, stalled: bool) -> None:
    url = free_udp_url()
    command = [
        *COMMAND,
        "stream",
        "shots",
        url,
        "--window",
        "0.4s",
        "--stride",
        "0.4s",
        "--timeout",
        f"{2 * PATIENCE}s",
    ]
    with sender(url) as source:
        process = subprocess.Popen(
            [*command, "--json"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["end"] > 0
        if stalled:
            source.send_signal(signal.SIGSTOP)
            time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=PATIENCE)  # the network has more
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == "timesformer: interrupted"
    assert all(json.loads(line)["end"] > 0 for line in output.splitlines())
