"""Exports with labelled videos: PyTorch is the reference, and a loss can reject a file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from timesformer_exporter import (
    ExportOptions,
    ExportResult,
    InvalidOptionError,
    export,
    model_writer,
)
from timesformer_exporter.summary import failure
from timesformer_runtime.errors import TimesformerError
from timesformer_runtime.input.preprocess import Preprocessing
from timesformer_runtime.input.sampling import uniform

from tests.tiny_graphs import decode_all, write_video
from tests.tiny_models import random_model, tiny_config, write_checkpoint
from tests.video_files import moving_pictures

PREPROCESSING = Preprocessing(size=32, crop_size=(32, 32)).to_dict()
CONFIG = tiny_config()
COUNT, WRONG = 8, 2


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of 8 videos, 6 of which have the label that PyTorch gives them, and a missing one."""
    folder = tmp_path_factory.mktemp("labelled")
    model = random_model(CONFIG)
    lines = []
    for number in range(COUNT):
        frames = moving_pictures(9 + number, seed=number)
        path = write_video(folder / "clips" / f"{number}.mp4", frames)
        frames = decode_all(path)
        clip = Preprocessing.from_dict(PREPROCESSING)(frames[uniform(len(frames), 3)])
        with torch.no_grad():
            answer = int(model(torch.from_numpy(clip[None])).argmax())
        lines.append(f"{number}.mp4 {(answer + 1) % 6 if number < WRONG else answer}\n")
    (folder / "list.txt").write_text("".join(lines) + "missing.mp4 0\n")
    return folder / "list.txt"


def run_export(tmp_path: Path, data: Path, **options: Any) -> ExportResult:
    write_checkpoint(tmp_path / "model", CONFIG, preprocessing=PREPROCESSING)
    return export(
        ExportOptions(
            str(tmp_path / "model"),
            output=tmp_path / "exported",
            evaluate=data,
            evaluate_root=data.parent / "clips" if (data.parent / "clips").is_dir() else None,
            **options,
        )
    )


def answer_always(label: int) -> Any:
    """Makes a ``write_variant`` that writes a graph with one answer for every video."""

    def write_variant(source: Path, path: Path, *_: object) -> None:
        model = onnx.load(source)
        (bias,) = (t for t in model.graph.initializer if t.name == "classifier.bias")
        values = numpy_helper.to_array(bias).copy()
        values[label] = 1000
        bias.CopyFrom(numpy_helper.from_array(values, bias.name))
        onnx.save(model, path)

    return write_variant


@pytest.mark.parametrize("graph_input", ["pixel_values", "frames"])
def test_pytorch_is_the_reference(tmp_path: Path, data: Path, graph_input: str) -> None:
    result = run_export(tmp_path, data, input=graph_input, max_accuracy_loss=0.5)
    assert result.passed
    accuracy = result.proof.accuracy
    assert accuracy is not None
    pytorch, fp32 = accuracy.models
    assert (pytorch.name, fp32.name) == ("pytorch", "fp32")
    assert pytorch.top_1 == fp32.top_1 == (COUNT - WRONG) / COUNT
    assert (accuracy.videos, accuracy.unreadable) == (COUNT + 1, 1)
    assert fp32.loss == 0
    card = (result.folder / "README.md").read_text()
    assert "| pytorch | 75.0 % (" in card
    assert "| fp32 | 75.0 % (" in card
    assert "On 9 labelled videos, 1 of them unreadable" in card
    report = json.loads((result.folder / "export_report.json").read_text())
    assert report["accuracy"]["passed"]
    assert report["accuracy"]["models"][1]["top_1"] == 0.75
    assert str(data.parent) not in json.dumps(report)  # paths of this machine are private


def test_a_large_loss_rejects_the_export(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = [int(line.split()[1]) for line in data.read_text().splitlines()[:COUNT]]
    always = min(range(6), key=labels.count)
    monkeypatch.setattr(model_writer, "write_variant", answer_always(always))
    options: dict[str, Any] = {"dtypes": ("fp32", "int8"), "gate": False}
    result = run_export(tmp_path, data, **options, max_accuracy_loss=5)
    assert not result.passed
    assert result.folder == tmp_path / "exported.rejected"
    assert not (tmp_path / "exported").exists()
    accuracy = result.proof.accuracy
    assert accuracy is not None
    (rejected,) = accuracy.rejected
    assert rejected.name == "int8"
    assert rejected.loss == pytest.approx(75 - 100 * labels.count(always) / COUNT)
    assert f"int8 loses {rejected.loss:.2f} points of accuracy, more than the 5" in failure(result)
    assert "**Rejected" in (result.folder / "README.md").read_text()
    shutil.rmtree(result.folder)
    assert run_export(tmp_path, data, **options).passed  # any loss is allowed, but told


def test_several_labels_a_video(tmp_path: Path, data: Path) -> None:
    config = tiny_config(problem_type="multi_label_classification")
    write_checkpoint(tmp_path / "model", config, preprocessing=PREPROCESSING)
    several = tmp_path / "list.txt"
    clips = data.parent / "clips"
    several.write_text("".join(f"{clips}/{n}.mp4 {n % 6} {(n + 2) % 6}\n" for n in range(COUNT)))
    options = ExportOptions(str(tmp_path / "model"), output=tmp_path / "out", evaluate=several)
    accuracy = export(options).proof.accuracy
    assert accuracy is not None
    assert accuracy.measure == "mAP"
    pytorch, fp32 = accuracy.models
    assert pytorch.interval is None
    assert fp32.loss == pytest.approx(0, abs=1e-9)
    assert "| model | mAP |" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"evaluate": None, "evaluate_root": None, "max_accuracy_loss": 1},
            "`max_accuracy_loss` is for labelled videos",
        ),
        ({"evaluate": None}, "`evaluate_root` is for labelled videos"),
        ({"max_accuracy_loss": -1}, "`max_accuracy_loss` is -1"),
        ({"max_accuracy_loss": np.nan}, "`max_accuracy_loss` is nan"),
        ({"task": "feature-extraction"}, "`evaluate` needs labels"),
    ],
)
def test_options_that_contradict_each_other(
    data: Path, options: dict[str, Any], message: str
) -> None:
    given = {"evaluate": data, "evaluate_root": data.parent, **options}
    with pytest.raises(InvalidOptionError, match=message):
        ExportOptions("model", **given)


def test_data_that_is_not_there(tmp_path: Path) -> None:
    gone = tmp_path / "list.txt"
    gone.write_text("0.mp4 0\n")
    with pytest.raises(TimesformerError, match=r"none of the 1 files.*`evaluate_root`"):
        run_export(tmp_path, gone)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,label,split\n0.mp4,label 0,a\n1.mp4,label 1,b\n", "name one with split of"),
        ("0.mp4 6\n", r"a labels file \(labels of timesformer evaluate\)"),
    ],
)
def test_options_that_the_export_lacks_are_no_advice(
    tmp_path: Path, data: Path, text: str, message: str
) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text(text)
    with pytest.raises(TimesformerError, match=f"{message}.*give a list with a path and a label"):
        run_export(tmp_path, listed)


def test_wrong_labels_are_told_before_the_work(tmp_path: Path, data: Path) -> None:
    wrong = tmp_path / "list.txt"
    wrong.write_text("0.mp4 lable 0\n")
    with pytest.raises(TimesformerError, match=r"'lable 0'.*nearest are 'label 0'"):
        run_export(tmp_path, wrong)
    assert not (tmp_path / "exported").exists()
