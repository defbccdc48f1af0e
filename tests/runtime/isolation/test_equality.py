"""Tests that reading in another process changes neither results nor errors."""

from __future__ import annotations

import dataclasses
import gzip
import io
import itertools
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timesformer_runtime
from timesformer_runtime import (
    DecodeLimits,
    InvalidVideoError,
    Seconds,
    Segment,
    VideoClassifier,
    VideoLimitError,
)
from timesformer_runtime.input.sampling import Sampling
from timesformer_runtime.input.views import Views
from timesformer_runtime.isolation import handover
from timesformer_runtime.reading import Reading

from tests import traps
from tests.isolated_videos import (
    COUNT,
    STRIDE,
    WINDOW,
    children,
    collect,
    descriptors,
    load,
)
from tests.video_files import moving_pictures

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="isolated needs Linux")


def assert_same(reading: Reading, expected: Reading) -> None:
    assert len(reading.frames) == len(expected.frames)
    for frame, other in zip(reading.frames, expected.frames, strict=True):
        assert frame.dtype == other.dtype
        np.testing.assert_array_equal(frame, other)
    without: dict[str, Any] = {"frames": (), "decode": 0.0, "preprocess": 0.0}
    assert dataclasses.replace(reading, **without) == dataclasses.replace(expected, **without)
    assert reading.decode > 0
    assert reading.preprocess > 0


@pytest.mark.parametrize(
    "name", ["plain.mp4", "plain.avi", "short.mkv", "truncated.mkv", "damaged.mp4"]
)
def test_readings_are_the_same(
    folder: Path, plain: VideoClassifier, isolated: VideoClassifier, name: str
) -> None:
    expected = plain.read(folder / name)
    assert_same(isolated.read(folder / name), expected)
    assert bool(expected.problems) == (name in {"truncated.mkv", "damaged.mp4"})


def test_frames_that_repeat_stay_one_array(folder: Path, isolated: VideoClassifier) -> None:
    frames = isolated.read(folder / "short.mkv").frames
    assert len({id(frame) for frame in frames}) == 3 < len(frames)


def test_several_views_and_the_authors_protocol(folder: Path) -> None:
    for views in (Views(Sampling("dense", rate=2, clips=3), crops=3), Views.facebook()):
        readings = [
            VideoClassifier.from_pretrained(
                folder / "shots",
                device="cpu",
                views=dataclasses.replace(views, sampling=Sampling("dense", rate=2, clips=3)),
                limits=DecodeLimits(isolated=is_isolated),
            ).read(folder / "plain.mp4")
            for is_isolated in (True, False)
        ]
        assert_same(*readings)


def from_cat(path: Path) -> Any:
    return subprocess.Popen(["cat", path], stdout=subprocess.PIPE).stdout


def unflushed(path: Path) -> Any:
    file = tempfile.TemporaryFile()  # noqa: SIM115
    file.write(path.read_bytes())
    return file


def moved(path: Path) -> Any:
    file = path.open("rb")
    file.read(1000)
    return file


def compressed(path: Path) -> Any:
    """Opens a file object whose descriptor leads to other bytes."""
    other = path.with_suffix(".gz")
    other.write_bytes(gzip.compress(path.read_bytes()))
    return gzip.open(other)


def named_pipe(path: Path) -> Any:
    pipe = path.with_suffix(".pipe")
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    threading.Thread(target=lambda: pipe.write_bytes(path.read_bytes())).start()
    return pipe


SOURCES: list[Callable[[Path], Any]] = [
    str,
    lambda path: path.open("rb"),
    lambda path: path.open("rb", buffering=0),
    lambda path: io.BytesIO(path.read_bytes()),
    from_cat,
    unflushed,
    moved,
    compressed,
    named_pipe,
]


@pytest.mark.parametrize("make", SOURCES)
def test_any_source(
    folder: Path, plain: VideoClassifier, isolated: VideoClassifier, make: Callable[[Path], Any]
) -> None:
    expected = plain.read(folder / "plain.mp4")
    before = descriptors()
    source = make(folder / "plain.mp4")
    assert_same(isolated.read(source), expected)
    if hasattr(source, "close"):
        source.close()
    assert descriptors() <= before


def test_a_file_object_stays_usable(folder: Path, isolated: VideoClassifier) -> None:
    data = (folder / "plain.mp4").read_bytes()
    with (folder / "plain.mp4").open("rb") as file:
        isolated.read(file)
        isolated.read(file)
        file.seek(5)
        assert file.read() == data[5:]


def test_relative_paths_lead_from_where_this_process_is(
    folder: Path, tmp_path: Path, isolated: VideoClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plain.mp4").write_text("no video")
    isolated.read(folder / "plain.mp4")  # the process is there already
    monkeypatch.chdir(folder)
    assert isolated.read("plain.mp4").count == COUNT
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidVideoError, match=r"^plain\.mp4 cannot be opened as a video"):
        isolated.read("plain.mp4")


