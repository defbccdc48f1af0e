"""How files are read on systems and in situations that are not the usual ones."""

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
from timesformer_runtime.video.limits import Watch
from timesformer_runtime.video.units import CountedFile

from tests.video_files import moving_pictures, read_clip, write_video


def last(count: int) -> npt.NDArray[np.int64]:
    return np.array([count - 1])


class Shared(io.FileIO):
    """A pipe of which another reader often takes what is there."""

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
    """As on Windows; the video is long enough for its own table to be used."""
    path = write_video(tmp_path / "video.mp4", moving_pictures(600, 16, 16), codec="libx264")
    expected = read_clip(path, last)
    monkeypatch.delattr(os, "pread")
    clip = read_clip(path, last)
    assert clip.count == expected.count == 600
    np.testing.assert_array_equal(clip.frames[0], expected.frames[0])


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_place_before_the_beginning_is_none(in_memory: bool, tmp_path: Path) -> None:
    """PyAV would print a traceback for an error, where FFmpeg goes on without."""
    path = tmp_path / "file"
    path.write_bytes(b"some bytes")
    with io.BytesIO(path.read_bytes()) if in_memory else path.open("rb", buffering=0) as file:
        counted = CountedFile(file, Watch("file", DecodeLimits()))
        assert [counted.seek(-5), counted.seek(3), counted.tell()] == [-1, 3, 3]


def test_other_errors_of_seeking_are_raised() -> None:
    class Broken(io.BytesIO):
        def seek(self, *_: int) -> int:
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        CountedFile(Broken(), Watch("file", DecodeLimits())).seek(3)
