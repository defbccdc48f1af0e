"""Tests that pipes are copied within limits, and that nothing stays open."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pytest
from timesformer_runtime.errors import InvalidVideoError, VideoLimitError
from timesformer_runtime.video import DecodeLimits

from tests.video_files import moving_pictures, read_clip, write_video

resource = pytest.importorskip("resource", reason="this system has no such limits and pipes")
ENDLESS = "import sys\nwhile True: sys.stdout.buffer.write(bytes(1 << 16))"
DRIPPING = """
import sys, time
while True: sys.stdout.buffer.write(b"."); sys.stdout.flush(); time.sleep(0.1)
"""
SILENT = "import time; time.sleep(60)"


def first(_: int) -> npt.NDArray[np.int64]:
    return np.array([0])


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    def open_files() -> int:
        return len(list(Path("/dev/fd").iterdir()))

    before = open_files()
    yield
    assert open_files() == before


@pytest.fixture
def pipe(request: pytest.FixtureRequest) -> Iterator[BinaryIO]:
    """Starts a program, and gives its output as a file object, buffered or not."""
    program, buffered = request.param
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, bufsize=-1 if buffered else 0
    ) as writer:
        assert writer.stdout is not None
        yield writer.stdout  # type: ignore[misc]
        writer.kill()


@pytest.mark.parametrize("pipe", [(ENDLESS, True), (ENDLESS, False)], indirect=True)
def test_a_pipe_has_a_limit_of_bytes(pipe: BinaryIO) -> None:
    message = r"cannot seek and has more than 3000000 bytes, .*; give .* or raise `max_pipe_bytes`"
    with pytest.raises(VideoLimitError, match=message):
        read_clip(pipe, first, limits=DecodeLimits(max_pipe_bytes=3_000_000))


@pytest.mark.parametrize(
    "pipe", [(DRIPPING, True), (DRIPPING, False), (SILENT, False)], indirect=True
)
def test_the_time_limit_holds_for_slow_pipes(pipe: BinaryIO) -> None:
    start = time.monotonic()
    with pytest.raises(VideoLimitError, match="max_seconds"):
        read_clip(pipe, first, limits=DecodeLimits(max_seconds=0.5))
    assert time.monotonic() - start < 10


def test_a_named_pipe_to_which_nobody_writes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(VideoLimitError, match=r"pipe\.mp4 takes longer than 0\.3 seconds"):
        read_clip(tmp_path / "pipe.mp4", first, limits=DecodeLimits(max_seconds=0.3))


def test_a_named_pipe_whose_writer_comes_late_and_pauses(tmp_path: Path) -> None:
    data = write_video(tmp_path / "video.mkv", moving_pictures(40)).read_bytes()
    os.mkfifo(tmp_path / "pipe")

    def write() -> None:
        time.sleep(0.2)
        with (tmp_path / "pipe").open("wb", buffering=0) as pipe:
            for start in range(0, len(data), len(data) // 3):
                pipe.write(data[start : start + len(data) // 3])
                time.sleep(0.1)

    writer = threading.Thread(target=write)
    writer.start()
    assert read_clip(tmp_path / "pipe", first).count == 40
    writer.join()


def test_a_pipe_is_as_large_as_allowed(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mkv", moving_pictures(40))
    size = path.stat().st_size
    with subprocess.Popen(["cat", path], stdout=subprocess.PIPE) as cat:
        pipe: Any = cat.stdout
        assert read_clip(pipe, first, limits=DecodeLimits(max_pipe_bytes=size)).count == 40
    assert read_clip(path, first, limits=DecodeLimits(max_pipe_bytes=1)).count == 40  # no pipe


@pytest.mark.parametrize("pipe", [(ENDLESS, False)], indirect=True)
def test_a_disk_that_gets_full(pipe: BinaryIO) -> None:
    message = "cannot be copied to .*: File too large; give the path of a file, or set TMPDIR"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_001, before[1]))
    try:
        with pytest.raises(InvalidVideoError, match=message) as caught:
            read_clip(pipe, first)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
