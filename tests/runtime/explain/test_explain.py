"""``timesformer explain`` and ``timeline --explain``: files, pages, errors."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import av
import numpy as np
import pytest
from PIL import Image
from timesformer_runtime import VideoClassifier
from timesformer_runtime.errors import (
    InvalidOptionError,
    MissingDependencyError,
    OutputError,
    VideoNotFoundError,
)
from timesformer_runtime.explain import explain
from timesformer_runtime.explain.moving_heat import MovingHeat
from timesformer_runtime.explain.page import page
from timesformer_runtime.explain.windows import ExplainedTimeline, _Answers
from timesformer_runtime.results import Ranking
from timesformer_runtime.video.limits import DecodeLimits
from timesformer_runtime.workloads.windows import WindowSettings

from tests.bright_model import COLUMNS, ROWS, frames_with_square, write_bright_model
from tests.command_line import assert_bad_input, timesformer
from tests.patience import PATIENCE
from tests.tiny_graphs import FRAMES, moving_frames, write_exported_model
from tests.video_files import write_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model ``bright`` with rollout, ``plain`` without, and the videos ``a.mp4``, ``b.mkv``."""
    folder = tmp_path_factory.mktemp("explain")
    write_bright_model(folder / "bright")
    write_exported_model(folder / "plain")
    write_video(folder / "a.mp4", moving_frames(21), rate=10)
    # Not at an even rate: frames at 0, 0.1, 0.4, 0.5, 1.0 s
    write_video(folder / "b.mkv", 255 - moving_frames(5), rate=10, times=[0, 1, 4, 5, 10])
    (folder / "broken.mp4").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def classifier(folder: Path) -> VideoClassifier:
    return VideoClassifier.from_pretrained(folder / "bright", device="cpu")


