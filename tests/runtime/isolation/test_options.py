"""Tests the limits and options that choose reader processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from timesformer_runtime import (
    DecodeLimits,
    InvalidOptionError,
    InvalidVideoError,
    VideoClassifier,
)
from timesformer_runtime.isolation import process
from timesformer_runtime.video import VideoDecoder

from tests.isolated_videos import (
    load,
)
from tests.patience import PATIENCE
from tests.video_files import write_video

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="isolated needs Linux")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"isolated": 1}, "`isolated` is 1; it must be True or False"),
        ({"max_process_bytes": 1 << 30}, "`max_process_bytes` is 1073741824; it has no effect"),
        ({"isolated": True, "max_process_bytes": 0}, "`max_process_bytes` is 0; it must be an int"),
        ({"isolated": True, "max_process_bytes": 1.5}, "`max_process_bytes` is 1.5; it must be"),
    ],
)
def test_invalid_limits(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        DecodeLimits(**options)


def test_other_systems_have_no_such_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(InvalidOptionError, match=r"it needs Linux.* and this is darwin"):
        DecodeLimits(isolated=True)


def test_only_a_classifier_reads_in_another_process(folder: Path) -> None:
    with pytest.raises(InvalidOptionError, match="`isolated` is True; only a VideoClassifier"):
        VideoDecoder(folder / "plain.mp4", limits=DecodeLimits(isolated=True))


def test_streams_of_files_only(folder: Path, isolated: VideoClassifier) -> None:
    with pytest.raises(InvalidOptionError, match="`isolated` is for files; this source is live"):
        isolated.stream("rtsp://user:secret@127.0.0.1/camera")
    with pytest.raises(InvalidOptionError, match="`isolated` and `drop` do not go together"):
        isolated.stream(folder / "plain.mp4", drop=True)


def test_a_process_that_does_not_start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = load(folder)
    for program, reason in (("/no/python", "No such file"), ("/bin/false", "it ended with code 1")):
        monkeypatch.setattr(sys, "executable", program)
        with pytest.raises(InvalidVideoError, match=f"does not start .*{reason}"):
            classifier.read(folder / "plain.mp4")


def test_a_process_whose_start_takes_too_long(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "slow"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(process, "_START_SECONDS", 0.5)
    with pytest.raises(InvalidVideoError, match=r"start \(it takes longer than 0\.5 seconds\)"):
        load(folder).read(folder / "plain.mp4")


def command(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "timesformer_runtime", *map(str, arguments), "--device", "cpu"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["classify", "shots", "plain.mp4", "text.mp4", "--json"],
        ["timeline", "shots", "truncated.mkv", "--window", 0.4, "--stride", 0.2, "--json"],
        ["stream", "shots", "plain.mp4", "--window", 0.4, "--stride", 0.2, "--json"],
    ],
)
def test_commands_print_the_same(folder: Path, arguments: list[object]) -> None:
    ends = [command(folder, *arguments), command(folder, *arguments, "--isolated")]
    assert ends[0].returncode == ends[1].returncode
    assert ends[0].stderr == ends[1].stderr
    lines = [[json.loads(line) for line in end.stdout.splitlines()] for end in ends]
    for line in (*lines[0], *lines[1]):
        line.pop("seconds", None)
        line.pop("latency", None)
    assert lines[0] == lines[1]
    assert lines[0]


def test_batch_goes_on_behind_a_video_that_takes_too_much(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    for name in ("plain.mp4", "plain.avi", "short.mkv"):
        os.link(folder / name, tmp_path / "clips" / name)
    write_video(tmp_path / "clips" / "large.mp4", np.zeros((4, 2400, 3200, 3), np.uint8))
    path = tmp_path / "results.jsonl"
    limit = ("--isolated", "--max-process-bytes", 1 << 26)
    end = command(folder, "batch", "shots", tmp_path / "clips", "--output", path, *limit)
    assert end.returncode == 2
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    errors = {Path(line["video"]).name: line.get("error") for line in lines}
    assert errors.keys() == {"plain.mp4", "plain.avi", "short.mkv", "large.mp4"}
    assert [name for name, error in errors.items() if error] == ["large.mp4"]
    assert "takes more than 67108864 bytes" in errors["large.mp4"]
    assert sum("large.mp4" in line for line in end.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["classify", "shots", "plain.mp4", "--max-process-bytes", 9],
            "--max-process-bytes is 9; it has no effect without --isolated",
        ),
        (["stream", "shots", "udp://127.0.0.1:9", "--isolated"], "--isolated is for files"),
        (["stream", "shots", "plain.mp4", "--isolated", "--drop"], "do not go together"),
    ],
)
def test_options_that_do_not_go_together(
    folder: Path, arguments: list[object], message: str
) -> None:
    end = command(folder, *arguments)
    assert end.returncode == 2
    assert message in end.stderr.splitlines()[-1]
