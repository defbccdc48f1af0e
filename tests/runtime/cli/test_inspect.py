"""``timesformer inspect``: a model as its own files describe it."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper
from timesformer_runtime import TimesformerError
from timesformer_runtime.cli.inspect import inspect
from timesformer_runtime.errors import InvalidModelError
from timesformer_runtime.model.graph_facts import read_graph_facts
from timesformer_runtime.model.inspection import inspect_model

from tests.hub_server import HubServer, Repository
from tests.patience import PATIENCE
from tests.tiny_graphs import (
    FRAMES,
    LABELS,
    SIZE,
    TinyGraph,
    model_config,
    own_metadata,
    write_exported_model,
    write_sidecars,
)

CONFIG = model_config(
    attention_type="divided_space_time",
    num_hidden_layers=12,
    hidden_size=768,
    num_attention_heads=12,
    image_size=SIZE,
    patch_size=[8, 16],
)
VERSIONS = {"timesformer-onnx": "0.1.0", "torch": "2.13.0"}


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """An exported model of two variants with everything that an export states."""
    folder = tmp_path / "shots"
    metadata = own_metadata(config=CONFIG, made_with=VERSIONS, golden={"generator": "unknown"})
    del metadata["golden"]
    TinyGraph(metadata=metadata).save(folder / "onnx" / "model.onnx")
    TinyGraph(metadata=metadata | {"dtype": "int8"}).save(folder / "onnx" / "model_int8.onnx")
    write_sidecars(folder)
    return folder


def write_report(folder: Path, **entries: Any) -> None:
    size = (folder / "onnx" / "model_int8.onnx").stat().st_size
    report = {
        "verdict": "passed",
        "files": {"onnx/model_int8.onnx": {"bytes": size}},
        "fidelity": {"comparisons": [{"output": "logits", "max_abs": 1e-6, "cosine": 1.0}]},
        "variants": [{"dtype": "int8", "clips": 16, "cosine": 0.9997, "passed": True}],
        "gate": "on",
        **entries,
    }
    (folder / "export_report.json").write_text(json.dumps(report))


def shown(*arguments: object) -> str:
    done = CliRunner().invoke(inspect, [str(argument) for argument in arguments])
    assert done.exception is None, done.exception
    return done.output


def test_an_exported_model(shots: Path) -> None:
    write_report(shots)
    found = json.loads(shown(shots, "--json"))
    assert (found["dtype"], found["problem"]) == ("int8", None)
    assert found["architecture"]["attention_type"] == "divided_space_time"
    assert found["labels"] == list(LABELS)
    assert found["clip"]["num_frames"] == FRAMES
    assert found["clip"]["sampling"] == "uniform"
    assert found["preprocessing"]["crop_size"] == {"height": SIZE, "width": SIZE}
    assert found["inputs"] == [
        {
            "name": "pixel_values",
            "type": "tensor(float)",
            "shape": ["batch", FRAMES, 3, SIZE, SIZE],
        }
    ]
    assert [variant["dtype"] for variant in found["variants"]] == ["fp32", "int8"]
    for variant in found["variants"]:
        assert variant["bytes"] == (shots / "onnx" / variant["file"]).stat().st_size
    assert found["opsets"] == {"ai.onnx": 18}
    assert found["operators"]["ai.onnx"] == {"Cast": 2, "Gemm": 1, "Mul": 1, "ReduceMean": 1}
    assert found["source"]["model"] == "shots/original"
    assert found["made_with"] == VERSIONS
    assert found["checks"]["describes_this_file"]
    assert found["checks"]["gate"][0]["cosine"] == 0.9997
    assert found["not_stated"] == ["golden_check"]


def test_in_words(shots: Path) -> None:
    write_report(shots)
    lines = dict(line.split(maxsplit=1) for line in shown(shots).splitlines()[:-3])
    assert lines["architecture"].startswith("divided space-time attention, 12 layers, hidden size")
    assert "patches of [8, 16] pixels" in lines["architecture"]
    assert lines["labels"] == f"{len(LABELS)}: {', '.join(LABELS)}"
    assert lines["input"] == f"pixel_values float32 [batch, {FRAMES}, 3, {SIZE}, {SIZE}]"
    text = shown(shots)
    assert "passed against PyTorch; fp32 (max-abs 1e-06, cosine 1.00000); int8 (cosine 0.99" in text
    assert "timesformer-onnx 0.1.0, torch 2.13.0" in text


def test_both_int8_files_have_names(shots: Path) -> None:
    shutil.copy(shots / "onnx" / "model_int8.onnx", shots / "onnx" / "model_int8_avx2.onnx")
    rows = [{"dtype": "int8", "name": name, "cosine": 0.9} for name in ("int8", "int8_avx2")]
    write_report(shots, variants=rows)
    report = json.loads((shots / "export_report.json").read_text())
    report["files"]["onnx/model_int8_avx2.onnx"] = report["files"]["onnx/model_int8.onnx"]
    (shots / "export_report.json").write_text(json.dumps(report))
    variants = json.loads(shown(shots, "--json"))["variants"]
    files = {"model.onnx", "model_int8.onnx", "model_int8_avx2.onnx"}
    assert {variant["file"] for variant in variants} == files
    lines = dict(line.split(maxsplit=1) for line in shown(shots).splitlines())
    assert "int8 " in lines["variants"]
    assert "int8_avx2 " in lines["variants"]
    assert "int8 (cosine 0.90000); int8_avx2 (cosine 0.90000)" in lines["checked"]


@pytest.mark.parametrize("target", ["onnxruntime", "portable", "odd"])
def test_what_the_graph_was_made_for(target: str, tmp_path: Path) -> None:
    metadata = own_metadata(config=CONFIG) | {"target": target}
    model = TinyGraph(metadata=metadata).save(tmp_path / "m.onnx")
    lines = dict(line.split(maxsplit=1) for line in shown(model).splitlines())
    assert lines["target"].startswith(target)
    assert json.loads(shown(model, "--json"))["target"] == target


def test_one_variant(shots: Path) -> None:
    assert json.loads(shown(shots, "--json", "--dtype", "fp32"))["file"].endswith("/model.onnx")


def test_a_report_of_another_file_is_not_believed(shots: Path) -> None:
    write_report(shots, files={"onnx/model_int8.onnx": {"bytes": 1}})
    assert "export_report.json describes another file" in shown(shots)
    assert "passed against PyTorch" not in shown(shots)


def test_a_file_of_another_tool_says_what_is_not_stated(tmp_path: Path) -> None:
    model = TinyGraph(shape=("batch", "frames", 3, "height", "width")).save(tmp_path / "m.onnx")
    found = json.loads(shown(model, "--json"))
    assert set(found["not_stated"]) == {
        *("architecture", "preprocessing", "source", "made_with", "checks", "golden_check"),
        *("labels", "num_frames", "sampling"),
    }
    assert "num_frames in config.json is None" in found["problem"]
    text = shown(model)
    assert "problem" in text
    assert "cannot run here: its input" in text
    assert "not stated" in text


def test_a_producer_is_not_what_a_file_was_made_with(tmp_path: Path) -> None:
    proto = TinyGraph().proto()
    proto.producer_name, proto.producer_version = "pytorch", "2.13.0"
    onnx.save(proto, tmp_path / "m.onnx")
    lines = dict(line.split(maxsplit=1) for line in shown(tmp_path / "m.onnx").splitlines())
    assert lines["producer"] == "pytorch 2.13.0"
    assert "made" not in lines
    assert "made with" in lines["not"]


def test_a_model_that_is_no_video_model_is_described_all_the_same(tmp_path: Path) -> None:
    node = helper.make_node("Frobnicate", ["x"], ["y"], domain="com.example")
    graph = helper.make_graph(
        [node],
        "odd",
        [helper.make_tensor_value_info("x", TensorProto.INT64, [2, "n"])],
        [helper.make_tensor_value_info("y", TensorProto.BFLOAT16, None)],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.example", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), tmp_path / "odd.onnx")
    found = inspect_model(str(tmp_path / "odd.onnx"))
    assert "a video model has one, with 5 dimensions" in found["problem"]
    assert found["opsets"] == {"ai.onnx": 18, "com.example": 3}
    assert found["operators"] == {"com.example": {"Frobnicate": 1}}
    assert found["inputs"] == [{"name": "x", "type": "tensor(int64)", "shape": [2, "n"]}]
    assert found["outputs"] == [{"name": "y", "type": "tensor(bfloat16)", "shape": []}]


def test_the_facts_are_those_of_a_session(shots: Path) -> None:
    import onnxruntime  # noqa: PLC0415

    path = shots / "onnx" / "model.onnx"
    facts = read_graph_facts(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for found, expected in (
        (facts.inputs, session.get_inputs()),
        (facts.outputs, session.get_outputs()),
    ):
        assert [(t.name, t.type, list(t.shape)) for t in found] == [
            (node.name, node.type, node.shape) for node in expected
        ]
    assert facts.metadata == session.get_modelmeta().custom_metadata_map


def test_an_axis_of_size_minus_one_is_open(tmp_path: Path) -> None:
    """Some tools write an open size like this; ONNX Runtime takes it for open, too."""
    graph = TinyGraph(shape=(-1, FRAMES, 3, SIZE, SIZE), metadata=own_metadata())
    found = inspect_model(str(graph.save(tmp_path / "m.onnx")))
    assert found["inputs"][0]["shape"] == [None, FRAMES, 3, SIZE, SIZE]
    assert found["problem"] is None


def test_texts_of_strangers_do_not_reach_the_terminal(tmp_path: Path) -> None:
    strange = "\x1b[31m" + "x" * 5000
    config = {"attention_type": strange, "hidden_size": [strange] * 50, "id2label": {"0": strange}}
    metadata = own_metadata(
        config=config, made_with={strange: strange}, source={"model": strange, "revision": {}}
    )
    text = shown(TinyGraph(metadata=metadata).save(tmp_path / "strange.onnx"))
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) < 3000


def test_damaged_files_give_a_description_or_one_error(tmp_path: Path) -> None:
    chance = random.Random(0)
    sound = TinyGraph(metadata=own_metadata(config=CONFIG)).proto().SerializeToString()
    path = tmp_path / "model.onnx"
    described = 0
    for _ in range(150):
        data = bytearray(sound)
        for _ in range(chance.randint(1, 4)):
            offset = chance.randrange(len(data))
            if chance.random() < 0.6:
                data[offset] = chance.randrange(256)
            else:
                del data[offset : offset + chance.randint(1, 30)]
        path.write_bytes(data)
        done = CliRunner().invoke(inspect, [str(path)])
        described += done.exception is None
        assert done.exception is None or isinstance(done.exception, TimesformerError), data.hex()
    assert described > 0


@pytest.mark.parametrize("content", [b"", b"text", b"\x08"])
def test_files_that_are_not_models(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(InvalidModelError, match=r"m\.onnx: .*give a complete file"):
        inspect_model(str(tmp_path / "m.onnx"))


def test_numbers_that_json_cannot_write_become_null(tmp_path: Path) -> None:
    metadata = own_metadata(config='{"hidden_size": Infinity, "patch_size": [NaN, 16]}')
    found = json.loads(
        shown(TinyGraph(metadata=metadata).save(tmp_path / "m.onnx"), "--json"),
        parse_constant=pytest.fail,
    )
    assert found["architecture"] == {"hidden_size": None, "patch_size": [None, 16]}


def test_of_a_model_on_the_hub_one_variant_is_downloaded(tmp_path: Path) -> None:
    folder = write_exported_model(tmp_path / "repository", ("fp32", "int8"))
    write_report(folder)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    with HubServer({"owner/shots": Repository.of_folder(folder)}) as server:
        done = subprocess.run(
            [sys.executable, "-m", "timesformer_runtime", "inspect", "owner/shots", "--json"],
            env=inherited | server.environment(tmp_path / "home"),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        fetched = {line.rpartition("/")[2] for line in server.requests if "/resolve/" in line}
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    fp32, int8 = found["variants"]
    assert (fp32["dtype"], fp32["file"], fp32["bytes"]) == ("fp32", None, None)
    assert int8["bytes"] == (folder / "onnx" / "model_int8.onnx").stat().st_size
    assert found["checks"]["describes_this_file"]
    assert "model.onnx" not in fetched
