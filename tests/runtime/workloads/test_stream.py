"""Classifying streams: the windows, what is dropped, and how it ends."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import timesformer_runtime
from timesformer_runtime import DecodeLimits, InvalidOptionError, InvalidVideoError, VideoClassifier
from timesformer_runtime.errors import SourceLostError, VideoLimitError, VideoNotFoundError
from timesformer_runtime.results import Ranking
from timesformer_runtime.video.live.source import Connection, LiveFrame
from timesformer_runtime.workloads import stream as live
from timesformer_runtime.workloads.stream import LiveResult
from timesformer_runtime.workloads.stream_windows import LiveWindows
from timesformer_runtime.workloads.windows import WindowSettings

from tests.live_sources import RATE, free_udp_url, live_source, port_of, sender
from tests.patience import PATIENCE
from tests.tiny_graphs import LABELS, write_exported_model
from tests.video_files import decode_plainly, moving_pictures, write_video

SAMPLES = Path(timesformer_runtime.__file__).parent / "sample_clips"
# Late start, interlaced, broken packets, varying rate, no usual timestamps, two sizes.
CLIPS = (
    "test-025.ts",
    "corrupted.mp4",
    "no_duration.webm",
    "h264-png.mkv",
    "unordered.mov",
    "400x300-red-resize-200x150-green.webm",
    "v300_multiple_segments.mp4",
)


def _videos() -> list[Path]:
    clips = os.environ.get("TIMESFORMER_TEST_CLIPS")
    real = [] if clips is None else [Path(clips) / name for name in CLIPS]
    return [*sorted(SAMPLES.glob("*.mp4"))[:3], *real]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported model ``shots`` and the video ``clip.mp4`` of 4.4 seconds."""
    folder = tmp_path_factory.mktemp("live")
    write_exported_model(folder / "shots")
    write_video(folder / "clip.mp4", moving_pictures(110, seed=1))
    return folder


@pytest.fixture(scope="module")
def classifier(folder: Path) -> VideoClassifier:
    return VideoClassifier.from_pretrained(folder / "shots", threads=1)


@pytest.fixture(params=_videos(), ids=lambda path: path.name)
def any_video(request: pytest.FixtureRequest) -> Path:
    """One of the sample clips, or of the real clips where they are."""
    return Path(request.param)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def take(results: Iterator[LiveResult], count: int) -> list[LiveResult]:
    return list(itertools.islice(results, count))


def scores(predictions: Any) -> dict[str, float]:
    return {prediction["label"]: prediction["score"] for prediction in predictions}


# --- files ---------------------------------------------------------------------------------------


def test_a_replayed_file_gives_every_window_in_full(
    classifier: VideoClassifier, folder: Path
) -> None:
    frames = np.stack(decode_plainly(folder / "clip.mp4"))
    results = list(classifier.stream(folder / "clip.mp4", window=2.0, stride=1.0))
    assert [result.start for result in results] == [0.0, 1.0, 2.0, 3.0]
    assert [result.end for result in results] == pytest.approx([2.0, 3.0, 4.0, 4.4])
    frames = np.concatenate([frames, frames[-1:].repeat(2 * RATE, axis=0)])  # for the last window
    for result in results:
        first = round(result.start * RATE)
        expected = classifier.classify(frames[first : first + 2 * RATE])
        assert scores(result.predictions) == pytest.approx(scores(expected.predictions))
        seen = [first + index for index in expected.views[0].indices]
        assert result.times == pytest.approx([min(number, 109) / RATE for number in seen])
        assert (result.dropped_frames, result.skipped_windows, result.reconnects) == (0, 0, 0)
        assert min(dataclasses.astuple(result.seconds)) > 0
        assert result.to_dict()["seconds"] == dataclasses.asdict(result.seconds)
        assert 0 <= result.latency < PATIENCE


