"""The file web.json of exports for JavaScript."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from timesformer_exporter import (
    ExportOptions,
    ExportResult,
    InvalidOptionError,
    export,
    model_writer,
)
from timesformer_exporter.cli import command
from timesformer_exporter.proof.checks import check_graph
from timesformer_runtime.input.preprocess import Preprocessing

from tests.tiny_models import tiny_config, write_checkpoint

PREPROCESSING = Preprocessing(size=32, crop_size=(32, 32)).to_dict()


def _export(folder: Path, **options: Any) -> ExportResult:
    write_checkpoint(folder / "model", tiny_config(), preprocessing=PREPROCESSING)
    return export(ExportOptions(folder / "model", output=folder / "exported", **options))


def _web(result: ExportResult) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((result.folder / "web.json").read_text(encoding="utf-8"))
    return values


def test_web_json_has_what_javascript_cannot_read(tmp_path: Path) -> None:
    result = _export(tmp_path, web=True, gate=False)
    web = _web(result)
    path = result.folder / web["files"]["int8"]["path"]
    assert path.stat().st_size == web["files"]["int8"]["bytes"]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    for key in ("frame_sampling", "preprocessor_config", "golden"):
        assert web[key] == json.loads(metadata[key])
    assert (web["format"], web["task"], web["input"]) == ("1", metadata["task"], "frames")
    assert web["output"] == session.get_outputs()[0].name
    assert web["labels"] == [f"label {i}" for i in range(6)]
    assert {*web["files"]} == {"int8", "fp16"}
    assert web["devices"]["wasm"][0] == {"dtype": "int8", "feature": None}
    assert web["devices"]["webgpu"] == [{"dtype": "fp16", "feature": "shader-f16"}]


@pytest.mark.parametrize(
    ("problem_type", "function"),
    [
        (None, "softmax"),
        ("single_label_classification", "softmax"),
        ("multi_label_classification", "sigmoid"),
        ("regression", "none"),
    ],
)
def test_web_json_names_what_makes_scores_of_logits(
    problem_type: str | None, function: str, tmp_path: Path
) -> None:
    config = dataclasses.replace(tiny_config(), problem_type=problem_type)
    write_checkpoint(tmp_path / "model", config, preprocessing=PREPROCESSING)
    output = tmp_path / "exported"
    web = _web(export(ExportOptions(tmp_path / "model", output=output, web=True, dtypes=("fp32",))))
    assert web["function"] == function


def test_web_json_lists_only_exported_files(tmp_path: Path) -> None:
    result = _export(tmp_path, web=True, dtypes=("fp32",), task="feature-extraction")
    web = _web(result)
    assert {*web["files"]} == {"fp32"}
    only = [{"dtype": "fp32", "feature": None}]
    assert web["devices"] == {"wasm": only, "webgpu": only}
    assert (web["labels"], web["function"], web["output"]) == (None, None, "features")


def test_an_upload_and_the_next_export_take_web_json_along(tmp_path: Path) -> None:
    """The report lists the file: an export without it then removes it here and on the Hub."""
    result = _export(tmp_path, web=True, dtypes=("fp32",))
    report = json.loads((result.folder / "export_report.json").read_text(encoding="utf-8"))
    digest = hashlib.sha256((result.folder / "web.json").read_bytes()).hexdigest()
    assert report["files"]["web.json"]["sha256"] == digest
    assert "web.json" in result.files
    again = _export(tmp_path, dtypes=("fp32",), force=True)
    assert "web.json" not in again.files


def test_a_rejected_export_has_no_web_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*arguments: Any) -> Any:
        fidelity = check_graph(*arguments)
        first, *others = fidelity.comparisons
        wrong = dataclasses.replace(first, max_abs=first.limit + 1)
        return dataclasses.replace(fidelity, comparisons=(wrong, *others))

    monkeypatch.setattr(model_writer, "check_graph", failing)
    result = _export(tmp_path, web=True, dtypes=("fp32",))
    assert not result.passed
    assert "web.json" not in result.files


def test_web_chooses_what_is_left_out() -> None:
    plain, web = ExportOptions("model"), ExportOptions("model", web=True)
    assert (plain.input, plain.dtypes) == ("pixel_values", ("fp32",))
    assert (web.input, web.dtypes) == ("frames", ("int8", "fp16"))
    assert ExportOptions("model", web=True, dtypes=("q4",)).dtypes == ("q4",)
    with pytest.raises(InvalidOptionError, match="`web` needs `input=frames`, not `input=pixel"):
        ExportOptions("model", web=True, input="pixel_values")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ("pixel_values", ("fp32",))),
        (["--web"], ("frames", ("int8", "fp16"))),
        (["--web", "--dtype", "q4"], ("frames", ("q4",))),
        (["--input", "frames"], ("frames", ("fp32",))),
    ],
)
def test_the_command_chooses_the_same(
    arguments: list[str], expected: tuple[str, tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[ExportOptions] = []

    def stop(options: ExportOptions, *_: Any) -> ExportResult:
        seen.append(options)
        raise InvalidOptionError("stop")

    monkeypatch.setattr("timesformer_exporter.export", stop)
    with pytest.raises(InvalidOptionError, match="stop"):
        command.main(["--model", "x", *arguments], standalone_mode=False)
    assert (seen[0].input, seen[0].dtypes) == expected
