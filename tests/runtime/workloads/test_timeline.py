"""Long videos in one pass, against ``classify`` on the same frames."""

from __future__ import annotations

import dataclasses
import itertools
import json
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Collection, Generator, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from timesformer_runtime import (
    DecodeLimits,
    InvalidOptionError,
    InvalidVideoError,
    Segment,
    VideoClassifier,
    VideoNotFoundError,
)
from timesformer_runtime.errors import VideoLimitError
from timesformer_runtime.input.sampling import Sampling
from timesformer_runtime.input.views import Views
from timesformer_runtime.results import PartResult
from timesformer_runtime.video.pixels import Rendering
from timesformer_runtime.video.playback import (
    FrameClock,
    IndexMismatchError,
    Playback,
    PlayedFrame,
    play,
)
from timesformer_runtime.workloads.timeline import change_last

from tests.patience import PATIENCE
from tests.tiny_graphs import TinyGraph, own_metadata, write_exported_model
from tests.video_files import RATE, damage, decode_plainly, moving_pictures, remux, write_video

COUNT = 130
WINDOW, STRIDE = 1.0, 0.4  # 25 and 10 frames
SHORT = 0.2  # seconds: the labels of windows that short change, and by a clear margin


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported model ``shots``, the features model ``headless.onnx``, a video of 130 frames."""
    folder = tmp_path_factory.mktemp("timeline")
    write_exported_model(folder / "shots")
    metadata = own_metadata(task="feature-extraction")
    TinyGraph(output="features", metadata=metadata).save(folder / "headless.onnx")
    write_video(folder / "long.mp4", moving_pictures(COUNT))
    return folder


@pytest.fixture(scope="module")
def classifier(folder: Path) -> VideoClassifier:
    return VideoClassifier.from_pretrained(folder / "shots", device="cpu", threads=2)


def windows_of(count: int) -> list[range]:
    """The frames of the windows that a video of constant rate has, the last of them partial."""
    starts = [start for start in range(0, count, 10) if start + 25 <= count]
    windows = [range(start, start + 25) for start in starts]
    return windows if windows[-1].stop == count else [*windows, range(starts[-1] + 10, count)]


def test_segments_are_what_classify_says_to_the_frames(
    folder: Path, classifier: VideoClassifier
) -> None:
    frames = decode_plainly(folder / "long.mp4")
    segments = list(classifier.timeline(folder / "long.mp4", WINDOW, STRIDE, top_k=4))
    expected = windows_of(COUNT)
    assert len(segments) == len(expected) == 12
    for segment, window in zip(segments, expected, strict=True):
        shown = [frames[min(index, COUNT - 1)] for index in range(window.start, window.start + 25)]
        result = classifier.classify(np.stack(shown), top_k=4)
        assert segment.predictions == result.predictions
        assert list(segment.indices) == [
            min(window.start + index, COUNT - 1) for index in result.indices
        ]
        assert segment.times == pytest.approx([index / RATE for index in segment.indices])
        assert segment.start == pytest.approx(window.start / RATE)
        assert segment.end == pytest.approx(window.stop / RATE)
        assert segment.windows == 1
    assert not any(segment.failed_packets for segment in segments)


@pytest.mark.parametrize("count", [1, 5, 24, 25])
def test_a_short_video_is_classified_as_a_whole(
    tmp_path: Path, classifier: VideoClassifier, count: int
) -> None:
    video = write_video(tmp_path / "short.mp4", moving_pictures(count))
    (segment,) = classifier.timeline(video, WINDOW, STRIDE)
    result = classifier.classify(video)
    assert segment.predictions == result.predictions
    assert (segment.indices, segment.duplicates) == (result.indices, result.duplicates)
    assert segment.end == pytest.approx(count / RATE)


@pytest.mark.parametrize("suffix", [".mkv", ".avi", ".ts"])
def test_containers_agree(
    folder: Path, tmp_path: Path, classifier: VideoClassifier, suffix: str
) -> None:
    copy = tmp_path / f"copy{suffix}"
    if suffix == ".avi":  # the same pictures, without times
        write_video(copy, moving_pictures(COUNT))
    else:
        remux(folder / "long.mp4", copy, shift=40)
    segments = list(classifier.timeline(copy, WINDOW, STRIDE))
    expected = list(classifier.timeline(folder / "long.mp4", WINDOW, STRIDE))
    assert [segment.indices for segment in segments] == [other.indices for other in expected]
    frames = np.stack(decode_plainly(copy)[:25])
    assert segments[0].predictions == classifier.classify(frames).predictions


def test_merged_segments_average_their_windows(folder: Path, classifier: VideoClassifier) -> None:
    single = list(classifier.timeline(folder / "long.mp4", SHORT, SHORT, None, "none"))
    merged = list(classifier.timeline(folder / "long.mp4", SHORT, SHORT, None, "none", merge=True))
    assert 1 < len(merged) < len(single)
    rest = iter(single)
    for segment in merged:
        parts = [next(rest) for _ in range(segment.windows)]
        assert {part.predictions[0]["label"] for part in parts} == {segment.predictions[0]["label"]}
        assert (segment.start, segment.end) == (parts[0].start, parts[-1].end)
        assert segment.indices == tuple(index for part in parts for index in part.indices)
        for prediction in segment.predictions:
            scores = [
                other["score"]
                for part in parts
                for other in part.predictions
                if other["label"] == prediction["label"]
            ]
            assert prediction["score"] == pytest.approx(np.mean(scores), rel=1e-4, abs=1e-5)
    labels = [segment.predictions[0]["label"] for segment in merged]
    assert all(label != following for label, following in itertools.pairwise(labels))
    assert next(rest, None) is None


def test_what_was_merged_before_an_error_is_not_lost(
    folder: Path, classifier: VideoClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen_frames = Playback.chosen_frames

    def failing(self: Playback, wanted: Collection[int]) -> Iterator[PlayedFrame]:
        yield from itertools.islice(chosen_frames(self, wanted), 80)
        raise InvalidVideoError("the disk broke")

    monkeypatch.setattr(Playback, "chosen_frames", failing)
    given: dict[bool, list[Segment]] = {False: [], True: []}
    for merge, segments in given.items():
        with pytest.raises(InvalidVideoError, match="the disk broke"):
            segments.extend(classifier.timeline(folder / "long.mp4", SHORT, SHORT, merge=merge))
    assert 1 < len(given[True]) < len(given[False])
    assert sum(segment.windows for segment in given[True]) == len(given[False])
    assert given[True][-1].end == given[False][-1].end


def test_several_views(folder: Path) -> None:
    views = Views(Sampling("dense", rate=3, clips=2), crops=3)
    classifier = VideoClassifier.from_pretrained(folder / "shots", device="cpu", views=views)
    frames = np.stack(decode_plainly(folder / "long.mp4")[:25])
    first = next(classifier.timeline(folder / "long.mp4", WINDOW, STRIDE))
    result = classifier.classify(frames)
    assert first.predictions == result.predictions
    assert first.indices == result.indices


def test_several_windows_at_once_come_in_order(
    folder: Path, classifier: VideoClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list(classifier.timeline(folder / "long.mp4", WINDOW, STRIDE))
    predict, calls, running = VideoClassifier.predict, itertools.count(), []
    at_once: list[int] = []
    together = threading.Barrier(3)

    def uneven(*arguments: Any, **options: Any) -> Any:
        running.append(1)
        at_once.append(len(running))
        call = next(calls)
        if call < together.parties:
            together.wait(PATIENCE)
        time.sleep(0.1 if call % 3 == 0 else 0.0)  # later ones overtake it
        answer = predict(*arguments, **options)
        running.pop()
        return answer

    monkeypatch.setattr(VideoClassifier, "predict", uneven)
    found = list(classifier.timeline(folder / "long.mp4", WINDOW, STRIDE, workers=3))
    assert max(at_once) == 3
    for segment, other in zip(found, expected, strict=True):
        assert dataclasses.replace(segment, seconds=other.seconds) == other


def test_an_error_of_the_model_ends_it(
    folder: Path, classifier: VideoClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, calls, predict = threading.active_count(), itertools.count(), VideoClassifier.predict

    def failing(*arguments: Any, **options: Any) -> Any:
        if next(calls) == 2:
            raise InvalidVideoError("not this one")
        return predict(*arguments, **options)

    monkeypatch.setattr(VideoClassifier, "predict", failing)
    segments = classifier.timeline(folder / "long.mp4", WINDOW, STRIDE)
    assert [next(segments).start, next(segments).start] == pytest.approx([0.0, 10 / RATE])
    with pytest.raises(InvalidVideoError, match="not this one"):
        next(segments)
    assert threading.active_count() == before


def test_results_come_while_the_video_is_read(folder: Path, classifier: VideoClassifier) -> None:
    before = threading.active_count()
    with (folder / "long.mp4").open("rb") as file:
        segments = classifier.timeline(file, WINDOW, STRIDE)
        assert segments.duration is None
        assert next(segments).start == 0.0
        assert segments.duration == pytest.approx(COUNT / RATE)
        assert threading.active_count() == before + 3  # reading, feeding, the model
        segments.close()
        assert threading.active_count() == before
        assert next(segments, None) is None


def test_a_forgotten_timeline_leaves_no_thread(folder: Path, classifier: VideoClassifier) -> None:
    before = threading.active_count()
    for workers in (1, 3):
        for _ in classifier.timeline(folder / "long.mp4", 0.2, 0.04, workers=workers):
            break
        assert threading.active_count() == before
    list(classifier.timeline(folder / "long.mp4", WINDOW, STRIDE))
    assert threading.active_count() == before


def test_a_thread_that_cannot_start_leaves_no_other(
    folder: Path, classifier: VideoClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = threading.active_count()
    start = threading.Thread.start

    def start_most(thread: threading.Thread) -> None:
        if thread.name in ("timeline: feeding", "stream: preparing"):
            raise RuntimeError("no more threads")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_most)
    video = folder / "long.mp4"
    for results in (
        classifier.timeline(video, 0.2, 0.04),
        classifier.stream(video, window=0.2, stride=0.04, drop=True),
    ):
        with pytest.raises(RuntimeError, match="no more threads"):
            next(results)
        assert threading.active_count() == before


def test_errors(folder: Path, tmp_path: Path, classifier: VideoClassifier) -> None:
    before = threading.active_count()
    with pytest.raises(VideoNotFoundError, match=r"no.mp4: there is no such file"):
        next(classifier.timeline(tmp_path / "no.mp4"))
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(InvalidVideoError, match="cannot be opened as a video"):
        next(classifier.timeline(tmp_path / "text.mp4"))
    with pytest.raises(InvalidOptionError, match="`window` is 0 seconds"):
        classifier.timeline(folder / "long.mp4", window=0)
    with pytest.raises(InvalidOptionError, match="`workers` is 0; it must be"):
        classifier.timeline(folder / "long.mp4", workers=0)
    with pytest.raises(InvalidOptionError, match="`merge` is 'no'; it must be True or False"):
        classifier.timeline(folder / "long.mp4", merge="no")  # type: ignore[arg-type]
    with pytest.raises(InvalidOptionError, match="`top_k` is 0"):
        classifier.timeline(folder / "long.mp4", top_k=0)
    headless = VideoClassifier.from_pretrained(folder / "headless.onnx", device="cpu")
    with pytest.raises(LookupError, match="it has no output 'logits'"):
        headless.timeline(folder / "long.mp4")
    assert threading.active_count() == before


def test_damage_is_told(tmp_path: Path, classifier: VideoClassifier) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (80, 48, 64, 3), dtype=np.uint8)
    path = damage(write_video(tmp_path / "damaged.mp4", noise))
    timeline = classifier.timeline(path, WINDOW, STRIDE)
    segments = list(timeline)
    assert [segment.damaged for segment in segments[:-1]] == [
        segment.failed_packets > 0 for segment in segments[:-1]
    ]
    assert any(segment.damaged for segment in segments[:-1])
    assert not segments[0].damaged
    assert segments[-1].problems == timeline.problems
    assert any("did not decode" in problem for problem in timeline.problems)


@pytest.mark.parametrize(
    ("make", "merge"), [("timeline", False), ("timeline", True), ("stream", False)]
)
def test_the_last_part_of_a_truncated_file_is_marked(
    folder: Path, tmp_path: Path, classifier: VideoClassifier, make: str, merge: bool
) -> None:
    path = tmp_path / "truncated.mkv"
    remux(folder / "long.mp4", path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    parts: Sequence[PartResult]
    if make == "timeline":
        parts = list(classifier.timeline(path, WINDOW, STRIDE, merge=merge))
    else:
        parts = list(classifier.stream(path, window=WINDOW, stride=STRIDE))
    assert len(parts) > 1
    assert not any(part.damaged for part in parts[:-1])
    last = parts[-1].to_dict()
    assert (last["damaged"], last["failed_packets"]) == (True, 0)
    assert [problem for problem in last["problems"] if problem.startswith("it ends after ")]


def test_the_table_marks_damage(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "truncated.mkv"
    remux(folder / "long.mp4", path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    result = command(folder, "shots", path, "--device", "cpu", "--window", 1)
    rows = [row.split() for row in result.stdout.splitlines()]
    assert rows[0] == ["start", "end", "label", "score", "damaged"]
    assert [len(row) for row in rows[1:]] == [4] * (len(rows) - 2) + [5]
    assert rows[-1][-1] == "yes"
    assert f"timesformer: {path}: damaged: it ends after " in result.stderr


@pytest.mark.parametrize("after", [0, 1, 9, 20])
def test_a_file_that_is_not_as_it_looked_is_decoded_in_full(
    folder: Path, classifier: VideoClassifier, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    expected = list(classifier.timeline(folder / "long.mp4", WINDOW, STRIDE))
    chosen_frames = Playback.chosen_frames
    broken = []

    def breaking(self: Playback, wanted: Collection[int]) -> Iterator[PlayedFrame]:
        yield from itertools.islice(chosen_frames(self, wanted), after)
        broken.append(after)
        raise IndexMismatchError

    monkeypatch.setattr(Playback, "chosen_frames", breaking)
    with (folder / "long.mp4").open("rb") as file:
        segments = list(classifier.timeline(file, WINDOW, STRIDE))
    assert broken == [after]
    for segment, other in zip(segments, expected, strict=True):
        assert segment.predictions == other.predictions
        assert segment.indices == other.indices


def test_only_what_windows_need_is_decoded(folder: Path) -> None:
    with play(folder / "long.mp4", with_times=True) as video:
        assert video.times() == pytest.approx([n / RATE for n in range(COUNT)])
        pictures = [
            frame.render(Rendering()) for frame in video.chosen_frames({0, 17, 51, COUNT - 1})
        ]
    expected = decode_plainly(folder / "long.mp4")
    for picture, number in zip(pictures, (0, 17, 51, COUNT - 1), strict=True):
        np.testing.assert_array_equal(picture, expected[number])
    with play(folder / "long.mp4") as video:
        assert video.times() is None


def test_damaged_pictures_give_as_many_windows(
    folder: Path, tmp_path: Path, classifier: VideoClassifier
) -> None:
    expected = [segment.start for segment in classifier.timeline(folder / "long.mp4", 1.0, 1.0)]
    sound = (folder / "long.mp4").read_bytes()
    for seed in range(6):
        generator = np.random.default_rng(seed)
        data = bytearray(sound)
        place = int(generator.integers(len(data) // 8, len(data) // 2))
        data[place : place + 60] = generator.bytes(60)
        (tmp_path / "damaged.mp4").write_bytes(data)
        segments = list(classifier.timeline(tmp_path / "damaged.mp4", 1.0, 1.0))
        assert [segment.start for segment in segments] == expected


@pytest.mark.parametrize("merge", [False, True])
def test_memory_does_not_grow_with_the_video(
    tmp_path: Path, classifier: VideoClassifier, merge: bool
) -> None:
    peaks = []
    for count in (200, 800):
        pictures = moving_pictures(count, 120, 160)
        if merge:  # one label for all of it, which is one segment
            pictures[:] = pictures[0]
        video = write_video(tmp_path / f"{count}.mp4", pictures)
        segments = list(classifier.timeline(video, WINDOW, STRIDE, merge=merge))
        assert (len(segments) == 1) == merge
        tracemalloc.start()
        for _ in classifier.timeline(video, WINDOW, STRIDE, merge=merge):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


# --- Times ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        ([7.0, 7.1, 7.3], [0.0, 0.1, 0.3]),
        ([None, None, None], [0.0, 0.1, 0.2]),
        ([None, 5.0, 5.3, None], [0.0, 0.1, 0.4, 0.5]),
        ([0.0, 0.3, 0.2, 0.4], [0.0, 0.3, 0.3, 0.4]),  # jitter
        ([50.0, 50.1, 0.0, 0.3], [0.0, 0.1, 0.2, 0.5]),  # two recordings
        ([0.0, 1e9, 1e9 + 0.5], [0.0, 0.1, 0.6]),
        ([0.0, 3000.0], [0.0, 3000.0]),  # a slide
        ([float("nan"), 4.0, float("inf")], [0.0, 0.1, 0.2]),
    ],
)
def test_times_never_go_back(stamps: list[float | None], expected: list[float]) -> None:
    clock = FrameClock(10.0)
    assert [clock.seconds(stamp) for stamp in stamps] == pytest.approx(expected)


def test_playback_gives_every_frame_once(folder: Path) -> None:
    with play(folder / "long.mp4") as video:
        frames = [(frame.index, frame.seconds) for frame in video.frames()]
        assert video.problems() == ()
    assert [index for index, _ in frames] == list(range(COUNT))
    assert [seconds for _, seconds in frames] == pytest.approx([n / RATE for n in range(COUNT)])


@pytest.mark.parametrize("name", ["indexed.mp4", "plain.avi"])
@pytest.mark.parametrize("make", ["timeline", "stream"])
def test_the_held_frames_have_a_limit(
    folder: Path, tmp_path: Path, name: str, make: str, classifier: VideoClassifier
) -> None:
    video = write_video(tmp_path / name, moving_pictures(COUNT))
    frame = classifier.input.convert(moving_pictures(1)[0]).nbytes
    enough = (2 + 4) * classifier.num_frames * frame
    for limit in (enough, 3 * frame):
        limited = VideoClassifier.from_pretrained(
            folder / "shots", device="cpu", threads=2, limits=DecodeLimits(max_bytes=limit)
        )
        parts: Iterator[object] = getattr(limited, make)(video, window=WINDOW, stride=WINDOW)
        if limit == enough:
            assert len(list(parts)) == 5
            continue
        with pytest.raises(VideoLimitError, match=f"take more than {limit} bytes; .* `max_bytes`"):
            list(parts)


@pytest.mark.parametrize("hours", [0.999, 10])
def test_few_frames_that_last_for_long(
    tmp_path: Path, folder: Path, hours: float, classifier: VideoClassifier
) -> None:
    """They are shown for up to an hour each, and nothing is done that nobody asked for."""
    times = [round(number * 3600 * hours * RATE) for number in range(300)]
    video = write_video(tmp_path / "slides.mkv", moving_pictures(300, 16, 16), times=times)
    assert video.stat().st_size < 100_000
    with classifier.timeline(video, 4.0, 2.0) as segments:
        if hours > 1:  # as if nothing were missing
            assert len(list(segments)) == 5
            return
        first, second = itertools.islice(segments, 2)
    assert set(first.indices) == set(second.indices) == {0}
    limited = VideoClassifier.from_pretrained(
        folder / "shots", device="cpu", threads=2, limits=DecodeLimits(max_seconds=0.5)
    )
    start = time.monotonic()
    with pytest.raises(VideoLimitError, match="max_seconds"):
        list(limited.timeline(video, 4.0, 2.0))
    assert time.monotonic() - start < 10


def test_a_rate_of_a_frame_in_a_century_is_not_believed(
    tmp_path: Path, classifier: VideoClassifier
) -> None:
    video = write_video(tmp_path / "slow.avi", moving_pictures(10), codec="mpeg4")
    data = bytearray(video.read_bytes())
    scale = data.index(b"strh") + 8 + 20
    data[scale : scale + 8] = (0xFFFFFFFF).to_bytes(4, "little") + (1).to_bytes(4, "little")
    video.write_bytes(data)
    with play(video) as opened:
        assert opened.rate == 25
    assert len(list(classifier.timeline(video, WINDOW, STRIDE))) == 1


# --- The command ---------------------------------------------------------------------------------


def command(
    folder: Path, *arguments: object, stdin: IO[bytes] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "timesformer_runtime", "timeline", *map(str, arguments)],
        cwd=folder,
        stdin=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


def test_json_lines(folder: Path, classifier: VideoClassifier) -> None:
    options = ("--window", "1s", "--stride", "400ms", "--top-k", 2, "--device", "cpu")
    result = command(folder, "shots", "long.mp4", *options, "--json")
    assert result.returncode == 0, result.stderr
    assert len(result.stderr.splitlines()) == 1  # what is said about the model
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    expected = list(classifier.timeline(folder / "long.mp4", WINDOW, STRIDE, 2))
    for line, segment in zip(lines, expected, strict=True):
        assert {**line, "seconds": None} == {
            **json.loads(json.dumps(segment.to_dict())),
            "seconds": None,
        }


def test_csv_and_columns_from_standard_input(folder: Path, classifier: VideoClassifier) -> None:
    segments = list(classifier.timeline(folder / "long.mp4", WINDOW, STRIDE, 1, merge=True))
    options = ("shots", "-", "--window", 1, "--stride", ".4", "--merge")
    with (folder / "long.mp4").open("rb") as video:
        result = command(folder, *options, "--csv", stdin=video)
    assert result.stdout.splitlines() == [
        "start,end,label,score",
        *(
            f"{s.start:.3f},{s.end:.3f},{s.predictions[0]['label']},{s.predictions[0]['score']:.6f}"
            for s in segments
        ),
    ]
    with (folder / "long.mp4").open("rb") as video:
        result = command(folder, *options, stdin=video)
    rows = [row.split() for row in result.stdout.splitlines()]
    assert rows[0] == ["start", "end", "label", "score", "damaged"]
    assert [row[2] for row in rows[1:]] == [s.predictions[0]["label"] for s in segments]
    assert rows[-1][1] == "0:05.2"


def test_ctrl_c_does_not_wait_for_standard_input(folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "timesformer_runtime", "timeline", "shots", "-"],
        cwd=folder,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    process.stderr.readline()  # what is said about the model: now it waits for the video
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 130
    assert process.stderr.read().strip() == "timesformer: interrupted"
    process.communicate()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["long.mp4", "--window", "four"], "'four' is not a duration; write it as 4s, 500ms"),
        (["long.mp4", "--stride", "0s"], "'0s' is not a duration"),
        (["long.mp4", "--window", "1h", "--stride", "1s"], "it must be at least 3.6"),
        (["long.mp4", "--json", "--csv"], "--json and --csv contradict each other"),
        (["missing.mp4"], "missing.mp4: there is no such file"),
    ],
)
def test_bad_input(folder: Path, arguments: list[str], message: str) -> None:
    result = command(folder, "shots", *arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    last = result.stderr.splitlines()[-1]
    assert last.startswith("timesformer: ")
    assert message in last


def counted_items(
    count: int, closed: list[int], *, fails: bool = False
) -> Generator[int, None, None]:
    try:
        yield from range(count)
        if fails:
            raise ValueError("that is all")
    finally:
        closed.append(count)


@pytest.mark.parametrize(("count", "expected"), [(0, []), (1, [0]), (3, [0, 1, -2])])
def test_change_last_changes_the_last_item(count: int, expected: list[int]) -> None:
    assert list(change_last(counted_items(count, []), lambda item: -item)) == expected


@pytest.mark.parametrize("count", [0, 1, 3])
def test_change_last_changes_nothing_before_an_error(count: int) -> None:
    given = []
    with pytest.raises(ValueError, match="that is all"):  # noqa: PT012
        for item in change_last(counted_items(count, [], fails=True), lambda item: -item):
            given.append(item)  # noqa: PERF402
    assert given == list(range(count))


def test_closing_change_last_closes_its_items() -> None:
    closed: list[int] = []
    items = change_last(counted_items(3, closed), lambda item: -item)
    assert next(items) == 0
    items.close()
    assert closed == [3]
