"""Whole exports: the contents of an exported model, and the results of wrong input."""

from __future__ import annotations

import dataclasses
import errno
import importlib
import json
import os
import shutil
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from timesformer_exporter import (
    CheckpointNotFoundError,
    ExportOptions,
    ExportResult,
    InvalidOptionError,
    NotEnoughMemoryError,
    OutputExistsError,
    OutputWriteError,
    export,
    model_writer,
)
from timesformer_exporter.checkpoints import Checkpoint
from timesformer_exporter.folder import staging_folder
from timesformer_exporter.graph import trace as trace_module
from timesformer_exporter.model.config import TimesformerConfig
from timesformer_exporter.model.inference_form import InferenceForm
from timesformer_exporter.model.timesformer import TimesformerForVideoClassification
from timesformer_exporter.options import Dtype
from timesformer_runtime import VideoClassifier
from timesformer_runtime.input.preprocess import Preprocessing
from timesformer_runtime.model.golden import golden_frames

from tests.tiny_models import ATTENTION_TYPES, random_model, tiny_config, write_checkpoint

# The package's `export` is the function.
EXPORT_MODULE = importlib.import_module("timesformer_exporter.export")
PREPROCESSING = Preprocessing(
    size=32, crop_size=(32, 32), image_mean=(0.4, 0.45, 0.5), image_std=(0.2, 0.25, 0.3)
).to_dict()


def _export(tmp_path: Path, config: TimesformerConfig, **options: Any) -> ExportResult:
    model = tmp_path / "model"
    write_checkpoint(model, config, preprocessing=PREPROCESSING)
    return export(ExportOptions(str(model), output=tmp_path / "exported", **options))


def _session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
def test_one_file_copied_away_tells_all_and_answers_its_golden_check(
    attention_type: str, tmp_path: Path
) -> None:
    config = tiny_config(attention_type, problem_type="multi_label_classification")
    result = _export(tmp_path, config)
    assert result.passed
    alone = tmp_path / "device" / "m.onnx"
    alone.parent.mkdir()
    shutil.copy(result.folder / "onnx" / "model.onnx", alone)

    session = _session(alone)
    metadata = session.get_modelmeta().custom_metadata_map
    assert TimesformerConfig.from_dict(json.loads(metadata["config"])) == config
    assert json.loads(metadata["preprocessor_config"]) == PREPROCESSING
    assert json.loads(metadata["frame_sampling"]) == {"method": "uniform", "num_frames": 3}
    assert (metadata["task"], metadata["input"]) == ("video-classification", "pixel_values")
    assert metadata["timesformer_onnx.format"] == "1"
    assert json.loads(metadata["source"])["model"] == "model"
    assert len(json.loads(metadata["source"])["files"]["model.safetensors"]) == 64
    # Which leaves out "+cu130" where the package does.
    assert json.loads(metadata["made_with"])["torch"] == version("torch")

    golden = json.loads(metadata["golden"])
    frames = golden_frames(golden["seed"], golden["shape"])
    pixel_values = Preprocessing.from_dict(PREPROCESSING)(frames)[None]
    with torch.no_grad():
        expected = random_model(config)(torch.from_numpy(pixel_values)).numpy()[0]
    np.testing.assert_allclose(golden["values"], expected, rtol=0, atol=1e-6)
    (found,) = session.run(["logits"], {"pixel_values": pixel_values})
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-5)


def test_the_files_of_an_exported_model(tmp_path: Path) -> None:
    config = tiny_config()
    result = _export(tmp_path, config)
    assert result.folder == tmp_path / "exported"
    assert set(result.files) == {
        "config.json",
        "preprocessor_config.json",
        "export_report.json",
        "README.md",
        "onnx/model.onnx",
    }
    for name, size in result.files.items():
        assert (result.folder / name).stat().st_size == size
    written = json.loads((result.folder / "config.json").read_text())
    assert TimesformerConfig.from_dict(written) == config
    report = json.loads((result.folder / "export_report.json").read_text())
    assert report["verdict"] == "passed"
    rows = report["fidelity"]["comparisons"]
    assert [row["batch"] for row in rows] == [1, 2, 3, 5]
    assert all(row["passed"] and row["max_abs"] <= row["limit"] for row in rows)
    assert report["options"]["opset"] == 23
    assert report["multiply_adds"]["exported"] < report["multiply_adds"]["original"]
    assert set(report["seconds"]) == {"load", "pytorch", "trace", "write", "check"}
    card = (result.folder / "README.md").read_text()
    assert card.startswith("---\n")
    assert "timesformer classify exported video.mp4" in card
    assert "divided space-time attention" in card
    # The files name no path of this machine.
    for path in result.folder.rglob("*"):
        assert path.is_dir() or str(tmp_path).encode() not in path.read_bytes(), path


