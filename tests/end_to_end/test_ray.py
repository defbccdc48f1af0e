"""``timesformer batch --ray`` on a local cluster whose processes and machines are killed.

``make check-ray`` makes an environment with Ray and runs these tests in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.patience import PATIENCE
from tests.tiny_graphs import moving_frames, write_exported_model, write_video

pytest.importorskip("ray", reason="Ray is not installed; `make check-ray` runs these tests")
parquet = pytest.importorskip("pyarrow.parquet")
if sys.platform != "linux":
    pytest.skip("the tests read /proc", allow_module_level=True)

ROOT = Path(__file__).parents[2]
SLOW = (
    "--sampling",
    "dense",
    "--frame-sampling-rate",
    2,
    "--clips",
    8,
    "--crops",
    3,
)  # 24 runs of the model for each video
Record = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and 160 names of one video in ``clips``."""
    folder = tmp_path_factory.mktemp("ray")
    write_exported_model(folder / "model")
    clip = write_video(folder / "clip.mp4", moving_frames(40, 480, 640))
    (folder / "clips").mkdir()
    for number in range(160):
        (folder / f"clips/{number:03}.mp4").symlink_to(clip)
    return folder


class _Cluster:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.address = self._answer()

    def order(self, order: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{order}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextlib.contextmanager
def _cluster(*cpus: int, python_path: Path = ROOT) -> Iterator[_Cluster]:
    command = [sys.executable, "-m", "tests.end_to_end.ray_cluster", *map(str, cpus)]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=_environment(python_path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            yield _Cluster(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(PATIENCE)


def _environment(first: Path) -> dict[str, str]:
    paths = [first, ROOT / "runtime", ROOT]
    # Ray runs its workers at a low priority, which takes for ever on a busy machine.
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "RAY_worker_niceness": "0",
    }


def _start(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "timesformer_runtime", "batch", "model", *map(str, arguments)],
        cwd=folder,
        env=_environment(ROOT),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    with _start(folder, *arguments) as process:
        out, err = process.communicate(timeout=PATIENCE)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _lines(path: Path) -> list[Record]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def _wait_for(path: Path, lines: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + PATIENCE
    while len(_lines(path)) < lines:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def test_every_video_has_one_line_although_an_actor_and_a_machine_are_killed(
    folder: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results.jsonl"
    with _cluster(1, 1) as cluster:
        run = _start(folder, "clips", "--output", results, *SLOW, f"--ray={cluster.address}")
        _wait_for(results, 1, run)
        assert int(cluster.order("actor")) >= 1
        _wait_for(results, 20, run)
        cluster.order("machine")
        assert len(_lines(results)) < 160
        out, err = run.communicate(timeout=PATIENCE)
        assert run.returncode == 0, err
        assert not out  # Ray reports there what was killed, with dozens of lines of its logs
        lines = _lines(results)
        assert sorted(line["video"] for line in lines) == [f"clips/{n:03}.mp4" for n in range(160)]
        assert all("predictions" in line for line in lines)
        assert "Traceback" not in err
        assert "2 processes of 1 thread on 2 machines" in err


def test_the_lines_are_those_of_batch_and_a_later_run_continues(
    folder: Path, tmp_path: Path
) -> None:
    videos = ("clips/000.mp4", "clips/001.mp4", "broken.mp4", "missing.mp4")
    (folder / "broken.mp4").write_text("no video")
    here, there = tmp_path / "here.jsonl", tmp_path / "there.jsonl"
    assert _run(folder, *videos, "--output", here).returncode == 2
    first = _run(folder, *videos[:2], "--output", there, "--ray=local")
    assert first.returncode == 0, first.stderr
    again = _run(folder, *videos[:2], "--output", there, "--ray=local")
    assert again.returncode == 0, again.stderr
    assert "2 were done before" in again.stderr
    table = tmp_path / "there.parquet"
    second = _run(folder, *videos, "--output", there, "--parquet", table, "--ray=local")
    assert second.returncode == 2
    assert "2 videos in" in second.stderr
    assert "2 were done before, 2 failed" in second.stderr
    assert _without_seconds(there) == _without_seconds(here)
    assert parquet.read_table(table)["video"].to_pylist() == [
        line["video"] for line in _lines(there)
    ]


def test_a_signal_ends_the_command_as_it_ends_batch(folder: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    run = _start(folder, "clips", "--output", results, *SLOW, "--ray=local")
    _wait_for(results, 1, run)
    run.terminate()
    _, err = run.communicate(timeout=PATIENCE)
    assert run.returncode == -signal.SIGTERM
    assert "SIGTERM" not in err  # Ray's own handler prints a stack


def _without_seconds(path: Path) -> list[Record]:
    lines = sorted(_lines(path), key=lambda line: str(line["video"]))
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def test_a_video_that_kills_its_process_costs_one_line(folder: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for number in range(6):
        (videos / f"{number}.mp4").symlink_to(folder / "clip.mp4")
    (videos / "deadly.mp4").write_bytes((folder / "clip.mp4").read_bytes())
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "sys.addaudithook(lambda event, arguments: os._exit(1)\n"
        "                 if event == 'open' and 'deadly' in str(arguments[0]) else None)\n"
    )
    results = tmp_path / "results.jsonl"
    with _cluster(1, python_path=tmp_path) as cluster:
        done = _run(folder, videos, "--output", results, f"--ray={cluster.address}")
    assert done.returncode == 2, done.stderr
    lines = {Path(line["video"]).name: line for line in _lines(results)}
    assert len(_lines(results)) == len(lines) == 7
    assert "was killed" in lines.pop("deadly.mp4")["error"]
    assert all("predictions" in line for line in lines.values())
    assert "--isolated" in done.stderr


def test_another_model_on_a_machine_is_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "from timesformer_runtime.classifier import VideoClassifier\n"
        "VideoClassifier.fingerprint = lambda self: 'another'\n"
    )
    with _cluster(1, python_path=tmp_path) as cluster:
        done = _run(
            folder, "clips/000.mp4", "--output", tmp_path / "r.jsonl", f"--ray={cluster.address}"
        )
    assert done.returncode == 2
    assert "is not that of the machine that runs the command" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--ray=local", "--threads", 4096), "the largest machine of the cluster has"),
        (("--ray=127.0.0.1:1",), "no cluster answers there"),
        (("--ray=model",), "'model' is not HOST:PORT"),
    ],
)
def test_a_wrong_cluster_is_one_line(
    folder: Path, tmp_path: Path, arguments: tuple[object, ...], message: str
) -> None:
    done = _run(folder, "clips", "--output", tmp_path / "results.jsonl", *arguments)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