def _frames(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


class _Links(HTMLParser):
    """Collects the addresses that a page loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.found += [v for k in ("src", "href") if (v := values.get(k)) and v[0] != "#"]


def test_the_command_writes_all_files_and_goes_on_after_a_broken_video(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = timesformer(
        folder, "explain", "bright", "a.mp4", "broken.mp4", "gone.mp4", "b.mkv", "--output", out
    )
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("timesformer: ")]
    assert [line.split()[1].strip(":") for line in lines] == ["broken.mp4", "gone.mp4"]
    assert "Traceback" not in done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["a.mp4", "b.mkv"]
    assert sorted(path.name for path in out.iterdir()) == ["a", "b", "index.html"]
    files = ["explanation.json", "overlay.mp4", "rollout.npy", "sheet.png", "time.png"]
    for name in ("a", "b"):
        assert sorted(path.name for path in (out / name).iterdir()) == files
        for picture in ("sheet.png", "time.png"):
            Image.open(out / name / picture).verify()
        assert np.load(out / name / "rollout.npy").shape == (1, 4, 4, 6)
    values = json.loads((out / "a" / "explanation.json").read_text(encoding="utf-8"))
    assert values["views"][0]["indices"] == [0, 6, 13, 20]
    assert len(values["views"][0]["shares"]) == 4
    links = _Links((out / "index.html").read_text(encoding="utf-8")).found
    assert {unquote(link) for link in links} >= {"a/overlay.mp4", "b/sheet.png", "a/time.png"}
    assert all((out / unquote(link)).is_file() for link in links)


@pytest.mark.parametrize("name", ["a.mp4", "b.mkv"])
def test_the_overlay_plays_at_the_videos_own_times(
    folder: Path, classifier: VideoClassifier, name: str, tmp_path: Path
) -> None:
    (one,) = explain(classifier, [folder / name], tmp_path)
    assert one.folder is not None, one.error
    shown, original = _frames(one.folder / "overlay.mp4"), _frames(folder / name)
    assert (shown[0].width, shown[0].height, shown[0].format.name) == (64, 48, "yuv420p")
    first = original[0].time
    times = [frame.time - first for frame in original]
    assert [frame.time for frame in shown] == pytest.approx(times, abs=1e-3)


def _write_turned(path: Path) -> Path:
    """A video of 96 x 48 pixels, each twice as wide as high, to be turned by 90 degrees."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 96, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(2, 1)
        for pixels in frames_with_square(5, 48, 96, 22, 62):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode(None))
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 44  # the display matrix
    data[start : start + 36] = struct.pack(">9i", 0, -65536, 0, 65536, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def test_turned_frames_with_wide_pixels_are_shown_as_a_player_does(
    classifier: VideoClassifier, tmp_path: Path
) -> None:
    video = _write_turned(tmp_path / "turned.mp4")
    (one,) = explain(classifier, [video], tmp_path)
    assert one.folder is not None, one.error
    frame = _frames(one.folder / "overlay.mp4")[2]
    # The square is at 22..32 of 48 rows and 62..72 of 96 columns; a quarter turn to the left
    # exchanges these, and the rows, which were columns, are twice as long.
    assert (frame.width, frame.height) == (48, 192)
    pixels = frame.to_ndarray(format="rgb24").astype(int)
    yellow = pixels[..., 0] - pixels[..., 2]
    rows, columns = np.nonzero(yellow > 0.85 * yellow.max())
    upright = np.rot90(frames_with_square(1, 48, 96, 22, 62)[0, ..., 0]) > 200
    expected = np.argwhere(upright).mean(axis=0) * (2, 1)
    assert abs(rows.mean() - expected[0]) < 14
    assert abs(columns.mean() - expected[1]) < 7


def test_odd_and_large_frames_fit_the_encoder(classifier: VideoClassifier, tmp_path: Path) -> None:
    odd = frames_with_square(5, 51, 71, 20, 30)
    write_video(tmp_path / "odd.mp4", odd, pixels="yuv444p")
    write_video(tmp_path / "large.mp4", frames_with_square(3, 60, 2000, 20, 1000))
    sizes = {}
    for name in ("odd", "large"):
        (one,) = explain(classifier, [tmp_path / f"{name}.mp4"], tmp_path)
        assert one.folder is not None, one.error
        frame = _frames(one.folder / "overlay.mp4")[0]
        sizes[name] = (frame.width, frame.height)
    assert sizes == {"odd": (72, 52), "large": (1280, 38)}


def test_several_views_and_a_reader_process(folder: Path, tmp_path: Path) -> None:
    done = timesformer(
        folder, "explain", "bright", "a.mp4", "--crops", "3", "--output", tmp_path / "x"
    )
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "x" / "a" / "rollout.npy").shape == (3, 4, 4, 6)
    values = json.loads((tmp_path / "x" / "a" / "explanation.json").read_text(encoding="utf-8"))
    assert [view["crop"] for view in values["views"]] == ["start", "center", "end"]
    if sys.platform != "linux":
        return
    limits = DecodeLimits(isolated=True)
    isolated = VideoClassifier.from_pretrained(folder / "bright", device="cpu", limits=limits)
    with isolated:
        (one,) = explain(isolated, [folder / "a.mp4"], tmp_path / "y")
    assert one.folder is not None, one.error
    assert len(_frames(one.folder / "overlay.mp4")) == 21


