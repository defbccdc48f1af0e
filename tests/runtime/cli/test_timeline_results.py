"""The results of ``timesformer timeline``: subtitles, files, shots, edit lists and pictures."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image
from timesformer_runtime import VideoClassifier
from timesformer_runtime.cli.segment_lines import SrtLines, VttLines, lines_of
from timesformer_runtime.results import PartResult, Seconds

from tests import command_line, video_files
from tests.command_line import Result, timesformer
from tests.patience import PATIENCE
from tests.shot_graph import levels_of, textured, write_shot_model
from tests.tiny_graphs import (
    TinyGraph,
    moving_frames,
    own_metadata,
    write_exported_model,
    write_video,
)

RATE = 25

needs_opentimelineio = pytest.mark.skipif(
    find_spec("opentimelineio") is None, reason="it has no wheel for the newest Python"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model ``classes``, its video ``a.mp4``, a model ``shots`` and a film with two cuts."""
    folder = tmp_path_factory.mktemp("results")
    write_exported_model(folder / "classes")
    write_video(folder / "a.mp4", moving_frames(60))
    write_shot_model(folder / "shots")
    levels, _ = levels_of([(40, 60), (33, 180), (30, 90)])
    write_video(folder / "film.mp4", textured(levels), RATE)
    return folder


def timeline(folder: Path, *arguments: object, **options: Any) -> Result:
    return timesformer(folder, "timeline", *arguments, **options)


def assert_bad_input(result: Result, message: str) -> None:
    command_line.assert_bad_input(result, message)
    assert result.stdout == ""


def part(start: float, end: float, *predictions: tuple[str, float]) -> PartResult:
    return PartResult(
        start=start,
        end=end,
        predictions=tuple({"label": label, "score": score} for label, score in predictions),
        indices=(),
        times=(),
        duplicates=0,
        failed_packets=0,
        problems=(),
        seconds=Seconds(0, 0, 0),
    )


# --- Subtitles -----------------------------------------------------------------------------------

PARTS = (
    part(0, 4, ("walking the dog", 0.9), ("running", 0.05)),
    part(3599.9996, 3600.0001, ("<b>A & B</b>", 1)),
    part(363_600.25, 363_604.5, ("{\\an8}a --> b", 0.5), ("two\nlines\n\n", 0.25)),
)


def test_webvtt_by_its_specification() -> None:
    form = VttLines()
    assert [line for part in PARTS for line in form.lines(part)] == [
        "WEBVTT",
        "",
        "00:00:00.000 --> 00:00:04.000",
        "walking the dog 0.90",
        "running 0.05",
        "",
        "01:00:00.000 --> 01:00:00.001",
        "&lt;b&gt;A &amp; B&lt;/b&gt; 1.00",
        "",
        "101:00:00.250 --> 101:00:04.500",
        "{\\an8}a --&gt; b 0.50",
        "two\\nlines\\n\\n 0.25",
        "",
    ]


def test_subrip_has_numbers_and_commas() -> None:
    form = SrtLines()
    lines = [line for part in PARTS for line in form.lines(part)]
    assert lines[:5] == [
        "1",
        "00:00:00,000 --> 00:00:04,000",
        "walking the dog 0.90",
        "running 0.05",
        "",
    ]
    assert lines[5:7] == ["2", "01:00:00,000 --> 01:00:00,001"]
    assert lines[7].replace("\u2060", "") == "<b>A & B</b> 1.00"
    assert lines[9:11] == ["3", "101:00:00,250 --> 101:00:04,500"]
    assert sum("-->" in line for line in lines) == 3


@pytest.mark.parametrize("form", ["vtt", "srt"])
def test_ffmpeg_reads_the_subtitles(form: str) -> None:
    lines = lines_of(form, None)
    text = "".join(f"{line}\n" for part in PARTS for line in lines(part))
    with av.open(io.BytesIO(text.encode()), "r", format={"vtt": "webvtt"}.get(form, form)) as file:
        stream = file.streams.subtitles[0]
        assert stream.time_base is not None
        packets = [packet for packet in file.demux(stream) if packet.size]
        times = [
            float(packet.pts * stream.time_base) for packet in packets if packet.pts is not None
        ]
        texts = [bytes(packet).decode() for packet in packets]
    assert times == pytest.approx([0, 3600, 363_600.25])
    assert texts[0] == "walking the dog 0.90\nrunning 0.05"
    assert texts[2].count("\n") == 1


# --- Forms and files -----------------------------------------------------------------------------


def test_each_form_has_the_results_of_the_library(folder: Path) -> None:
    arguments = ("classes", "a.mp4", "--window", "2s", "--stride", "1s", "--threads", 1)
    classifier = VideoClassifier.from_pretrained(folder / "classes", device="cpu", threads=1)
    segments = list(classifier.timeline(folder / "a.mp4", 2.0, 1.0, 1))
    assert len(segments) == 5
    for form in ("table", "csv", "json", "vtt", "srt"):
        done = timeline(folder, *arguments, "--format", form, "--device", "cpu")
        assert done.returncode == 0, done.stderr
        lines = lines_of(form, classifier.labels)
        expected = [line for segment in segments for line in lines(segment)]
        if form == "json":
            found = [json.loads(line) for line in done.stdout.splitlines()]
            for one, line in zip(found, expected, strict=True):
                one["seconds"] = json.loads(line)["seconds"]
            assert found == [json.loads(line) for line in expected]
        else:
            assert done.stdout.splitlines() == expected
    old = timeline(folder, *arguments, "--csv", "--device", "cpu").stdout
    assert old == timeline(folder, *arguments, "--format", "csv", "--device", "cpu").stdout


