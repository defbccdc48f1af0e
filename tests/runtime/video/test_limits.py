"""Tests the limits of reading a video; each error names its limit."""

import io
import math
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from timesformer_runtime.errors import InvalidOptionError, VideoLimitError
from timesformer_runtime.input.sampling import FrameIndices
from timesformer_runtime.video import DecodeLimits
from timesformer_runtime.video.limits import Watch, interruptible

from tests.video_files import moving_pictures, read_clip, write_video

FRAMES = moving_pictures(40)
FILES: dict[str, dict[str, Any]] = {
    "indexed.mp4": {},
    "plain.avi": {"codec": "mpeg4"},
    "raw.h264": {},
}


def evenly(count: int) -> FrameIndices:
    return np.linspace(0, count - 1, 8).astype(np.int64)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("limit", "enough", "too_few", "message"),
    [
        # Some decoders count a frame's margins too.
        ("max_pixels", 4 * 64 * 48, 64 * 48 - 1, "64x48 pixels, above the limit of 3071; .* or"),
        ("max_packets", 41, 39, "has more than 39 packets; .* or"),
        ("max_bytes", 8 * 64 * 48 * 3, 8 * 64 * 48 * 3 - 1, "take more than 73727 bytes; .* or"),
    ],
)
def test_limits(
    name: str, limit: str, enough: int, too_few: int, message: str, tmp_path: Path
) -> None:
    path = write_video(tmp_path / name, FRAMES, **FILES[name])
    changes: list[dict[str, Any]] = [{limit: enough}, {limit: too_few}]
    allowed, refused = (DecodeLimits(**change) for change in changes)
    assert read_clip(path, evenly, limits=allowed).count == 40
    with pytest.raises(VideoLimitError, match=f"{message} raise `{limit}`") as caught:
        read_clip(path, evenly, limits=refused)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_max_bytes_counts_converted_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", FRAMES)
    limits = DecodeLimits(max_bytes=8 * 4)
    clip = read_clip(path, evenly, convert=lambda frame: frame[:2, :2, 0], limits=limits)
    assert sum(kept.nbytes for kept in clip.frames) == limits.max_bytes


class SlowFile(io.BytesIO):
    """A slow file object, such as one on a network that stalls."""

    def read(self, size: int | None = -1, /) -> bytes:
        time.sleep(0.05)
        return super().read(min(size or 0, 256))


@pytest.mark.parametrize("name", FILES)
def test_time(name: str, tmp_path: Path) -> None:
    data = write_video(tmp_path / name, FRAMES, **FILES[name]).read_bytes()
    start = time.monotonic()
    with pytest.raises(VideoLimitError, match=r"takes longer than 0\.3 seconds .* `max_seconds`"):
        read_clip(SlowFile(data), evenly, limits=DecodeLimits(max_seconds=0.3))
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("name", FILES)
def test_time_that_ends_while_frames_are_converted(name: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, moving_pictures(400), **FILES[name])

    def slow(frame: Any) -> Any:
        time.sleep(0.2)
        return frame

    with pytest.raises(VideoLimitError, match="max_seconds"):
        read_clip(path, evenly, convert=slow, limits=DecodeLimits(max_seconds=0.3))


def test_a_pipe_without_an_end() -> None:
    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            time.sleep(0.01)
            return len(buffer)

    source: Any = io.BufferedReader(Endless(), 1024)
    with pytest.raises(VideoLimitError, match="max_seconds"):
        read_clip(source, evenly, limits=DecodeLimits(max_seconds=0.2))


def test_a_tiny_file_with_an_enormous_frame(tmp_path: Path) -> None:
    """The decoder refuses the file before it decodes the frame."""
    path = tmp_path / "large.gif"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("gif", rate=10)
        stream.width, stream.height, stream.pix_fmt = 3000, 3000, "rgb8"
        frame = av.VideoFrame(3000, 3000, "rgb8")
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    assert path.stat().st_size < 100_000
    with pytest.raises(VideoLimitError, match="3000x3000 pixels, above the limit of 1000000"):
        read_clip(path, evenly, limits=DecodeLimits(max_pixels=1_000_000))


def test_a_caller_can_end_the_reading(tmp_path: Path) -> None:
    class EndError(Exception):
        pass

    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 10:
            raise EndError

    path = write_video(tmp_path / "video.mp4", moving_pictures(200))
    with interruptible(check), pytest.raises(EndError):
        read_clip(path, evenly)
    assert calls == 10
    read_clip(path, evenly)
    assert calls == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_pixels": 0}, "`max_pixels` is 0; it must be an integer of at least 1"),
        ({"max_packets": 1.5}, "`max_packets` is 1.5"),
        ({"max_bytes": True}, "`max_bytes` is True"),
        ({"max_pipe_bytes": 0}, "`max_pipe_bytes` is 0"),
        ({"max_seconds": 0}, "`max_seconds` is 0; it must be a number above 0"),
        ({"max_seconds": math.nan}, "`max_seconds` is nan"),
        ({"max_seconds": "5"}, "`max_seconds` is '5'"),
    ],
)
def test_invalid_limits(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        DecodeLimits(**options)


def test_no_limit_of_time() -> None:
    assert Watch("video.mp4", DecodeLimits(max_seconds=math.inf)).seconds_left() == math.inf