def test_results_are_replaced_only_with_force(folder: Path, tmp_path: Path) -> None:
    arguments = ("explain", "bright", "a.mp4", "--output", tmp_path)
    assert timesformer(folder, *arguments).returncode == 0
    earlier = tmp_path / "a" / "overlay.mp4"
    earlier.write_text("earlier")
    again = timesformer(folder, *arguments, "--top-k", 1)
    assert again.returncode == 2
    assert "exists; give another folder, or replace it with --force" in again.stderr
    assert earlier.read_bytes() == b"earlier"
    assert timesformer(folder, *arguments, "--force").returncode == 0
    assert len(_frames(earlier)) == 21
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_an_interrupted_command_goes_on(
    folder: Path, classifier: VideoClassifier, tmp_path: Path
) -> None:
    videos = [tmp_path / name for name in ("a.mp4", "b.mkv")]
    for video in videos:
        shutil.copy(folder / video.name, video)
    out = tmp_path / "out"
    first = explain(classifier, videos, out)
    next(first)
    first.close()
    done = timesformer(tmp_path, "explain", folder / "bright", *videos, "--output", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"{videos[0]}: was explained before  ->  {out / 'a'}"
    assert (out / "b" / "overlay.mp4").exists()
    again = list(explain(classifier, videos, out))
    assert [(one.folder, one.explanation) for one in again] == [
        (out / "a", None),
        (out / "b", None),
    ]
    # A changed file, other views and another model are not the same.
    write_video(videos[0], moving_frames(9), rate=10)
    (one, other) = explain(classifier, videos, out)
    assert "exists" in str(one.error)
    assert other.error is None
    crops = timesformer(folder, "explain", "bright", videos[1], "--crops", 3, "--output", out)
    assert_bad_input(crops, "exists")
    write_bright_model(tmp_path / "model", scale=2.0)
    model = VideoClassifier.from_pretrained(tmp_path / "model", device="cpu")
    (one,) = explain(model, videos[1:], out)
    assert "exists" in str(one.error)


def test_force_never_removes_what_others_wrote(
    folder: Path, classifier: VideoClassifier, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.tex").touch()
    (one,) = explain(classifier, [folder / "a.mp4"], tmp_path, force=True)
    assert isinstance(one.error, OutputError)
    assert "is not an explanation" in str(one.error)
    assert (tmp_path / "a" / "thesis.tex").exists()
    (one,) = explain(classifier, [folder / "a.mp4"], tmp_path)
    assert "is not an explanation; give another folder" in str(one.error)
    own = tmp_path / "own"
    (one,) = explain(classifier, [folder / "b.mkv"], own)
    (own / "b" / "notes").mkdir()
    video = Path(shutil.copy(folder / "a.mp4", own / "b" / "x.mp4"))
    (first, other) = explain(classifier, [video, folder / "b.mkv"], own, force=True)
    assert first.error is None
    assert isinstance(other.error, OutputError)
    assert str(other.error).startswith(f"{own / 'b'} has files that this package did not write: ")
    assert "notes, x.mp4; move them, or give another folder" in str(other.error)
    assert sorted(path.name for path in own.iterdir()) == ["b", "index.html", "x"]
    assert video.exists()
    (tmp_path / "index.html").write_text("<p>my page</p>")
    with pytest.raises(InvalidOptionError, match=r"index\.html was not written by this package"):
        explain(classifier, [folder / "a.mp4"], tmp_path, force=True)
    assert (tmp_path / "index.html").read_text() == "<p>my page</p>"


def test_the_page_keeps_earlier_videos_and_equal_names_get_numbers(
    folder: Path, classifier: VideoClassifier, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_video(other / "a.mp4", moving_frames(6))
    out = tmp_path / "out"
    first = list(explain(classifier, [folder / "a.mp4", other / "a.mp4"], out))
    assert [one.folder for one in first] == [out / "a", out / "a-2"]
    (one,) = explain(classifier, [other / "a.mp4"], out)
    assert str(one.error) == (
        f"{out / 'a'} explains {folder / 'a.mp4'}; give another folder, or replace it with `force`"
    )
    list(explain(classifier, [folder / "b.mkv"], out))
    text = (out / "index.html").read_text(encoding="utf-8")
    assert all(f"{name}/overlay.mp4" in text for name in ("a", "a-2", "b"))


def test_a_video_with_the_name_of_the_page(
    folder: Path, classifier: VideoClassifier, tmp_path: Path
) -> None:
    video = tmp_path / "Index.html.mp4"
    shutil.copy(folder / "a.mp4", video)
    out = tmp_path / "out"
    (one,) = explain(classifier, [video], out)
    assert one.folder == out / "Index.html-2"
    assert "Index.html-2/overlay.mp4" in (out / "index.html").read_text(encoding="utf-8")


def test_a_failure_in_the_middle_leaves_nothing(
    folder: Path, classifier: VideoClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("timesformer_runtime.explain.overlay._Encoder.add", full)
    (one,) = explain(classifier, [folder / "a.mp4"], tmp_path)
    assert isinstance(one.error, OSError)
    assert list(tmp_path.iterdir()) == []


def test_files_of_a_killed_run_do_no_harm(
    folder: Path, classifier: VideoClassifier, tmp_path: Path
) -> None:
    partial = tmp_path / ".a.partial"
    partial.mkdir()
    (partial / "explanation.json").write_text("{")
    (one,) = explain(classifier, [folder / "a.mp4"], tmp_path)
    assert one.error is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "index.html"]


@pytest.mark.skipif(os.name != "posix", reason="links need rights on this system")
def test_a_link_that_leads_to_itself_is_an_error_of_its_own(
    folder: Path, classifier: VideoClassifier, tmp_path: Path
) -> None:
    (one,) = explain(classifier, [folder / "a.mp4"], tmp_path)
    assert one.error is None
    (tmp_path / "a.mp4").symlink_to("a.mp4")
    (one,) = explain(classifier, [tmp_path / "a.mp4"], tmp_path, force=True)
    assert one.error is not None
    assert (tmp_path / "a" / "overlay.mp4").exists()


@pytest.mark.skipif(os.name != "posix", reason="this system has no such locks")
def test_a_second_run_does_not_write_into_the_same_folder(
    folder: Path, classifier: VideoClassifier, tmp_path: Path
) -> None:
    first = explain(classifier, [folder / "a.mp4", folder / "b.mkv"], tmp_path)
    assert next(first).error is None
    done = timesformer(folder, "explain", "bright", "b.mkv", "--output", tmp_path)
    assert_bad_input(done, f"another run writes into {tmp_path}; wait for its end")
    settings, ranking = WindowSettings(1.0, 0.5), Ranking(1)
    with pytest.raises(InvalidOptionError, match="another run"):
        next(ExplainedTimeline(classifier, folder / "b.mkv", settings, ranking, tmp_path))
    assert next(first).error is None
    assert list(first) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "index.html"]
    assert timesformer(folder, "explain", "bright", "b.mkv", "--output", tmp_path / "c").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("explain", "plain", "a.mp4", "--output", "x"), "timesformer-export --explain"),
        (("explain", "bright", "a.mp4", "--output", "a.mp4"), "is not a folder"),
        (("explain", "bright", "a.mp4", "--output", "bright"), "in the folder of the model bright"),
        (("explain", "bright", "-", "--output", "x"), "read twice"),
        (("explain", "bright", "gone.mp4", "--output", "x"), "no such file"),
        (("timeline", "bright", "gone.mp4", "--explain", "x"), "no such file"),
        (("timeline", "plain", "a.mp4", "--explain", "x"), "timesformer-export --explain"),
        (("timeline", "bright", "a.mp4", "--explain", "bright/x"), "write to another folder"),
        (("timeline", "bright", "a.mp4", "--explain", "x", "--merge"), "leave out --merge"),
        (("timeline", "bright", "-", "--explain", "x"), "leave out --merge and -"),
    ],
)
def test_bad_input_is_one_line(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    done = timesformer(folder, *arguments)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("timesformer: ")]
    assert message in line
    assert not (folder / "x").exists()