def test_a_working_directory_that_cannot_be_entered(
    folder: Path, isolated: VideoClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a service changes its user, but not its folder."""
    monkeypatch.setattr(handover, "_working_directory", lambda: str(folder / "closed"))
    assert isolated.read(folder / "plain.mp4").count == COUNT


def test_nothing_is_imported_from_a_folder_of_videos(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("socket", "numpy", "av", "json", "timesformer_runtime"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    assert load(folder).read(folder / "plain.mp4").count == COUNT


def test_arrays_need_no_process(folder: Path, plain: VideoClassifier) -> None:
    before = children()
    frames = moving_pictures(12)
    classifier = load(folder)
    assert classifier(frames) == plain(frames)
    assert children() == before


def test_a_reader_process_has_no_model(folder: Path) -> None:
    names = bytes(load(folder, traps.Modules).read(folder / "plain.mp4").frames[0])
    modules = set(names.decode().split())
    assert "timesformer_runtime.video.decoder" in modules
    assert "onnxruntime" not in modules


@pytest.mark.parametrize("name", ["plain.mp4", "plain.avi", "short.mkv", "truncated.mkv"])
@pytest.mark.parametrize("make", ["timeline", "stream"])
def test_windows_are_the_same(
    folder: Path, plain: VideoClassifier, isolated: VideoClassifier, name: str, make: str
) -> None:
    without: dict[str, Any] = {"seconds": None}
    if make == "stream":
        without["latency"] = 0.0
    expected, found = (
        [
            dataclasses.replace(part, **without)
            for part in getattr(classifier, make)(folder / name, window=WINDOW, stride=STRIDE)
        ]
        for classifier in (plain, isolated)
    )
    assert found == expected
    assert len(found) > (name != "short.mkv")


def test_duration_and_problems_of_a_timeline(folder: Path, isolated: VideoClassifier) -> None:
    with isolated.timeline(folder / "truncated.mkv", WINDOW, STRIDE) as timeline:
        assert timeline.duration is None
        next(timeline)
        assert timeline.duration == pytest.approx(COUNT / 25)
        segments = list(timeline)
    assert segments[-1].problems == timeline.problems
    assert segments[-1].seconds.decode > 0


@pytest.mark.parametrize(
    ("source", "limits"),
    [
        ("missing.mp4", {}),
        ("text.mp4", {}),
        ("empty.mp4", {}),
        ("", {}),
        (".", {}),
        ("http://127.0.0.1/clip.mp4", {}),
        (7, {}),
        (io.StringIO("text"), {}),
        (io.BytesIO(b"no video"), {}),
        (io.BytesIO(b""), {}),
        ("plain.mp4", {"max_pixels": 100}),
        ("plain.mp4", {"max_packets": 10}),
        ("plain.mp4", {"max_bytes": 1000}),
    ],
)
@pytest.mark.parametrize("make", ["read", "timeline"])
def test_errors_are_the_same(
    folder: Path,
    plain: VideoClassifier,
    isolated: VideoClassifier,
    source: Any,
    limits: dict[str, Any],
    make: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    errors = []
    if limits:
        isolated = load(folder, **limits)
        plain = VideoClassifier.from_pretrained(
            "shots", device="cpu", threads=1, limits=DecodeLimits(**limits)
        )
    for classifier in (isolated, plain):
        with pytest.raises(InvalidVideoError if source != "missing.mp4" else OSError) as caught:
            collect(classifier, source, make)
        errors.append(caught.value)
    assert repr(errors[0]) == repr(errors[1])
    assert type(errors[0]) is type(errors[1])


def test_a_file_object_that_fails(folder: Path, isolated: VideoClassifier) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    source: Any = Failing(b"data")
    with pytest.raises(InvalidVideoError, match=r"the file object cannot be read: .*Input/output"):
        isolated.read(source)


def test_file_objects_that_are_too_large_to_be_copied(folder: Path) -> None:
    data = (folder / "plain.mp4").read_bytes()
    classifier = load(folder, max_pipe_bytes=len(data) - 1)
    assert classifier.read(folder / "plain.mp4").count == COUNT
    with pytest.raises(
        VideoLimitError, match=r"has no descriptor and .* or raise `max_pipe_bytes`"
    ):
        classifier.read(io.BytesIO(data))


def test_an_error_that_is_not_known_here(folder: Path) -> None:
    with pytest.raises(LookupError, match="no such colour"):
        load(folder, traps.Unknown).read(folder / "white.mp4")


SAMPLES = Path(timesformer_runtime.__file__).parent / "sample_clips"
CLIPS = Path(os.environ.get("TIMESFORMER_TEST_CLIPS", ""))
REAL = sorted(CLIPS.iterdir()) if "TIMESFORMER_TEST_CLIPS" in os.environ else []


@pytest.mark.parametrize("path", [*SAMPLES.glob("*.mp4"), *REAL], ids=lambda path: path.name)
def test_real_videos_are_the_same(
    plain: VideoClassifier, isolated: VideoClassifier, path: Path
) -> None:
    """Compares frames and windows, or errors."""
    for read in (reading, segments):
        expected, found = (outcome(read, classifier, path) for classifier in (plain, isolated))
        assert found == expected


def outcome(read: Callable[[VideoClassifier, Path], Any], classifier: Any, path: Path) -> Any:
    try:
        return read(classifier, path)
    except InvalidVideoError as error:
        return repr(error)


def reading(classifier: VideoClassifier, path: Path) -> dict[str, Any]:
    found = vars(classifier.read(path)) | {"decode": None, "preprocess": None}
    return found | {"frames": [(frame.shape, frame.tobytes()) for frame in found["frames"]]}


def segments(classifier: VideoClassifier, path: Path) -> list[Segment]:
    """Reads the first three segments: some videos are long."""
    with classifier.timeline(path) as timeline:
        found = itertools.islice(timeline, 3)
        return [dataclasses.replace(segment, seconds=Seconds(0, 0, 0)) for segment in found]


def test_batches_are_the_same(plain: VideoClassifier, isolated: VideoClassifier) -> None:
    videos = sorted(SAMPLES.glob("*.mp4"))
    expected, found = (
        {
            outcome.video: dataclasses.replace(outcome.result, seconds=Seconds(0, 0, 0), outputs={})
            for outcome in classifier.batch(videos, workers=2)
            if outcome.result is not None
        }
        for classifier in (plain, isolated)
    )
    assert found == expected
    assert set(found) == set(videos)