@pytest.mark.parametrize(
    ("name", "start"), [("a.srt", "1\n00:"), ("a.VTT", "WEBVTT\n"), ("a.jsonl", '{"start"')]
)
def test_the_ending_of_the_output_chooses_the_form(
    folder: Path, tmp_path: Path, name: str, start: str
) -> None:
    path = tmp_path / name
    done = timeline(folder, "classes", "a.mp4", "--output", path)
    assert (done.returncode, done.stdout) == (0, "")
    assert path.read_text(encoding="utf-8").startswith(start)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_replaced_only_by_force(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("mine")
    arguments = ("classes", "a.mp4", "--output", path)
    assert_bad_input(
        timeline(folder, *arguments), f"{path} exists already; give another name, or --force"
    )
    assert path.read_text() == "mine"
    picture = tmp_path / "a.png"
    picture.write_text("mine")
    assert_bad_input(timeline(folder, "classes", "a.mp4", "--picture", picture), "--force")
    assert picture.read_text() == "mine"
    assert timeline(folder, *arguments, "--force").returncode == 0
    assert path.read_text().startswith("start,end,label,score\n")


@pytest.mark.parametrize("option", ["--output", "--picture"])
def test_force_never_replaces_what_the_command_reads(
    folder: Path, tmp_path: Path, option: str
) -> None:
    model = shutil.copytree(folder / "classes", tmp_path / "model")
    video = shutil.copy(folder / "a.mp4", tmp_path / "a.html")
    (tmp_path / "link.html").symlink_to(video)
    (model / "own.html").write_text("the model's")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for file, reason in (
        (video, f"{video} is the video itself; give another name"),
        (tmp_path / "link.html", "is the video itself"),
        (model / "own.html", f"lies in the folder of the model {model}; write to another folder"),
    ):
        form = ["--json"] if option == "--output" else []
        assert_bad_input(timeline(folder, model, video, option, file, "--force", *form), reason)
    graph = TinyGraph(metadata=own_metadata())
    graph.save(tmp_path / "a.onnx")
    shutil.copy(tmp_path / "a.onnx", tmp_path / "kept")
    arguments = ("--output", tmp_path / "a.onnx", "--json", "--force")
    assert_bad_input(timeline(folder, tmp_path / "a.onnx", video, *arguments), "the model itself")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "kept").read_bytes()
    (onnx,) = model.rglob("model.onnx")
    assert_bad_input(
        timeline(folder, onnx, video, "--output", model / "config.json", "--json", "--force"),
        f"{model / 'config.json'} is a file of the model {onnx}; give another name",
    )
    assert {path: path.read_bytes() for path in before} == before


def test_a_failed_run_leaves_no_file_and_an_older_one_as_it_was(
    folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    (tmp_path / "broken.mp4").write_text("no video")
    for before in (None, "mine"):
        if before:
            path.write_text(before)
        arguments = ("classes", tmp_path / "broken.mp4", "--output", path, "--force")
        assert_bad_input(timeline(folder, *arguments), "broken.mp4")
        assert path.exists() == bool(before)
        assert len(list(tmp_path.iterdir())) == (2 if before else 1)
    assert path.read_text() == "mine"


@pytest.mark.skipif(os.name != "posix", reason="this system has no such files")
def test_an_output_that_is_not_a_file_is_refused(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for name, reason in (
        ("pipe.csv", "is not a regular file"),
        (".", "names no form"),
        ("missing/a.csv", "there is no folder"),
    ):
        arguments = ("classes", "a.mp4", "--output", tmp_path / name, "--force")
        assert_bad_input(timeline(folder, *arguments), reason)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--json", "--csv"], "--json and --csv contradict each other"),
        (["--csv", "--format", "vtt"], "--csv and --format vtt contradict each other"),
        (["--format", "xml"], "'xml' is not one of"),
        (["--output", "a.xml"], "--output a.xml names no form"),
        (["--force"], "--force replaces"),
        (["--picture", "a.gif"], "--picture a.gif must end in .png or .svg or .html"),
        (["--shots", "--format", "vtt"], "--shots has no form vtt"),
        (["--shots", "--window", "2s"], "--window is for windows, and --shots lists shots"),
        (["--shots", "--merge"], "--merge is for windows"),
        (["--format", "edl", "--top-k", "2"], "--top-k is for windows, and --format edl"),
        (["--format", "edl", "--picture", "a.png"], "--picture shows windows"),
    ],
)
def test_options_that_contradict_each_other(
    folder: Path, arguments: list[str], message: str
) -> None:
    assert_bad_input(timeline(folder, "shots", "film.mp4", *arguments), message)