def test_a_new_folder_outlives_a_failure_only_with_results(
    folder: Path, classifier: VideoClassifier, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    videos: list[str | Path] = ["gone.mp4", folder / "a.mp4", "gone.mp4"]
    errors = [one.error is not None for one in explain(classifier, videos, out)]
    assert errors == [True, False, True]
    assert sorted(path.name for path in out.iterdir()) == ["a", "index.html"]


def test_a_failure_removes_the_folders_above_that_it_made(
    classifier: VideoClassifier, tmp_path: Path
) -> None:
    (tmp_path / "x").mkdir()
    (one,) = explain(classifier, ["gone.mp4"], tmp_path / "x" / "y" / "z")
    assert one.error is not None
    assert list(tmp_path.rglob("*")) == [tmp_path / "x"]


@pytest.mark.parametrize("video", ["a.mp4", Path("a.mp4")])
def test_one_path_is_not_a_list(
    classifier: VideoClassifier, tmp_path: Path, video: str | Path
) -> None:
    with pytest.raises(InvalidOptionError, match=r"^`videos` is a\.mp4, one path; give a list of"):
        explain(classifier, video, tmp_path / "out")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_missing_library_names_the_pip_command(folder: Path, tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['jinja2'] = None\n"
        "from timesformer_runtime.__main__ import main\n"
        f"sys.argv = ['timesformer', 'explain', 'bright', 'a.mp4', '--output', {str(tmp_path)!r}]\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 2
    assert "timesformer-onnx[evaluate]" in done.stderr
    assert "Traceback" not in done.stderr


def test_memory_holds_few_frames_of_a_long_video(
    classifier: VideoClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "long.mp4", np.tile(moving_frames(20), (10, 1, 1, 1)))
    alive: list[weakref.ref[Any]] = []
    most = 0
    over = MovingHeat.over

    def counted(self: MovingHeat, frame: Any, *arguments: Any) -> Any:
        nonlocal most
        alive.append(weakref.ref(frame))
        most = max(most, sum(ref() is not None for ref in alive))
        return over(self, frame, *arguments)

    monkeypatch.setattr(MovingHeat, "over", counted)
    (one,) = explain(classifier, [tmp_path / "long.mp4"], tmp_path / "out")
    assert one.error is None
    assert len(alive) == 200
    assert most <= 3


def test_names_from_files_and_models_are_escaped() -> None:
    evil = "<script>alert(1)</script>"
    section = {
        "title": evil,
        "answer": [[evil, 0.5], ["nan", float("nan")]],
        "pictures": [["sheet #1?.png", evil]],
        "video": 'o"v.mp4',
        "facts": [evil],
        "problems": [evil, "bell \a"],
    }
    text = page(
        {'a"b': {"title": evil, "sections": [section]}, "c": {"title": "c", "sections": []}}
    )
    assert "<script" not in text
    assert "sheet%20%231%3F.png" in text
    assert "\a" not in text
    assert _Links(text).found.count("a%22b/o%22v.mp4") == 1


def test_a_timeline_has_a_sheet_for_each_window(
    folder: Path, classifier: VideoClassifier, tmp_path: Path
) -> None:
    settings, ranking = WindowSettings(1.0, 0.5), Ranking(2)
    with classifier.timeline(folder / "a.mp4", 1.0, 0.5, 2) as plain:
        expected = list(plain)
    video = folder / "a.mp4"
    found = list(ExplainedTimeline(classifier, video, settings, ranking, tmp_path))
    assert [(one.start, one.end, one.indices) for one in found] == [
        (one.start, one.end, one.indices) for one in expected
    ]
    for one, other in zip(found, expected, strict=True):
        assert [p["label"] for p in one.predictions] == [p["label"] for p in other.predictions]
    sheets = sorted((tmp_path / "a").glob("*.jpg"))
    assert len(sheets) == len(expected) > 2
    for sheet in sheets:
        Image.open(io.BytesIO(sheet.read_bytes())).verify()
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert text.count("<article") == 1 + len(expected)


@pytest.mark.parametrize("isolated", [False, True])
def test_a_timeline_has_an_overlay_of_all_windows(
    folder: Path, tmp_path: Path, isolated: bool
) -> None:
    limits = DecodeLimits(isolated=isolated)
    classifier = VideoClassifier.from_pretrained(folder / "bright", device="cpu", limits=limits)
    seen: list[float] = []
    segments = ExplainedTimeline(
        classifier,
        folder / "a.mp4",
        WindowSettings(1.0, 0.5),
        Ranking(1),
        tmp_path,
        on_frame=lambda seconds, _duration: seen.append(seconds),
    )
    found = list(segments)
    results = tmp_path / "a"
    frames = _frames(results / "overlay.mp4")
    times = [frame.time for frame in _frames(folder / "a.mp4")]
    assert [frame.time for frame in frames] == pytest.approx(times, abs=1e-4)
    assert seen == pytest.approx(times)
    rollouts = np.load(results / "rollout.npy")
    assert rollouts.shape == (len(found), FRAMES, ROWS, COLUMNS)
    facts = json.loads((results / "explanation.json").read_text())
    for segment, view, rollout in zip(found, facts["views"], rollouts, strict=True):
        assert view["indices"] == list(segment.indices)
        assert view["times"] == pytest.approx(segment.times)
        np.testing.assert_allclose(view["shares"], rollout.mean((1, 2)) / rollout.mean(), atol=1e-3)
    Image.open(results / "time.png").verify()
    assert {path.name for path in results.iterdir()} == {
        *("overlay.mp4", "time.png", "rollout.npy", "explanation.json"),
        *(f"{number:06}.jpg" for number in range(1, len(found) + 1)),
    }


def test_a_timeline_is_explained_again_only_with_force(folder: Path, tmp_path: Path) -> None:
    arguments = ("timeline", "bright", "a.mp4", "--explain", tmp_path)
    first = timesformer(folder, *arguments)
    assert first.returncode == 0, first.stderr
    earlier = tmp_path / "a" / "overlay.mp4"
    earlier.write_text("earlier")
    assert_bad_input(timesformer(folder, *arguments), "or replace it with --force")
    assert earlier.read_bytes() == b"earlier"
    again = timesformer(folder, *arguments, "--force")
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert len(_frames(earlier)) == 21


def test_a_full_disk_under_a_timeline(
    folder: Path,
    classifier: VideoClassifier,
    tmp_path: Path,
    limit_files: Callable[[int], AbstractContextManager[None]],
) -> None:
    settings, ranking = WindowSettings(1.0, 0.5), Ranking(1)
    out = tmp_path / "out"
    with limit_files(1000), pytest.raises(OutputError, match=r"a cannot be written: .*ulimit -f"):
        list(ExplainedTimeline(classifier, folder / "a.mp4", settings, ranking, out))
    assert not out.exists()


def test_an_overlay_without_an_encoder_fails_at_once(
    folder: Path,
    classifier: VideoClassifier,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("timesformer_runtime.explain.overlay._CODECS", ("abacus",))
    settings, ranking = WindowSettings(1.0, 0.5), Ranking(1)
    with pytest.raises(MissingDependencyError, match="none of the encoders abacus"):
        ExplainedTimeline(classifier, folder / "a.mp4", settings, ranking, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_where_windows_overlap_the_nearest_one_is_named() -> None:
    @dataclasses.dataclass
    class Part:
        start: float
        end: float
        predictions: tuple[dict[str, Any], ...]

    parts = [
        Part(start, start + 2.0, ({"label": label, "score": 0.5},))
        for start, label in ((0.0, "a"), (1.0, "b"), (2.0, "c"))
    ]
    answers = _Answers(parts)  # type: ignore[arg-type]
    named = [answers.at(seconds)[0] for seconds in (0.0, 1.4, 1.6, 2.4, 2.6, 9.0)]
    assert named == ["a", "a", "b", "b", "c", "c"]


def test_a_timeline_that_is_closed_early_leaves_nothing(
    folder: Path, classifier: VideoClassifier, tmp_path: Path
) -> None:
    segments = ExplainedTimeline(
        classifier, folder / "a.mp4", WindowSettings(1.0, 0.5), Ranking(1), tmp_path
    )
    next(segments)
    segments.close()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(VideoNotFoundError):
        next(
            ExplainedTimeline(
                classifier, folder / "gone.mp4", WindowSettings(1, 1), Ranking(1), tmp_path
            )
        )
