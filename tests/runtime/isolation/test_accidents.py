"""Tests that an accident while a video is read costs one error, of that video."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from timesformer_runtime import (
    DecodeLimits,
    InvalidVideoError,
    Segment,
    VideoClassifier,
    VideoLimitError,
)
from timesformer_runtime.video.limits import interruptible

from tests import traps
from tests.isolated_videos import (
    COUNT,
    STRIDE,
    WINDOW,
    children,
    collect,
    load,
)
from tests.patience import PATIENCE
from tests.traps import Trap
from tests.video_files import write_video

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="isolated needs Linux")

MEMORY = 1 << 28  # bytes

ACCIDENTS: list[tuple[type[Trap], type[Exception], str]] = [
    (traps.Crash, InvalidVideoError, r"that read it crashed \(SIGSEGV\)"),
    (traps.Abort, InvalidVideoError, r"that read it crashed \(SIGABRT\)"),
    (traps.Killed, InvalidVideoError, r"that read it was killed \(SIGKILL\)"),
    (traps.Ended, InvalidVideoError, r"that read it was killed \(SIGTERM\)"),
    (traps.Exit, InvalidVideoError, "that read it ended with code 3"),
    (traps.Nonsense, InvalidVideoError, "gave an answer that cannot be read"),
    (
        traps.Bomb,
        VideoLimitError,
        f"takes more than {MEMORY} bytes of memory to read; .* raise `max_process_bytes`",
    ),
]


@pytest.mark.parametrize("make", ["read", "timeline"])
@pytest.mark.parametrize(("trap", "kind", "message"), ACCIDENTS)
def test_an_accident_is_an_error_of_its_video(
    folder: Path,
    trap: type[Trap],
    kind: type[Exception],
    message: str,
    make: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = children()
    classifier = load(folder, trap, max_process_bytes=MEMORY)
    for _ in range(2 if make == "read" else 1):
        with pytest.raises(kind, match=message) as caught:
            collect(classifier, folder / "white.mp4", make)
        assert str(caught.value).startswith(str(folder / "white.mp4"))
        assert "\n" not in str(caught.value)
        assert classifier.read(folder / "plain.mp4").count == COUNT
    assert capfd.readouterr() == ("", "")
    del classifier, caught
    assert children() == before


@pytest.mark.parametrize("make", ["read", "timeline"])
def test_a_process_that_hangs_is_ended(folder: Path, make: str) -> None:
    before = children()
    classifier = load(folder, traps.Hang, max_seconds=0.5)
    start = time.monotonic()
    message = r"white\.mp4 takes longer than 0\.5 seconds to read; .* raise `max_seconds`"
    with pytest.raises(VideoLimitError, match=message):
        collect(classifier, folder / "white.mp4", make)
    assert time.monotonic() - start < PATIENCE
    assert children() == before


@pytest.mark.parametrize("make", ["read", "timeline"])
@pytest.mark.parametrize("kind", [LookupError, TimeoutError, EOFError])
def test_a_caller_that_leaves_ends_the_process(
    folder: Path, kind: type[Exception], make: str
) -> None:
    before = children()
    classifier = load(folder, traps.Hang)

    def leave() -> None:
        if children() != before:
            raise kind("nobody waits for this video")

    with pytest.raises(kind, match="nobody waits"), interruptible(leave):
        collect(classifier, folder / "white.mp4", make)
    assert children() == before


def test_a_timeline_without_a_limit_has_one_for_each_window(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = load(folder, traps.Hang)
    monkeypatch.setattr(DecodeLimits, "time", 4.0)
    segments = classifier.timeline(folder / "white_later.mp4", WINDOW, STRIDE)
    assert next(segments).start == 0.0
    with pytest.raises(VideoLimitError, match=r"takes longer than 4 seconds to read"):
        list(segments)


def test_windows_before_an_accident_are_kept(folder: Path, plain: VideoClassifier) -> None:
    classifier = load(folder, traps.Crash)
    segments: list[Segment] = []
    with pytest.raises(InvalidVideoError, match="SIGSEGV"):
        segments.extend(classifier.timeline(folder / "white_later.mp4", WINDOW, STRIDE))
    expected = list(plain.timeline(folder / "white_later.mp4", WINDOW, STRIDE))
    assert 1 < len(segments) < len(expected)
    for segment, other in zip(segments, expected, strict=False):
        assert dataclasses.replace(segment, seconds=other.seconds) == other


def test_a_video_does_not_pay_for_the_one_before(folder: Path) -> None:
    classifier = load(folder, traps.CrashAfterOthers)
    video = write_video(folder / "one_white.mp4", np.full((1, 48, 64, 3), 255, np.uint8))
    for _ in range(3):
        assert classifier.read(folder / "plain.mp4").count == COUNT
        assert classifier.read(video).count == 1


def test_a_process_that_dies_while_nobody_uses_it_is_replaced(folder: Path) -> None:
    before = children()
    classifier = load(folder)
    for _ in range(3):
        assert classifier.read(folder / "plain.mp4").count == COUNT
        (process,) = children() - before
        os.kill(process, signal.SIGKILL)


@pytest.mark.parametrize("after", [0.0, 0.01, 0.05, 0.2, 0.5, 1.0])
def test_a_process_that_is_killed_at_any_moment(folder: Path, after: float) -> None:
    before = children()
    classifier = load(folder)

    def kill() -> None:
        deadline = time.monotonic() + PATIENCE
        while not (started := children() - before) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(after)
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    for _ in range(20):
        with contextlib.suppress(InvalidVideoError):
            classifier.read(folder / "plain.mp4")
    killer.join()
    assert classifier.read(folder / "plain.mp4").count == COUNT


def test_a_batch_with_a_killer(folder: Path, plain: VideoClassifier) -> None:
    before = children()
    classifier = load(folder, traps.Crash)
    names = ["plain.mp4", "white.mp4", "plain.avi", "text.mp4", "short.mkv", "truncated.mkv"]
    videos = [folder / name for name in names] * 4
    outcomes = list(classifier.batch(videos, workers=3))
    assert sorted(map(str, videos)) == sorted(str(outcome.video) for outcome in outcomes)
    for outcome in outcomes:
        name = Path(str(outcome.video)).name
        if name in {"white.mp4", "text.mp4"}:
            assert isinstance(outcome.error, InvalidVideoError)
        else:
            assert outcome.result is not None
            expected = plain.classify(outcome.video)
            assert outcome.result.predictions == expected.predictions
    assert children() == before


def test_a_lack_of_memory_is_not_called_damage(folder: Path, tmp_path: Path) -> None:
    """FFmpeg has one error for both; here it runs out of memory for one of 16 reference frames."""
    frames = np.zeros((30, 1200, 1600, 3), np.uint8)
    frames[:, :, :, 0] = np.arange(30)[:, None, None]
    options = {"preset": "ultrafast", "x264-params": "ref=16:keyint=100:scenecut=0"}
    video = write_video(tmp_path / "large.mp4", frames, options=options)
    classifier = load(folder, max_process_bytes=40_000_000)
    with pytest.raises(VideoLimitError, match="takes more than 40000000 bytes of memory"):
        classifier.read(video)
    assert classifier.read(folder / "plain.mp4").count == COUNT
    assert load(folder).read(video).problems == ()
