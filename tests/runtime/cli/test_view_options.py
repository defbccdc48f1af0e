"""The command line's options about frames, from the words to the views and to the answer."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from timesformer_runtime import Sampling, VideoClassifier, Views, cli
from timesformer_runtime.cli.view_options import view_options

from tests.tiny_graphs import TinyGraph, moving_frames, own_metadata, write_video


@click.command()
@view_options
def probe(views: Views) -> None:
    click.echo(json.dumps(views.to_dict()))


@pytest.mark.parametrize(
    ("words", "views"),
    [
        ("", Views()),
        ("--sampling center --frame-sampling-rate 4", Views(Sampling("center", 4))),
        ("--sampling dense --clips 10 --crops 3", Views(Sampling("dense", clips=10), crops=3)),
        ("--sampling pipeline --short wrap", Views(Sampling("pipeline", short="wrap"))),
        ("--protocol facebook", Views.facebook()),
        ("--protocol facebook --crops 1", Views.facebook(crops=1)),
        (
            "--protocol facebook --frame-sampling-rate 8 --clips 4",
            Views.facebook(Sampling("facebook", 8, 4)),
        ),
        (
            "--protocol facebook --sampling segments --channel-order bgr",
            Views.facebook(Sampling("segments"), channel_order="bgr"),
        ),
        (
            "--channel-order bgr --resize fast --square-pixels",
            Views(channel_order="bgr", resize="fast", square_pixels=True),
        ),
    ],
)
def test_options_make_views(words: str, views: Views) -> None:
    result = CliRunner().invoke(probe, words.split())
    assert result.exit_code == 0, result.output
    assert json.loads(result.output) == json.loads(json.dumps(views.to_dict()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("views")
    TinyGraph(metadata=own_metadata()).save(folder / "shots.onnx")
    write_video(folder / "clip.mp4", moving_frames(21, 48, 80))
    return folder


def test_classify_sees_what_was_asked_for(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    words = "classify shots.onnx clip.mp4 --json --device cpu --threads 1 --protocol facebook "
    cli.command.main([*words.split(), "--frame-sampling-rate", "12"], standalone_mode=False)
    printed = capsys.readouterr()
    assert printed.err == (
        "shots.onnx: dtype as stored, device cpu, 1 thread, facebook frames at rate 12, "
        "3 views (clips 1, crops 3), protocol facebook\n"
    )
    line = json.loads(printed.out)
    assert line["frames"]["indices"] == [0, 5, 10, 15]
    assert line["views"] == {"clips": 1, "crops": ["start", "center", "end"]}
    classifier = VideoClassifier.from_pretrained(
        "shots.onnx", device="cpu", threads=1, views=Views.facebook(Sampling("facebook", 12))
    )
    assert line["predictions"] == classifier("clip.mp4")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--clips 3", "uniform sampling takes one clip of a video, not 3; choose --sampling dense"),
        ("--frame-sampling-rate 2", "--frame-sampling-rate has no effect on uniform sampling"),
        ("--sampling center", "needs a --frame-sampling-rate for a model of 4 frames"),
        ("--protocol facebook --resize fast", "leave out --resize fast"),
        ("--sampling random", "'--sampling'"),
        ("--crops 2", "'--crops'"),
        ("--short error --sampling pipeline --frame-sampling-rate 9", "21 frames, and pipeline"),
        ("--short error --sampling pipeline --frame-sampling-rate 9", "or --short repeat_last or"),
    ],
)
def test_what_cannot_be_had_is_one_clear_line(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    message: str,
) -> None:
    monkeypatch.chdir(folder)
    arguments = ["timesformer", "classify", "shots.onnx", "clip.mp4", *words.split()]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("timesformer: ")
    assert message in last