def test_a_picture_needs_a_file_that_can_be_read_twice(folder: Path) -> None:
    done = timeline(folder, "classes", "-", "--picture", "a.png", stdin=subprocess.DEVNULL)
    assert_bad_input(done, "standard input can be read only once")


# --- Shots ---------------------------------------------------------------------------------------


def test_shots_as_table_csv_and_json(folder: Path) -> None:
    table = timeline(folder, "shots", "film.mp4", "--shots").stdout.splitlines()
    assert table[0].split() == ["opening", "shot", "start", "end", "first", "last", "score"]
    assert table[2].split()[:6] == ["cut", "2", "0:01.6", "0:02.9", "40", "72"]
    rows = csv.DictReader(
        timeline(folder, "shots", "film.mp4", "--shots", "--csv").stdout.splitlines()
    )
    found = [(row["shot"], row["first"], row["last"], row["opening_first"]) for row in rows]
    assert found == [("1", "0", "39", ""), ("2", "40", "72", "40"), ("3", "73", "102", "73")]
    values = json.loads(timeline(folder, "shots", "film.mp4", "--shots", "--json").stdout)
    assert values["video"] == "film.mp4"
    assert [(one["kind"], one["first"]) for one in values["transitions"]] == [
        ("cut", 40), ("cut", 73)
    ]  # fmt: skip


@needs_opentimelineio
def test_edit_lists_are_files_for_editing_programs(folder: Path, tmp_path: Path) -> None:
    done = timeline(folder, "shots", "film.mp4", "--output", tmp_path / "film.edl")
    assert done.returncode == 0, done.stderr
    events = [
        line for line in (tmp_path / "film.edl").read_text().splitlines() if line[:3].isdigit()
    ]
    assert [line.split()[4:6] for line in events] == [
        ["00:00:00:00", "00:00:01:15"],
        ["00:00:01:15", "00:00:02:23"],
        ["00:00:02:23", "00:00:04:03"],
    ]
    done = timeline(folder, "shots", "film.mp4", "--format", "otio")
    assert json.loads(done.stdout)["OTIO_SCHEMA"] == "Timeline.1"


@needs_opentimelineio
@pytest.mark.parametrize("form", ["edl", "otio"])
def test_edit_lists_say_that_a_rate_varies(folder: Path, tmp_path: Path, form: str) -> None:
    """A file that states 25 frames a second shows the later half of its frames at 12.5."""
    levels, _ = levels_of([(40, 60), (33, 180), (30, 90)])
    times = [*range(52), *range(52, 52 + 51 * 2, 2)]
    video = video_files.write_video(tmp_path / "a.mkv", textured(levels), times=times)
    done = timeline(folder, "shots", video, "--format", form)
    assert done.returncode == 0, done.stderr
    (note,) = [line for line in done.stderr.splitlines() if line.startswith("timesformer: ")]
    assert "a.mkv: its frames do not keep to the stated 25 a second" in note
    done = timeline(folder, "shots", "film.mp4", "--format", form)
    assert "its frames" not in done.stderr


@needs_opentimelineio
def test_edit_lists_need_the_labels_and_a_rate(folder: Path, tmp_path: Path) -> None:
    assert_bad_input(
        timeline(folder, "classes", "film.mp4", "--format", "edl"), "no label dissolve"
    )
    slow = write_video(tmp_path / "slow.mp4", moving_frames(60), 10)
    arguments = ("shots", slow, "--output", tmp_path / "slow.edl")
    assert_bad_input(timeline(folder, *arguments), "10 frames a second")
    assert not (tmp_path / "slow.edl").exists()


@pytest.mark.parametrize(
    ("library", "arguments", "remedy"),
    [
        ("opentimelineio", ["--format", "edl"], "opentimelineio otio-cmx3600-adapter"),
        pytest.param(
            "otio_cmx3600_adapter",
            ["--format", "edl"],
            "opentimelineio otio-cmx3600-adapter",
            marks=needs_opentimelineio,
        ),
        ("PIL", ["--picture", "a.png"], '"timesformer-onnx[evaluate]"'),
    ],
)
def test_a_missing_library_is_named_with_its_remedy(
    folder: Path, library: str, arguments: list[str], remedy: str
) -> None:
    program = (
        f"import sys; sys.modules['{library}'] = None; sys.argv[0] = 'timesformer'\n"
        "from timesformer_runtime.__main__ import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "timeline", "shots", "film.mp4", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert_bad_input(done, f"pip install {remedy}")
    assert library in done.stderr


# --- Pictures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["png", "svg", "html"])
def test_a_picture_beside_the_results(folder: Path, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    arguments = ("classes", "a.mp4", "--window", "2s", "--stride", "1s", "--csv")
    done = timeline(folder, *arguments, "--picture", path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == timeline(folder, *arguments).stdout  # with one label for each segment
    if ending == "png":
        with Image.open(path) as image:
            assert image.width == 2400
    else:
        text = path.read_text(encoding="utf-8")
        assert "a.mp4" in text
        assert text.count("<image") >= 5
