"""Tests how files are read on unusual systems and in unusual situations."""

from __future__ import annotations

import errno
import io
import os
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from timesformer_runtime.errors import VideoLimitError
from timesformer_runtime.video import DecodeLimits
from timesformer_runtime.video.guard.nal_units import GuardedFile
from timesformer_runtime.video.limits import Watch

from tests.video_files import moving_pictures, read_clip, write_video


def last(count: int) -> npt.NDArray[np.int64]:
    return np.array([count - 1])


class Shared(io.FileIO):
    """A pipe with a second reader, which often takes the bytes first."""

    readings = 0
    most = 3

    def read(self, size: int | None = -1, /) -> bytes | None:  # type: ignore[override]
        self.readings += 1
        return None if self.readings % self.most else super().read(size)


def test_a_pipe_with_a_second_reader_is_read_to_its_end(tmp_path: Path) -> None:
    data = write_video(tmp_path / "video.mkv", moving_pictures(40)).read_bytes()
    read_end, write_end = os.pipe()

    def write() -> None:
        with open(write_end, "wb") as pipe:  # noqa: PTH123
            pipe.write(data)

    writer = threading.Thread(target=write)
    writer.start()
    with Shared(read_end) as shared:
        assert read_clip(shared, last).count == 40
    writer.join()


def test_a_pipe_whose_second_reader_takes_all_has_a_time_limit() -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"something")
    with Shared(read_end) as shared:
        shared.most = 1 << 30
        with pytest.raises(VideoLimitError, match="max_seconds"):
            read_clip(shared, last, limits=DecodeLimits(max_seconds=0.2))
    os.close(write_end)


def test_without_pread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has no pread; the video is long enough for its sample table to be read."""
    path = write_video(tmp_path / "video.mp4", moving_pictures(600, 16, 16), codec="libx264")
    expected = read_clip(path, last)
    monkeypatch.delattr(os, "pread")
    clip = read_clip(path, last)
    assert clip.count == expected.count == 600
    np.testing.assert_array_equal(clip.frames[0], expected.frames[0])


@pytest.mark.parametrize("in_memory", [False, True])
def test_seeking_before_the_beginning_returns_minus_one(in_memory: bool, tmp_path: Path) -> None:
    """For an error PyAV would print a traceback, and FFmpeg would go on."""
    path = tmp_path / "file"
    path.write_bytes(b"some bytes")
    with io.BytesIO(path.read_bytes()) if in_memory else path.open("rb", buffering=0) as file:
        counted = GuardedFile(file, Watch("file", DecodeLimits()))
        assert [counted.seek(-5), counted.seek(3), counted.tell()] == [-1, 3, 3]


def test_other_errors_of_seeking_are_raised() -> None:
    class Broken(io.BytesIO):
        def seek(self, *_: int) -> int:
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        GuardedFile(Broken(), Watch("file", DecodeLimits())).seek(3)
