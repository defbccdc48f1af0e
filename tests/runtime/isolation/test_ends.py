"""Tests when reader processes end: with a timeline, with the classifier, with their parent."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from timesformer_runtime import (
    InvalidVideoError,
    VideoNotFoundError,
)
from timesformer_runtime.isolation.in_this_process import InThisProcess
from timesformer_runtime.isolation.process import _START

from tests import traps
from tests.isolated_videos import (
    COUNT,
    STRIDE,
    WINDOW,
    children,
    descriptors,
    load,
    settled,
)
from tests.patience import PATIENCE
from tests.traps import Trap
from tests.video_files import moving_pictures, write_video

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="isolated needs Linux")


def test_many_videos_leave_nothing(folder: Path) -> None:
    processes, files = children(), descriptors()
    classifier = load(folder)
    names = ["plain.mp4", "text.mp4", "truncated.mkv", "missing.mp4"]
    for number in range(50):
        with contextlib.suppress(InvalidVideoError, VideoNotFoundError):
            classifier.read(folder / names[number % 4])
        assert len(children() - processes) == 1  # one that reads all of them
    del classifier
    assert children() == processes
    assert descriptors() == files


def test_closing_a_timeline_ends_its_process(folder: Path) -> None:
    processes, threads = children(), threading.active_count()
    classifier = load(folder, traps.Hang)
    start = time.monotonic()
    for _ in range(3):
        with classifier.timeline(folder / "white_later.mp4", WINDOW, STRIDE) as timeline:
            next(timeline)
            assert children() > processes
        assert children() == processes  # though it hangs in what comes next
        assert threading.active_count() == threads
    assert time.monotonic() - start < PATIENCE


def test_no_more_is_read_than_is_taken(folder: Path, tmp_path: Path) -> None:
    """Only some dozens of windows as small as these fit into the socket's buffer."""
    video = write_video(tmp_path / "long.mp4", moving_pictures(2000))
    log = tmp_path / "log"
    classifier = load(folder, Trap, log)
    with classifier.timeline(video, WINDOW, WINDOW) as timeline:
        next(timeline)
        first = settled(log)
        next(timeline)
        assert first <= settled(log) <= first + 2 * classifier.num_frames
    list(classifier.timeline(video, WINDOW, WINDOW))
    assert settled(log) > 2 * first


SCRIPT = """
import sys, time
from pathlib import Path
from timesformer_runtime import DecodeLimits, VideoClassifier
from tests import traps

classifier = VideoClassifier.from_pretrained(
    "shots", device="cpu", threads=2, limits=DecodeLimits(isolated=True)
)
classifier.input = traps.Hang.of(classifier.input, Path(sys.argv[1]))
"""
CLASSIFY = "classifier('white.mp4')"
BATCH = "list(classifier.batch(['plain.mp4'] * 9 + ['white.mp4'] * 9, workers=3))"
TIMELINE = "list(classifier.timeline('white.mp4', 0.4, 0.2))"
FORGOTTEN = """
segments = classifier.timeline('white_later.mp4', 0.4, 0.2)
next(segments)
time.sleep(1)
"""


@contextlib.contextmanager
def started(folder: Path, what: str, log: Path) -> Iterator[subprocess.Popen[str]]:
    """Starts a program whose reader processes hang until they are killed."""
    program = subprocess.Popen(
        [sys.executable, "-c", SCRIPT + what, log],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
        yield program
    finally:  # a test that failed leaves nothing that hangs
        program.kill()
        program.communicate()


def are_gone(processes: set[int]) -> bool:
    """Waits until processes have ended; zombies count as ended."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        states = set()
        for process in processes:
            with contextlib.suppress(OSError):
                states.add(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0])
        if states <= {"Z"}:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("what", [CLASSIFY, BATCH, TIMELINE])
def test_processes_end_with_their_parent(
    folder: Path, tmp_path: Path, what: str, number: signal.Signals
) -> None:
    log = tmp_path / "log"
    with started(folder, what, log) as program:
        deadline = time.monotonic() + PATIENCE
        while not log.exists() or settled(log) == 0:
            assert time.monotonic() < deadline
        processes = set(map(int, log.read_text().split()))
        program.send_signal(number)
        _, errors = program.communicate(timeout=PATIENCE)
    assert program.returncode == -number
    if number == signal.SIGINT:
        assert errors.rstrip().endswith("KeyboardInterrupt")
    else:
        assert errors == ""
    assert are_gone(processes)


def test_a_process_whose_parent_ends_meanwhile_says_nothing() -> None:
    ours, its_own = socket.socketpair()
    ours.close()
    arguments = [str(its_own.fileno()), "timesformer_runtime.pipeline", *sys.path]
    with (
        its_own,
        subprocess.Popen(
            [sys.executable, "-c", _START, *arguments],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[its_own.fileno()],
        ) as reader,
    ):
        assert reader.stderr is not None
        assert reader.stderr.read() == b""
        assert reader.wait(PATIENCE) == 0


def test_a_timeline_that_is_forgotten_does_not_keep_the_interpreter(
    folder: Path, tmp_path: Path
) -> None:
    with started(folder, FORGOTTEN, tmp_path / "log") as program:
        _, errors = program.communicate(timeout=PATIENCE)
    assert (program.returncode, errors) == (0, "")
    assert are_gone(set(map(int, (tmp_path / "log").read_text().split())))


def test_a_fork_has_processes_of_its_own(folder: Path) -> None:
    """The end of the fork does not end the processes of its parent."""
    classifier = load(folder)
    before = children()
    classifier.read(folder / "plain.mp4")
    fork = os.fork()
    if fork == 0:  # pytest must not go on here
        count = 0
        with contextlib.suppress(Exception):
            count = classifier.read(folder / "plain.mp4").count
            classifier._readers = InThisProcess()  # the model itself cannot be deleted in a fork
            gc.collect()
        os._exit(0 if count == COUNT else 1)
    assert os.waitpid(fork, 0)[1] == 0
    processes = children() - before
    assert len(processes) == 1
    assert classifier.read(folder / "plain.mp4").count == COUNT
    assert children() - before == processes
