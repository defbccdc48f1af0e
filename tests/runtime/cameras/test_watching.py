"""Many sources and one model: turns, drops, counts, changes while they run."""

from __future__ import annotations

import dataclasses
import itertools
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest
from timesformer_runtime import (
    DecodeLimits,
    InvalidOptionError,
    VideoClassifier,
    VideoNotFoundError,
    Views,
)
from timesformer_runtime.cameras import watching
from timesformer_runtime.cameras.settings import SourceSettings
from timesformer_runtime.cameras.watching import CameraResult, Cameras, Counts, fairness
from timesformer_runtime.results import Ranking
from timesformer_runtime.video.live.source import Connection, LiveFrame
from timesformer_runtime.workloads.stream_sources import LiveSettings, SourceFrames
from timesformer_runtime.workloads.windows import WindowSettings

from tests.live_sources import free_udp_url, sender
from tests.patience import PATIENCE
from tests.tiny_graphs import write_exported_model
from tests.video_files import moving_pictures, write_video

RATE = 25
WINDOWS = WindowSettings(0.4, 0.4)
ALL = Ranking(top_k=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cameras")
    write_exported_model(folder / "shots")
    write_video(folder / "long.mp4", moving_pictures(110, seed=1))
    write_video(folder / "short.mp4", moving_pictures(30, seed=2))
    write_video(folder / "still.mp4", moving_pictures(1, seed=3).repeat(60, axis=0))
    return folder


@pytest.fixture(scope="module")
def classifier(folder: Path) -> VideoClassifier:
    return VideoClassifier.from_pretrained(folder / "shots", threads=1)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def camera(name: str, address: object = "udp://127.0.0.1:9", **values: Any) -> SourceSettings:
    return SourceSettings(name, str(address), **{"windows": WINDOWS, **values})


def watched(cameras: Cameras, count: int | None = None) -> list[CameraResult]:
    """The next results, or all of them."""
    with cameras:
        found = (result for result in cameras.results() if result is not None)
        return list(itertools.islice(found, count))


class MadeUpFrames:
    """Live sources that give frames as fast as they are taken."""

    def __init__(self) -> None:
        self._left: list[int] = []  # frames, of each source that has begun
        self._taken = threading.Condition()

    def of(self, address: str) -> SourceFrames:
        """A source with as many frames as its port says, and then silence; 9 is endless."""
        port = int(address.rpartition(":")[2])
        count = 10**9 if port == 9 else port
        return SourceFrames(lambda stopped: self._frames(count, stopped), lambda _: None)

    def wait(self, count: int) -> None:
        """Waits until so many frames more are taken of each source, or all that it has."""
        with self._taken:
            wanted = [max(0, left - count) for left in self._left]
            assert self._taken.wait_for(
                lambda: all(left <= most for left, most in zip(self._left, wanted, strict=False)),
                PATIENCE,
            )

    def _frames(self, count: int, stopped: threading.Event) -> Generator[LiveFrame, None, None]:
        picture = av.VideoFrame.from_ndarray(moving_pictures(1)[0], format="rgb24")
        connection = Connection(0, RATE)
        with self._taken:
            source = len(self._left)
            self._left.append(count)
        for number in range(count):
            if stopped.is_set():
                return
            now = time.monotonic()
            yield LiveFrame(picture, None, number / RATE, now, number, 0, 0.0, connection)
            with self._taken:
                self._left[source] -= 1
                self._taken.notify_all()
        stopped.wait(PATIENCE)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> MadeUpFrames:
    """Live sources give made-up frames."""
    made_up = MadeUpFrames()
    monkeypatch.setattr(
        watching, "source_frames", lambda _, address, *__, **___: made_up.of(address)
    )
    return made_up


def slow(
    monkeypatch: pytest.MonkeyPatch, classifier: VideoClassifier, made_up: MadeUpFrames, frames: int
) -> None:
    """Makes the model take longer than each source needs to give so many frames."""
    predict = classifier.predict

    def slowly(*arguments: Any, **options: Any) -> Any:
        made_up.wait(frames)
        return predict(*arguments, **options)

    monkeypatch.setattr(classifier, "predict", slowly)


def test_several_files_give_the_windows_of_each(classifier: VideoClassifier, folder: Path) -> None:
    sources = [camera(name, folder / f"{name}.mp4") for name in ("long", "short")]
    found = watched(Cameras(classifier, sources, ALL, print))
    for source, count in zip(sources, (11, 3), strict=True):
        results = [each.result for each in found if each.source.name == source.name and each.result]
        expected = list(classifier.stream(source.address, window=0.4, stride=0.4, top_k=None))
        complete = [each for each in expected if each.end - each.start > 0.39]
        assert len(results) == len(complete) == count
        for one, other in zip(results, complete, strict=True):
            assert (one.start, one.end, one.indices) == (other.start, other.end, other.indices)
            assert one.predictions == other.predictions
            assert (one.skipped_windows, one.dropped_frames) == (0, 0)
    assert sorted(each.source.name for each in found if each.ended) == ["long", "short"]
    assert all(each.error is None and each.origin is None for each in found)


def test_each_source_has_its_turn_in_every_round(
    classifier: VideoClassifier, monkeypatch: pytest.MonkeyPatch, made_up: MadeUpFrames
) -> None:
    slow(monkeypatch, classifier, made_up, 20)
    sources = [camera(name) for name in "abcd"]
    cameras = Cameras(classifier, sources, ALL, print)
    names = [each.source.name for each in watched(cameras, 60)][8:]
    rounds = [names[start : start + 8] for start in range(len(names) - 7)]
    complete = [len(set(each)) == 4 for each in rounds]
    assert sum(complete) >= 0.8 * len(rounds), names  # a busy machine may keep a thread waiting
    counts = cameras.counts()
    assert set(counts) == set("abcd")
    assert fairness(counts.values()) >= 0.8
    assert sum(count.windows for count in counts.values()) == 60
    assert all(count.skipped > 0 and count.dropped_frames > 0 for count in counts.values())


def test_a_window_that_waits_is_before_the_second_one_of_another_source(
    classifier: VideoClassifier, monkeypatch: pytest.MonkeyPatch, made_up: MadeUpFrames
) -> None:
    """Sources b and c give one window each, when ``a`` has had some."""
    slow(monkeypatch, classifier, made_up, 20)
    sources = [camera("a"), camera("b", "udp://h:11"), camera("c", "udp://h:11")]
    names = [each.source.name for each in watched(Cameras(classifier, sources, ALL, print), 8)]
    assert names.count("b") == names.count("c") == 1
    first = names.index("b")
    assert names.index("c") <= first + 2
    assert first <= 2


def test_what_is_classified_is_new(
    classifier: VideoClassifier, monkeypatch: pytest.MonkeyPatch, made_up: MadeUpFrames
) -> None:
    slow(monkeypatch, classifier, made_up, 60)
    results = watched(Cameras(classifier, [camera("a")], ALL, print), 5)
    (first, *_, last) = [each.result for each in results if each.result is not None]
    assert last.start > first.start + 10 * WINDOWS.stride
    assert last.skipped_windows > 0


def test_a_source_that_fails_does_not_end_the_others(
    classifier: VideoClassifier, folder: Path
) -> None:
    (folder / "text.mp4").write_text("no video")
    sources = [camera(name, folder / f"{name}.mp4") for name in ("text", "short")]
    found = watched(Cameras(classifier, sources, ALL, print))
    errors = {each.source.name: each.error for each in found if each.ended}
    assert "cannot be opened as a video" in str(errors["text"])
    assert errors["short"] is None
    assert sum(each.result is not None for each in found) == 3


def test_a_file_that_is_not_there_is_an_error_at_once(
    classifier: VideoClassifier, folder: Path
) -> None:
    with pytest.raises(VideoNotFoundError, match="there is no such file"):
        Cameras(classifier, [camera("a"), camera("b", folder / "none.mp4")], ALL, print)


def test_windows_without_motion_are_skipped(classifier: VideoClassifier, folder: Path) -> None:
    sources = [
        camera("still", folder / "still.mp4", static_level=4.0),
        camera("long", folder / "long.mp4", static_level=4.0),
        camera("all", folder / "still.mp4"),
    ]
    cameras = Cameras(classifier, sources, ALL, print)
    found = [each for each in watched(cameras) if each.result is not None]
    for each in found:
        assert each.is_static == (each.source.name == "still")
        assert each.result is not None
        assert bool(each.result.predictions) != each.is_static
        assert (each.motion is None) == (each.source.name == "all")
    counts = cameras.counts()
    assert (counts["still"].static, counts["still"].windows) == (6, 0)
    assert (counts["long"].static, counts["long"].windows) == (0, 11)
    assert counts["still"].skipped == 0


def test_new_settings_keep_the_other_sources(classifier: VideoClassifier) -> None:
    urls = [free_udp_url(), free_udp_url()]
    live = LiveSettings(timeout=2.0)
    one, two = (camera(name, url, live=live) for name, url in zip("ab", urls, strict=True))
    cameras = Cameras(classifier, [one, two], ALL, print)
    with sender(urls[0]), sender(urls[1]), cameras:
        results = (each for each in cameras.results() if each is not None and each.result)
        seen: set[str] = set()
        while seen != {"a", "b"}:
            seen.add(next(results).source.name)
        before = {thread for thread in threading.enumerate() if thread.name == "camera: a"}
        changed = camera("a", urls[0], live=live, static_level=0.0)
        with pytest.raises(InvalidOptionError, match="two sources have the name a"):
            cameras.update([changed, changed])
        assert cameras.update([changed]) == [two]
        after = [next(results) for _ in range(3)]
        assert all(each.source == changed for each in after)
        assert all(each.result and each.result.reconnects == 0 for each in after)
        assert before <= set(threading.enumerate())
        assert set(cameras.counts()) == {"a"}
        cameras.counts()["a"].reconnects = 5
        again = camera("a", urls[0], live=LiveSettings(timeout=3.0))
        assert cameras.update([again]) == [changed]
        assert next(results).source == again
        assert cameras.counts()["a"].reconnects == 5  # of all its connections so far
        assert cameras.update([two]) == [again]
        assert next(results).source == two
        assert set(cameras.counts()) == {"b"}


def test_a_source_that_has_ended_begins_again_only_if_it_changes(
    classifier: VideoClassifier, folder: Path
) -> None:
    live, file = camera("a", free_udp_url()), camera("b", folder / "short.mp4")
    with Cameras(classifier, [live, file], ALL, lambda _: None) as cameras:
        results = (each for each in cameras.results() if each and each.source.name == "b")

        def count_until_the_end() -> int:
            return len(list(itertools.takewhile(lambda each: not each.ended, results)))

        assert count_until_the_end() == 3
        other_rules = dataclasses.replace(file, static_level=4.0)
        for settings in (file, other_rules, file):
            assert cameras.update([live, settings]) == []
            assert [each.settings for each in cameras._cameras] == [live]
        assert cameras.counts()["b"].windows == 3
        longer = dataclasses.replace(file, windows=WindowSettings(1.2, 1.2))
        assert cameras.update([live, longer]) == []
        assert count_until_the_end() == 1
        assert cameras.counts()["b"].windows == 4
        cameras.update([live])
        cameras.update([live, longer])
        assert count_until_the_end() == 1


def test_a_signal_handler_may_wake_it_at_any_moment(
    classifier: VideoClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> Any:
        cameras.wake()
        return interrupt

    with Cameras(classifier, [camera("a")], ALL, print) as cameras:
        monkeypatch.setattr(cameras, "_start", lambda _: None)
        before = sys.gettrace()
        sys.settrace(interrupt)  # before each line, also of the library's code
        try:
            assert next(cameras.results()) is None
        finally:
            sys.settrace(before)


def test_a_source_that_is_not_there_yet(classifier: VideoClassifier, folder: Path) -> None:
    url = free_udp_url()
    told: list[str] = []
    source = camera("a", url, live=LiveSettings(timeout=1.0))
    with Cameras(classifier, [source], ALL, told.append) as cameras:
        results = cameras.results()
        while not told:
            assert next(results) is None or not told
        with sender(url):
            first = next(each for each in results if each is not None and each.result)
    assert "not there yet" in told[0]
    assert "connecting again until it answers" in told[0]
    assert first.origin is not None
    assert abs(first.origin - time.time()) < PATIENCE


def test_a_silence_is_told_once_a_second(
    classifier: VideoClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(watching, "time", SimpleNamespace(monotonic=lambda: clock[-1]))
    source = camera("a", live=LiveSettings(timeout=5.0))
    with Cameras(classifier, [source], ALL, print) as cameras:
        (one,) = cameras._cameras
        told = []
        for seconds in (1.0, 5.0, 6.0, 6.5, 7.0, 90.0):  # the window and stride take 0.8
            clock.append(1000.0 + seconds)
            told.append(one.silence())
    assert told == [None, None, 6.0, None, 7.0, 90.0]


def test_messages_name_the_source(classifier: VideoClassifier) -> None:
    """Cameras of one recorder differ in what is hidden of their URLs."""
    told: list[str] = []
    quick = LiveSettings(timeout=1.0)
    sources = [
        camera("door", "udp://127.0.0.1:9?secret=1", live=quick),
        camera("udp://127.0.0.1:9?***", "udp://127.0.0.1:9?secret=2", live=quick),
    ]
    with Cameras(classifier, sources, ALL, told.append) as cameras:
        results = cameras.results()
        while len(told) < 2:
            next(results)
    assert sorted(message.partition(" not there")[0] for message in told) == [
        "door: udp://127.0.0.1:9?***:",
        "udp://127.0.0.1:9?***:",
    ]


@pytest.mark.parametrize("options", ["", "?fifo_size=100000"])
def test_a_source_that_is_read_in_another_way_gets_its_port(
    options: str, classifier: VideoClassifier
) -> None:
    """The port is free once the thread with the old settings has ended."""
    url = free_udp_url()
    told: list[str] = []
    live = LiveSettings(reconnect=0)
    with (
        sender(url) as process,
        Cameras(classifier, [camera("a", url)], ALL, told.append) as cameras,
    ):
        results = cameras.results()
        next(each for each in results if each is not None and each.result)
        process.send_signal(signal.SIGSTOP)
        next(each for each in results if each is None)  # the thread of "a" waits for a packet
        cameras.update([camera("b", url + options, live=live)])
        after = next(results)
        process.send_signal(signal.SIGCONT)
        while after is None:
            after = next(results)
    assert (after.source.name, after.error) == ("b", None)
    assert told == []


def test_a_silent_source_is_told_again_and_again(classifier: VideoClassifier) -> None:
    url = free_udp_url()
    source = camera("a", url, live=LiveSettings(timeout=0.5))
    with Cameras(classifier, [source], ALL, lambda _: None) as cameras:
        with sender(url):
            next(each for each in cameras.results() if each is not None and each.result)
        silences = (each.silent for each in cameras.results() if each is not None)
        told = list(itertools.islice((each for each in silences if each is not None), 3))
    assert told[0] >= 0.5 + WINDOWS.length + WINDOWS.stride
    assert all(later >= earlier + 0.99 for earlier, later in itertools.pairwise(told))


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([], "`sources` is empty"),
        ([camera("a"), camera("a")], "two sources have the name a"),
        ([camera("a", "x.mp4", live=LiveSettings(timeout=1.0))], "`timeout` is for live sources"),
        ([camera("a", "x.mp4", live=LiveSettings(hardware="cuda"))], "`hardware` is for live"),
        ([camera("a", live=LiveSettings(hardware="abacus"))], "`hardware` is 'abacus'"),
        (
            [camera("a", "rtsp://h/", live=LiveSettings(rtsp_transport=["tcp"]))],  # type: ignore[arg-type]
            r"`rtsp_transport` is \['tcp'\]; it must be one of tcp, udp",
        ),
    ],
)
def test_sources_are_checked(
    classifier: VideoClassifier, sources: list[SourceSettings], message: str
) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        Cameras(classifier, sources, ALL, print)


def test_an_error_names_the_source(classifier: VideoClassifier) -> None:
    wrong = camera("yard", live=LiveSettings(format="none such"))
    with pytest.raises(InvalidOptionError, match=r"^yard: `format` is 'none such'"):
        Cameras(classifier, [camera("door"), wrong], ALL, print)
    with pytest.raises(VideoNotFoundError, match=r"^none\.mp4: there is no such file"):
        Cameras(classifier, [camera("none.mp4", "none.mp4")], ALL, print)
    with pytest.raises(VideoNotFoundError, match=r"^yard: none\.mp4: there is no such file"):
        Cameras(classifier, [camera("yard", "none.mp4")], ALL, print)


def test_limits_and_views_that_do_not_go_with_it(folder: Path) -> None:
    isolated = VideoClassifier.from_pretrained(folder / "shots", limits=DecodeLimits(isolated=True))
    with isolated, pytest.raises(InvalidOptionError, match="`isolated`"):
        Cameras(isolated, [camera("a")], ALL, print)
    facebook = VideoClassifier.from_pretrained(folder / "shots", views=Views(protocol="facebook"))
    with pytest.raises(InvalidOptionError, match="`static_level` is for the protocol huggingface"):
        Cameras(facebook, [camera("a", static_level=4.0)], ALL, print)


def test_fairness() -> None:
    assert fairness([]) == 1.0
    assert fairness([Counts()]) == 1.0
    assert fairness([Counts(windows=4), Counts(windows=3, static=2)]) == 0.8
