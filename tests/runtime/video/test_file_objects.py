"""Tests file objects that return wrong values or raise, and interrupts while FFmpeg reads."""

from __future__ import annotations

import _thread
import contextlib
import functools
import io
import operator
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from timesformer_runtime.errors import InvalidVideoError
from timesformer_runtime.video import DecodeLimits
from timesformer_runtime.video.file_objects import Callbacks
from timesformer_runtime.video.guard.nal_units import GuardedFile
from timesformer_runtime.video.limits import Watch
from timesformer_runtime.video.playback import play

from tests.video_files import moving_pictures, read_clip, write_video

FRAMES = moving_pictures(40)
NAMES = ("video.mp4", "video.ts", "video.mkv", "video.avi")


def evenly(count: int) -> npt.NDArray[np.int64]:
    return np.linspace(0, count - 1, 8).astype(np.int64)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Writes one video in several containers; gives their bytes by name."""
    folder = tmp_path_factory.mktemp("videos")
    options = {"bf": "2", "g": "12"}
    return {
        name: write_video(folder / name, FRAMES, options=options).read_bytes() for name in NAMES
    }


class Failing(io.BytesIO):
    """Raises an error in the call of this number of any of its methods."""

    def __init__(self, data: bytes, at: int, error: BaseException) -> None:
        super().__init__(data)
        self.left = at
        self.error = error

    def count(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise self.error

    def read(self, size: int | None = -1, /) -> bytes:
        self.count()
        return super().read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self.count()
        return super().seek(offset, whence)

    def tell(self) -> int:
        self.count()
        return super().tell()


def play_all(file: Any) -> int:
    with play(file, with_times=True) as video:
        return len(list(video.frames()))


def read_all(file: Any) -> int:
    return read_clip(file, evenly).count


@pytest.mark.parametrize("name", NAMES[:2])
@pytest.mark.parametrize("read", [read_all, play_all])
@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt, ""),
        (SystemExit(3), SystemExit, "3"),
        (OSError(5, "Input/output error"), InvalidVideoError, "cannot be read: Input/output error"),
        (RuntimeError("of the caller"), RuntimeError, "of the caller"),
    ],
)
def test_no_error_of_a_file_object_is_lost(
    videos: dict[str, bytes],
    name: str,
    read: Callable[[Any], int],
    error: BaseException,
    expected: type[BaseException],
    message: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    at = failures = 0
    messages: set[str] = set()
    while True:
        at += 1
        file = Failing(videos[name], at, error)
        try:
            assert read(file) == 40
        except expected as raised:
            messages.add(str(raised))
        if file.left > 0:
            break
        failures += 1
    assert failures > 10
    assert len(messages) == 1
    assert messages.pop().endswith(message)
    assert capfd.readouterr().err == ""  # PyAV and Python print what they drop


def test_an_interrupt_before_the_first_line_of_a_function_is_noted() -> None:
    for call in ("read", "tell"):
        counted = GuardedFile(io.BytesIO(b"some bytes"), Watch("file", DecodeLimits()))
        callbacks = Callbacks(counted)
        read = functools.partial(callbacks.read, 4)
        function: Any = read if call == "read" else callbacks.tell
        # Called from C, one after the other: nothing else looks for interrupts in between.
        assert list(map(operator.call, [_thread.interrupt_main, function])) == [
            None,
            b"" if call == "read" else -1,
        ]
        assert read() == b""  # and it ends there
        with pytest.raises(KeyboardInterrupt):
            counted.raise_error()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no such timers")
@pytest.mark.parametrize("name", NAMES)
def test_an_interrupt_at_any_moment_is_raised(
    videos: dict[str, bytes], name: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(videos[name])

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    start = time.perf_counter()
    read_clip(path, evenly)
    usual = time.perf_counter() - start
    before = signal.signal(signal.SIGALRM, interrupt)
    interrupts = 0
    try:
        for step in range(100):
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-6 + usual * step / 100)
                clip = read_clip(path, evenly)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupts += 1
            else:
                assert (clip.count, clip.problems) == (40, ())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupts > 0


# --- Values that a file object returns -----------------------------------------------------------


def test_callbacks_read_where_they_were_told_to() -> None:
    counted = GuardedFile(io.BytesIO(bytes(range(100))), Watch("file", DecodeLimits()))
    callbacks = Callbacks(counted)
    assert callbacks.read(3) == b"\0\1\2"
    callbacks.seek(50, 0)
    assert callbacks.tell() == 50
    assert callbacks.read(2) == bytes([50, 51])
    callbacks.seek(-1, 2)
    assert callbacks.tell() == 99
    callbacks.seek(-5, 0)  # which does not exist
    assert (callbacks.tell(), callbacks.read(9)) == (99, b"\x63")
    assert (callbacks.read(9), counted.error) == (b"", None)


class Lying(io.BytesIO):
    """Returns wrong values after some right ones."""

    def __init__(self, data: bytes, **lies: Callable[[Any], Any]) -> None:
        super().__init__(data)
        self.lies = lies
        self.honest = 3  # calls that return right values; the next ones come from FFmpeg

    def answer(self, method: str, truth: Any) -> Any:
        self.honest -= 1
        return self.lies[method](truth) if method in self.lies and self.honest < 0 else truth

    def read(self, size: int | None = -1, /) -> bytes:
        return cast("bytes", self.answer("read", super().read(size)))

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return cast("int", self.answer("seek", super().seek(offset, whence)))

    def tell(self) -> int:
        return cast("int", self.answer("tell", super().tell()))


class OddBytes(bytes):
    def __len__(self) -> int:
        return 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("method", "lie", "message"),
    [
        ("read", lambda data: data + bytes(1), "give .* whose read.n. gives no more"),
        ("read", lambda data: data + bytes(1 << 20), "give .* whose read.n. gives no"),
        ("read", lambda data: data * 9 + b"x", "give .* whose read.n. gives no more"),
        ("read", lambda data: data.hex(), "gave a str when it was read, not bytes"),
        ("read", lambda data: None, "gave a NoneType when it was read"),
        ("read", lambda data: 7, "gave a int when it was read"),
        ("read", lambda data: [1, 2], "gave a list when it was read"),
        ("read", lambda data: np.zeros(4), "gave a ndarray when it was read"),
        ("seek", lambda offset: -3, "gave -3 as its offset; .* seek"),
        ("seek", lambda offset: "3", "gave '3' as its offset; .* seek"),
        ("seek", lambda offset: 1 << 70, "as its offset; .* seek"),
        ("tell", lambda offset: -3, "gave -3 as its offset; .* tell"),
        ("tell", lambda offset: None, "gave None as its offset; .* tell"),
        ("tell", lambda offset: 0.5, "gave 0.5 as its offset; .* tell"),
    ],
)
def test_a_file_object_that_lies_is_refused(
    videos: dict[str, bytes], name: str, method: str, lie: Any, message: str
) -> None:
    file = Lying(videos[name], **{method: lie})
    if method == "tell" and name != "video.avi":  # FFmpeg calls tell() only in some formats
        file.honest = 0
        file.lies["seek"] = lambda offset: None
    with pytest.raises(InvalidVideoError, match=f"^the file object.*{message}") as caught:
        read_clip(file, evenly)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "lies",
    [
        {"read": bytearray},
        {"read": memoryview},
        {"read": OddBytes},
        {"seek": lambda offset: None},
        {"seek": np.int64, "tell": np.int64},
    ],
)
def test_a_file_object_of_another_kind_is_read(
    videos: dict[str, bytes], name: str, lies: dict[str, Any]
) -> None:
    clip = read_clip(Lying(videos[name], **lies), evenly)
    assert (clip.count, clip.problems) == (40, ())


@pytest.mark.parametrize("lie", [lambda offset: offset // 2, lambda offset: offset * 2 + 1])
@pytest.mark.parametrize("method", ["seek", "tell"])
@pytest.mark.parametrize("name", NAMES)
def test_wrong_offsets_do_no_harm(
    videos: dict[str, bytes], name: str, method: str, lie: Any
) -> None:
    with contextlib.suppress(InvalidVideoError):
        assert read_clip(Lying(videos[name], **{method: lie}), evenly).count > 0


@pytest.mark.parametrize("lie", [lambda data: data.hex(), lambda data: 7, lambda data: [1]])
def test_a_pipe_that_gives_something_else_is_refused(lie: Any) -> None:
    class Pipe:
        def read(self, size: int) -> Any:
            return lie(b"some bytes")

    with pytest.raises(InvalidVideoError, match="when it was read, not bytes; give a binary file"):
        read_clip(Pipe(), evenly)  # type: ignore[arg-type]


def test_more_than_was_asked_for_of_a_pipe_is_no_harm(videos: dict[str, bytes]) -> None:
    class Pipe:
        left = videos["video.ts"]

        def read(self, size: int) -> bytes:
            data, self.left = self.left, b""
            return data

    assert read_clip(Pipe(), evenly).count == 40  # type: ignore[arg-type]