def test_a_replayed_file_is_its_timeline(classifier: VideoClassifier, any_video: Path) -> None:
    timeline = list(classifier.timeline(any_video, window=2.0, stride=1.0))
    replayed = list(classifier.stream(any_video, window=2.0, stride=1.0))
    for segment, result in zip(timeline, replayed, strict=True):
        assert (result.start, result.end) == (segment.start, segment.end)
        assert (result.indices, result.times) == (segment.indices, segment.times)
        assert result.duplicates == segment.duplicates
        assert result.predictions == segment.predictions


def test_a_damaged_file_is_replayed_as_its_timeline_and_told(folder: Path, tmp_path: Path) -> None:
    # What is left of it depends on the number of threads.
    classifier = VideoClassifier.from_pretrained(folder / "shots", threads=2)
    data = bytearray((folder / "clip.mp4").read_bytes())
    data[len(data) // 3 : len(data) // 3 + 60] = np.random.default_rng(0).bytes(60)
    (tmp_path / "damaged.mp4").write_bytes(data)
    timeline = classifier.timeline(tmp_path / "damaged.mp4", window=1.0, stride=1.0)
    segments = list(timeline)
    told: list[str] = []
    replayed = list(
        classifier.stream(tmp_path / "damaged.mp4", window=1.0, stride=1.0, notify=told.append)
    )
    assert [result.predictions for result in replayed] == [s.predictions for s in segments]
    assert [result.problems for result in replayed] == [s.problems for s in segments]
    assert [result.damaged for result in replayed] == [s.damaged for s in segments]
    assert any(result.damaged for result in replayed)
    assert told == [f"{tmp_path / 'damaged.mp4'}: damaged: {'; '.join(timeline.problems)}"]


def test_a_slow_consumer_of_a_file_misses_nothing(
    classifier: VideoClassifier, folder: Path
) -> None:
    results = classifier.stream(folder / "clip.mp4", window=1.0, stride=0.5)
    slowly = []
    for result in results:
        time.sleep(0.1)
        slowly.append(result)
    assert [result.start for result in slowly] == [0.5 * number for number in range(8)]
    assert sum(result.skipped_windows for result in slowly) == 0


def test_the_time_limit_of_a_file_holds_after_its_packets_are_read(folder: Path) -> None:
    limits = DecodeLimits(max_seconds=0.5)
    classifier = VideoClassifier.from_pretrained(folder / "shots", limits=limits)
    results = classifier.stream(folder / "clip.mp4", window=0.4, stride=0.4)

    def pause(_: LiveResult) -> None:
        time.sleep(0.1)  # 11 times; all 110 frames fit into what may wait

    with pytest.raises(VideoLimitError, match=r"longer than 0\.5 seconds .* raise `max_seconds`"):
        list(map(pause, results))


def test_a_file_may_be_watched_like_a_live_source(
    classifier: VideoClassifier, folder: Path
) -> None:
    results = classifier.stream(folder / "clip.mp4", window=0.4, stride=0.4, drop=True)
    shown = [next(results)]
    time.sleep(2.0)  # by now the whole file was read
    shown += results
    assert len(shown) <= 4
    assert sum(result.dropped_frames for result in shown) >= 50


def test_a_source_without_a_complete_window_is_told(
    classifier: VideoClassifier, folder: Path
) -> None:
    told: list[str] = []
    results = classifier.stream(folder / "clip.mp4", window=60.0, drop=True, notify=told.append)
    assert list(results) == []
    (message,) = told
    assert "clip.mp4: ended before a window of 60 seconds was complete" in message
    assert "give a shorter `window`" in message


def frames_of(numbers: Iterable[int]) -> Iterator[LiveFrame]:
    """Frames with these numbers: 25 a second, each of which took 1000 seconds to decode."""
    connection = Connection(0, RATE)
    picture = av.VideoFrame.from_ndarray(moving_pictures(1)[0], format="rgb24")
    for number in numbers:
        yield LiveFrame(picture, None, number / RATE, 0.0, number, 0, 1000.0 * number, connection)


def counted(
    classifier: VideoClassifier, numbers: Iterable[int], shown: list[int] | None = None
) -> list[tuple[int, int]]:
    """Skipped windows and dropped frames of results for windows of ten frames, five apart."""
    results = results_of(classifier, numbers, shown)
    return [(result.skipped_windows, result.dropped_frames) for result in results]


def results_of(
    classifier: VideoClassifier, numbers: Iterable[int], shown: list[int] | None = None
) -> list[LiveResult]:
    """The results for windows of ten frames, five apart."""
    windows = list(LiveWindows(classifier, WindowSettings(0.4, 0.2)).of(frames_of(numbers)))
    chosen = windows if shown is None else [windows[number] for number in shown]
    return list(live.results_of(classifier, chosen, Ranking(top_k=1)))


def test_what_keeps_up_drops_nothing(classifier: VideoClassifier) -> None:
    assert counted(classifier, range(100)) == [(0, 0)] * 19


def test_frames_that_only_skipped_windows_show_are_counted(classifier: VideoClassifier) -> None:
    # Window n shows the frames from 5n to 5n + 9.
    assert counted(classifier, range(100), [0, 2, 3, 7, 18]) == [
        (0, 0),
        (1, 0),
        (0, 0),
        (3, 10),  # 25 to 34
        (10, 45),
    ]
    assert counted(classifier, range(100), [4])[0] == (4, 20)


def test_frames_dropped_before_they_were_looked_at_are_counted(
    classifier: VideoClassifier,
) -> None:
    numbers = [*range(12), *range(15, 31), *range(32, 40)]
    assert counted(classifier, numbers) == [(0, 0), (0, 3), *[(0, 0)] * 3, (0, 1), (0, 0)]


def test_seconds_are_those_since_the_result_before(classifier: VideoClassifier) -> None:
    results = results_of(classifier, range(100), [0, 2, 3, 7, 18])
    decoding = [result.seconds.decode for result in results]
    assert decoding == pytest.approx([9000, 10000, 5000, 20000, 55000], abs=500)
    for result in results:
        assert 0 < result.seconds.preprocess < PATIENCE
        assert 0 < result.seconds.inference < PATIENCE


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": 5.0}, "`timeout` is for live sources, and .*clip.mp4 is a file"),
        ({"reconnect": 3}, "`reconnect` is for live sources"),
        ({"rtsp_transport": "tcp"}, "`rtsp_transport` is for live sources"),
        ({"timeout": 0.0}, "`timeout` is 0.0; it must be"),
        ({"timeout": float("nan")}, "`timeout` is nan; it must be"),
        ({"timeout": float("inf")}, "`timeout` is inf; it must be"),
        ({"timeout": "3"}, "`timeout` is '3'; it must be"),
        ({"reconnect": -1}, "`reconnect` is -1; it must be"),
        ({"reconnect": 1.5}, "`reconnect` is 1.5; it must be"),
        ({"drop": "no"}, "`drop` is 'no'; it must be"),
        ({"format": 5}, "`format` is 5; it must be"),
        ({"window": 0.0}, "`window` is 0.0 seconds"),
        ({"stride": float("nan")}, "`stride` is nan seconds"),
        ({"top_k": 0}, "`top_k` is 0"),
        ({"function_to_apply": "cosh"}, "'cosh'; it must be one of"),
    ],
)
def test_options_are_checked_before_anything_is_read(
    classifier: VideoClassifier, folder: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        classifier.stream(folder / "clip.mp4", **options)


def test_a_file_that_is_not_there(classifier: VideoClassifier, folder: Path) -> None:
    with pytest.raises(VideoNotFoundError, match="there is no such file"):
        next(classifier.stream(folder / "none.mp4"))


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file(classifier: VideoClassifier, tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(InvalidVideoError, match=f"{kind} is not a video file; give one, a URL"):
        classifier.stream(path)


def test_what_cannot_be_a_stream(classifier: VideoClassifier) -> None:
    with pytest.raises(InvalidVideoError, match="a stream cannot be a int; give a URL"):
        classifier.stream(0)  # type: ignore[arg-type]
    with pytest.raises(InvalidVideoError, match="the source is empty; give a URL"):
        classifier.stream("")


def test_a_file_that_is_no_video(classifier: VideoClassifier, folder: Path) -> None:
    (folder / "text.mp4").write_text("no video")
    with pytest.raises(InvalidVideoError, match=r"text.mp4 cannot be opened as a video"):
        next(classifier.stream(folder / "text.mp4"))


# --- live sources --------------------------------------------------------------------------------


def test_a_live_sender(classifier: VideoClassifier) -> None:
    url = free_udp_url()
    stream = classifier.stream(url, window=0.8, stride=0.4, drop=False)
    with sender(url), contextlib.closing(stream):
        results = take(stream, 4)
    assert [result.start for result in results] == pytest.approx([0.0, 0.4, 0.8, 1.2])
    for result in results:
        assert result.end - result.start == pytest.approx(0.8)
        assert set(scores(result.predictions)) == set(LABELS)
        assert 0 <= result.latency < PATIENCE
        assert (result.failed_packets, result.reconnects) == (0, 0)
    decoding = sum(result.seconds.decode for result in results)
    assert 0 < decoding < 1.0, "two seconds of video came: that is waiting"


def test_what_a_slow_consumer_gets_is_new(classifier: VideoClassifier) -> None:
    url = free_udp_url()
    with sender(url), contextlib.closing(classifier.stream(url, window=0.4, stride=0.2)) as stream:
        next(stream)
        for _ in take(stream, 3):
            time.sleep(1.0)
        result = next(stream)
    assert result.skipped_windows >= 2
    assert result.dropped_frames >= 5


def test_windows_do_not_span_a_loss(classifier: VideoClassifier) -> None:
    said: list[str] = []
    with live_source("rtsp") as server:
        url = f"rtsp://127.0.0.1:{port_of(server)}/live"
        stream = classifier.stream(
            url, window=0.4, stride=0.4, reconnect=50, drop=False, notify=said.append
        )
        with contextlib.closing(stream):
            with sender(url):
                before = take(stream, 2)[-1]
            with sender(url):
                after = next(result for result in stream if result.reconnects)
                following = next(stream)
                assert "connected again" in said[-1]
    assert after.start > before.end
    assert min(after.times) >= after.start
    assert following.start == pytest.approx(after.start + 0.4)
    assert "lost (it ended)" in said[0]


def test_a_source_that_ends_and_is_not_to_come_back(classifier: VideoClassifier) -> None:
    with live_source("rtsp") as server:
        url = f"rtsp://127.0.0.1:{port_of(server)}/live"
        stream = classifier.stream(url, window=0.4, stride=0.4, timeout=PATIENCE, reconnect=0)
        with sender(url):
            take(stream, 1)
        assert all(result.reconnects == 0 for result in stream)


def test_a_source_that_is_lost_for_good(classifier: VideoClassifier) -> None:
    url = free_udp_url()
    stream = classifier.stream(url, window=0.4, stride=0.4, timeout=2.0, reconnect=1)
    with sender(url):
        take(stream, 1)
    with pytest.raises(SourceLostError, match=r"was lost: no video came for 2 s; .* 1 times"):
        list(stream)


def test_closing_while_nothing_comes(classifier: VideoClassifier) -> None:
    url = free_udp_url()
    with sender(url) as process:
        stream = classifier.stream(url, window=0.4, stride=0.4, timeout=2.0)
        take(stream, 1)
        process.send_signal(signal.SIGSTOP)
        start = time.monotonic()
        stream.close()
        assert time.monotonic() - start < PATIENCE


def test_memory_does_not_grow(classifier: VideoClassifier, tmp_path: Path) -> None:
    """Of a thousand windows, a kept frame of each would be 29 MB."""
    write_video(tmp_path / "long.mkv", moving_pictures(400, 120, 160))

    def resident_bytes_after_replay() -> int:
        assert len(list(classifier.stream(tmp_path / "long.mkv", window=1.0, stride=0.04))) > 350
        return _resident_bytes()

    resident_bytes_after_replay()  # the first brings caches up to their size
    before = resident_bytes_after_replay()
    assert min(resident_bytes_after_replay() for _ in range(3)) - before < 10e6


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096