def test_features_with_hidden_states_and_attentions(tmp_path: Path) -> None:
    result = _export(
        tmp_path,
        tiny_config(),
        task="feature-extraction",
        output_hidden_states=True,
        output_attentions=True,
    )
    assert result.passed
    session = _session(result.folder / "onnx" / "model.onnx")
    shapes = {output.name: output.shape[1:] for output in session.get_outputs()}
    assert shapes["last_hidden_state"] == [13, 32]
    assert shapes["features"] == [32]
    assert {f"hidden_states.{i}" for i in range(3)} <= shapes.keys()
    assert shapes["spatial_attentions.1"] == [4, 5, 5]
    assert shapes["temporal_attentions.0"] == [4, 3, 3]
    compared = {comparison.output for comparison in result.proof.fidelity.comparisons}
    assert compared == shapes.keys()
    golden = json.loads(session.get_modelmeta().custom_metadata_map["golden"])
    assert golden["output"] == "features"
    assert len(golden["values"]) == 32


def test_frames_input_is_checked_on_resized_frames_too(tmp_path: Path) -> None:
    result = _export(tmp_path, tiny_config("joint_space_time"), input="frames")
    assert result.passed
    (graph_input,) = _session(result.folder / "onnx" / "model.onnx").get_inputs()
    assert (graph_input.name, graph_input.type) == ("frames", "tensor(uint8)")
    assert graph_input.shape == ["batch", 3, "height", "width", 3]
    assert [c.clips for c in result.proof.fidelity.comparisons].count("resized") == 1


def test_other_frames_and_size_are_those_of_the_resized_model(tmp_path: Path) -> None:
    config = tiny_config()
    result = _export(tmp_path, config, num_frames=5, image_size=(48, 32))
    assert result.passed
    session = _session(result.folder / "onnx" / "model.onnx")
    assert session.get_inputs()[0].shape == ["batch", 5, 3, 48, 32]
    written = TimesformerConfig.from_dict(json.loads((result.folder / "config.json").read_text()))
    assert written == dataclasses.replace(config, num_frames=5, image_size=(48, 32))
    clips = torch.randn(2, 5, 3, 48, 32)
    with torch.no_grad():
        expected = random_model(config)(clips).numpy()
    (found,) = session.run(["logits"], {"pixel_values": clips.numpy()})
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_weights_over_two_gigabytes_go_beside_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_module, "_LARGEST_SINGLE_FILE", 1000)
    result = _export(tmp_path, tiny_config("space_only"))
    assert result.passed
    assert result.files["onnx/model.onnx.data"] > 100_000 > result.files["onnx/model.onnx"]


def test_variants_of_weights_over_two_gigabytes_are_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_module, "_LARGEST_SINGLE_FILE", 1000)
    said = r"model: its weights take 0\.0 GB .*; give `dtypes=fp32` alone"
    told: list[str] = []
    write_checkpoint(tmp_path / "model", tiny_config("space_only"), preprocessing=PREPROCESSING)
    for dtypes in (("int8",), ("fp32", "q4"), ("fp16",)):
        options = ExportOptions(str(tmp_path / "model"), tmp_path / "exported", dtypes=dtypes)
        with pytest.raises(InvalidOptionError, match=said):
            export(options, told.append)
    assert {line.split()[0] for line in told} == {"Loading"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


class _SlightlyWrong(InferenceForm):
    def __init__(
        self, model: TimesformerForVideoClassification, *arguments: Any, **options: Any
    ) -> None:
        super().__init__(model, *arguments, **options)
        with torch.no_grad():
            self.layernorm.bias[0] += 0.01


def test_a_wrong_graph_is_rejected_and_the_old_one_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = _export(tmp_path, tiny_config("space_only"))
    before = (good.folder / "onnx" / "model.onnx").read_bytes()
    monkeypatch.setattr(model_writer, "InferenceForm", _SlightlyWrong)
    for _ in range(2):  # a second rejection replaces the first
        rejected = _export(tmp_path, tiny_config("space_only"), force=True)
        assert not rejected.passed
        assert rejected.folder == tmp_path / "exported.rejected"
        assert (rejected.folder / "onnx" / "model.onnx.rejected").is_file()
        assert not list(rejected.folder.rglob("*.onnx"))
        report = json.loads((rejected.folder / "export_report.json").read_text())
        assert report["verdict"] == "failed"
        assert report["fidelity"]["passed"] is False
    assert (good.folder / "onnx" / "model.onnx").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"exported", "exported.rejected", "model"}


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", "model.onnx")

    monkeypatch.setattr(model_writer, "write_json", full)
    with pytest.raises(OSError, match="No space left"):
        _export(tmp_path, tiny_config("space_only"))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("limit", [1000, 100_000])
def test_a_full_disk_is_named(
    limit: int, tmp_path: Path, limit_files: Callable[[int], AbstractContextManager[None]]
) -> None:
    write_checkpoint(tmp_path / "model", tiny_config("space_only"), preprocessing=PREPROCESSING)
    options = ExportOptions(str(tmp_path / "model"), output=tmp_path / "exported", dtypes=("int8",))
    with limit_files(limit), pytest.raises(OutputWriteError) as caught:
        export(options)
    assert caught.value.path == tmp_path / "exported" / "onnx" / "model.onnx"
    assert os.strerror(errno.EFBIG) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("module", "step", "said"),
    [
        (
            EXPORT_MODULE,
            "load_checkpoint",
            "the weights of .*model; check that its files are whole",
        ),
        (
            model_writer,
            "trace",
            "the model; give a smaller `num_frames` or `image_size`, or fewer outputs",
        ),
    ],
)
@pytest.mark.parametrize("greedy", [lambda: bytearray(1 << 60), lambda: torch.empty(1 << 60)])
def test_too_little_memory_says_for_what(
    module: ModuleType,
    step: str,
    said: str,
    greedy: Callable[[], object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, step, lambda *_arguments, **_options: greedy())
    with pytest.raises(NotEnoughMemoryError, match=f"there is not enough memory for {said}"):
        _export(tmp_path, tiny_config("space_only"))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_tensors_of_the_checkpoint_are_not_kept_beside_the_models_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []
    load = EXPORT_MODULE.load_checkpoint

    def loaded(*arguments: Any, **options: Any) -> Checkpoint:
        checkpoint: Checkpoint = load(*arguments, **options)
        tensors.extend(map(weakref.ref, checkpoint.state_dict.values()))
        return checkpoint

    def traced(*arguments: Any, **options: Any) -> torch.onnx.ONNXProgram:
        alive.append(sum(tensor() is not None for tensor in tensors))
        program: torch.onnx.ONNXProgram = trace_module.trace(*arguments, **options)
        return program

    monkeypatch.setattr(EXPORT_MODULE, "load_checkpoint", loaded)
    monkeypatch.setattr(model_writer, "trace", traced)
    assert _export(tmp_path, tiny_config("space_only")).passed
    assert tensors
    assert alive == [0]


def test_what_a_killed_export_left_goes_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    for name in (".exported.partial-deadbeef", ".exported.rejected.replaced-deadbeef"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.onnx").touch()
    with staging_folder(tmp_path / "exported") as living:
        result = _export(tmp_path, tiny_config("space_only"))
        assert {path.name for path in tmp_path.iterdir()} == {"model", "exported", living.name}
    assert result.passed


def test_an_earlier_export_that_was_being_replaced_returns_and_is_not_overwritten(
    tmp_path: Path,
) -> None:
    good = _export(tmp_path, tiny_config("space_only"))
    (tmp_path / ".exported.replaced-deadbeef").mkdir()
    good.folder.rename(tmp_path / ".exported.replaced-deadbeef" / "exported")
    told: list[str] = []
    with pytest.raises(OutputExistsError, match="exported exists"):
        export(ExportOptions(str(tmp_path / "model"), output=good.folder), tell=told.append)
    assert "was restored" in told[0]
    assert {path.name for path in tmp_path.iterdir()} == {"model", "exported"}
    assert (good.folder / "onnx" / "model.onnx").is_file()


def test_a_file_in_an_earlier_export_is_not_deleted(tmp_path: Path) -> None:
    good = _export(tmp_path, tiny_config("space_only"), dtypes=("fp32", "fp16"))
    again = _export(tmp_path, tiny_config("space_only"), force=True)
    assert set(again.files) == set(good.files) - {"onnx/model_fp16.onnx"}
    clip = good.folder / "onnx" / "clip.mp4"
    clip.touch()
    with pytest.raises(OutputExistsError, match=r"it holds onnx/clip\.mp4"):
        _export(tmp_path, tiny_config("space_only"), force=True)
    assert clip.exists()


def test_labels_and_names_that_are_not_text(tmp_path: Path) -> None:
    """Lone surrogates: Python makes them of a Latin-1 name on a UTF-8 system, JSON of an escape."""
    model = tmp_path / "model"
    config = tiny_config("space_only", id2label={i: f"caf\u00e9 {i}" for i in range(6)})
    write_checkpoint(model, config, preprocessing=PREPROCESSING)
    weights = model / os.fsdecode(b"m\xe9.bin")
    torch.save(random_model(config).state_dict(), weights)
    result = export(ExportOptions(str(weights), output=tmp_path / "exported"))
    assert result.passed
    metadata = _session(result.folder / "onnx" / "model.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(metadata["config"])["id2label"]["3"] == "caf\u00e9 3"
    for name in ("export_report.json", "README.md"):
        text = (result.folder / name).read_bytes().decode("utf-8")
        assert "\\udce9" in text


def test_an_output_that_onnx_runtime_cannot_open(tmp_path: Path) -> None:
    output = tmp_path / os.fsdecode(b"caf\xe9-onnx")
    with pytest.raises(InvalidOptionError, match="only paths in UTF-8; give another name"):
        export(ExportOptions("no/such-model", output=output))


@pytest.mark.parametrize("inner", [".", "weights"])
def test_the_output_never_replaces_what_it_is_made_from(inner: str, tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "export_report.json").touch()
    model = tmp_path / "repository" / inner
    model.mkdir(exist_ok=True)
    options = ExportOptions(str(model), output=tmp_path / "repository", force=True)
    expected = InvalidOptionError if inner == "." else OutputExistsError
    with pytest.raises(expected):
        export(options)
    assert model.is_dir()


def test_names_that_are_too_long(tmp_path: Path) -> None:
    long = "x" * 300
    with pytest.raises(CheckpointNotFoundError, match="x cannot be read"):
        export(ExportOptions(long, output=tmp_path / "exported"))
    assert ExportOptions(long).folder == Path(f"{long}-onnx")
    with pytest.raises(InvalidOptionError, match=r"`labels` x+ cannot be read"):
        _export(tmp_path, tiny_config("space_only"), labels=Path(long))
    options = ExportOptions(str(tmp_path / "model"), output=tmp_path / long)
    with pytest.raises(OutputWriteError, match="; give a shorter name"):
        export(options)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_existing_output_stops_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "exported").mkdir()
    with pytest.raises(OutputExistsError, match="give `force` to replace it"):
        export(ExportOptions("no/such-model", output=tmp_path / "exported"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": "segmentation"}, "`task` is 'segmentation'; it must be one of"),
        ({"input": "video"}, "`input` is 'video'; it must be one of pixel_values, frames"),
        ({"opset": 17}, "`opset` is 17; it must be from 18 to 23"),
        ({"target": "gpu"}, "`target` is 'gpu'; it must be one of onnxruntime, portable"),
        ({"target": "portable", "opset": 23}, "`opset` is 23; for `target=portable` .* 18 to 22"),
        ({"target": "portable", "input": "frames"}, "use `input=pixel_values`"),
        ({"target": "portable", "web": True}, "leave `web` out, and use `input=pixel_values`"),
        ({"dtypes": ("int8", "int8")}, "`dtypes` is .* each only once"),
        ({"dtypes": ("int4",)}, "`dtypes` is 'int4'; it must be one of fp32, int8, fp16, q4"),
        ({"dtypes": "int8"}, r"`dtypes` is 'int8'; give a tuple, such as \('int8',\)"),
        (
            {"dtypes": ("int8",), "calibration_videos": Path("clips")},
            r"`calibration_videos` is 'clips'; give a tuple, such as \('clips',\)",
        ),
        ({"target": "portable", "dtypes": ("fp32", "q4")}, "leave q4 out of `dtypes`"),
        ({"atol": float("nan")}, "`atol` is nan; it must be a number of at least 0"),
        ({"model": ""}, "model is empty"),
        ({"model": None}, "model is a NoneType; give a Hub id, a folder or a checkpoint file"),
        (
            {"push_to_hub": "model"},
            "`push_to_hub` is 'model'; it must be a name on the Hub such",
        ),
        ({"push_to_hub": "a/b/c"}, "`push_to_hub` is 'a/b/c'"),
        ({"push_to_hub": "me/" + "x" * 94}, "at most 96 in all"),
        ({"push_to_hub": "me/a", "local_files_only": True}, "needs the network"),
        ({"private": True}, "`private` is for an upload; give `push_to_hub` too"),
        ({"push_revision": "v2"}, "`push_revision` is for an upload"),
    ],
)
def test_options_that_are_not_allowed(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        ExportOptions(**({"model": "model"} | fields))


def test_the_default_folder_is_named_after_the_model(tmp_path: Path) -> None:
    (tmp_path / "weights.pyth").touch()
    (tmp_path / "folder").mkdir()
    assert ExportOptions("facebook/timesformer-base-finetuned-k400").folder == Path(
        "timesformer-base-finetuned-k400-onnx"
    )
    assert ExportOptions(str(tmp_path / "weights.pyth")).folder == Path("weights-onnx")
    assert ExportOptions(str(tmp_path / "folder")).folder == Path("folder-onnx")


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
def test_explain_adds_rollout_to_every_variant_and_changes_no_logit(
    attention_type: str, tmp_path: Path
) -> None:
    dtypes: tuple[Dtype, ...] = ("fp32", "int8", "fp16", "q4")
    config = tiny_config(attention_type)
    plain = _export(tmp_path, config, dtypes=dtypes, gate=False)
    explained = export(
        ExportOptions(
            str(tmp_path / "model"),
            output=tmp_path / "explained",
            dtypes=dtypes,
            gate=False,
            explain=True,
        )
    )
    assert explained.passed
    compared = {comparison.output for comparison in explained.proof.fidelity.comparisons}
    assert compared == {"logits", "attention_rollout"}
    frames = golden_frames(3, (3, 32, 32, 3))
    for dtype in dtypes:
        classifiers = [
            VideoClassifier.from_pretrained(result.folder, dtype=dtype, device="cpu")
            for result in (plain, explained)
        ]
        logits, others = (classifier.logits(frames) for classifier in classifiers)
        # Where the CPU has no kernel for fp16, ONNX Runtime computes in float32, and rounds at
        # other places in another graph.
        atol = 0.01 * np.abs(logits).max() if dtype == "fp16" else 0
        np.testing.assert_allclose(others, logits, rtol=0, atol=atol)
        check = classifiers[1].verify()
        assert check.rollout is not None
        assert check.rollout.output == "attention_rollout"
    for variant in explained.proof.variants:
        assert variant.rollout is not None
        assert variant.rollout > 0.9


@pytest.mark.parametrize(
    "options",
    [{"target": "portable"}, {"input": "frames"}, {"task": "feature-extraction"}],
    ids=str,
)
def test_explain_goes_with_other_options(options: dict[str, Any], tmp_path: Path) -> None:
    result = _export(tmp_path, tiny_config(), explain=True, rollout_heads="max", **options)
    assert result.passed
    classifier = VideoClassifier.from_pretrained(result.folder, device="cpu")
    check = classifier.verify()
    assert check.passed
    assert check.rollout is not None


def test_verify_fails_where_only_the_rollout_differs(tmp_path: Path) -> None:
    result = _export(tmp_path, tiny_config(), explain=True)
    path = result.folder / "onnx" / "model.onnx"
    model = onnx.load(path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    golden = json.loads(metadata["golden_rollout"])
    golden["values"] = golden["values"][::-1]
    onnx.helper.set_model_props(model, metadata | {"golden_rollout": json.dumps(golden)})
    onnx.save(model, path)
    check = VideoClassifier.from_pretrained(result.folder, device="cpu").verify()
    assert not check.passed
    assert check.rollout is not None
    assert not check.rollout.passed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rollout_residual": 0.3}, "is for `explain`"),
        ({"rollout_heads": "max"}, "is for `explain`"),
        ({"explain": True, "output_attentions": True}, "cannot go with `output_attentions`"),
        ({"explain": True, "rollout_residual": 1.0}, "from 0 to below 1"),
        ({"explain": True, "rollout_residual": True}, "from 0 to below 1"),
        ({"explain": True, "rollout_heads": "median"}, "one of mean, max, min"),
    ],
)
def test_wrong_options_of_explain(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        ExportOptions("model", **options)
