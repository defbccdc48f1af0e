"""Models on a real execution provider that needs no GPU: OpenVINO's.

``make check-openvino`` makes an environment with it, names the environment's interpreter in
TIMESFORMER_OPENVINO_PYTHON, and runs these tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from timesformer_exporter.export import export
from timesformer_exporter.options import ExportOptions
from timesformer_runtime import VideoClassifier

from tests.patience import PATIENCE
from tests.tiny_graphs import TinyGraph, own_metadata
from tests.tiny_models import ATTENTION_TYPES

PYTHON = os.environ.get("TIMESFORMER_OPENVINO_PYTHON")
pytestmark = pytest.mark.skipif(not PYTHON, reason="TIMESFORMER_OPENVINO_PYTHON is not set")

REPOSITORY = Path(__file__).parents[2]
MODELS = {
    kind: REPOSITORY / f"models/shot-transitions-{kind.split('_')[0]}" for kind in ATTENTION_TYPES
}
SAMPLES = REPOSITORY / "runtime/timesformer_runtime/sample_clips"
ON_OPENVINO = ("--provider", "openvino")


def timesformer(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs the command in the environment with OpenVINO, from this repository's sources."""
    assert PYTHON is not None
    return subprocess.run(
        [PYTHON, "-m", "timesformer_runtime", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY / "runtime")},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.fixture(scope="module", params=ATTENTION_TYPES)
def portable(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("portable") / "exported"
    options = ExportOptions(
        MODELS[request.param], output=output, target="portable", dtypes=("fp32", "fp16", "int8")
    )
    assert export(options).passed
    return output


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "int8"])
def test_portable_files_run_whole_and_right(portable: Path, dtype: str) -> None:
    """The golden check compares with PyTorch, and no node runs on the CPU: that were an error."""
    checked = timesformer("verify", portable, "--dtype", dtype, *ON_OPENVINO)
    assert checked.returncode == 0, checked.stderr
    clips = sorted(SAMPLES.glob("*.mp4"))
    found = timesformer(
        "classify", portable, *clips, "--dtype", dtype, *ON_OPENVINO, "--threads", 1, "--json"
    )
    assert found.returncode == 0, found.stderr
    assert f"{dtype}, device openvino, 1 thread" in found.stderr
    labels = [json.loads(line)["predictions"][0]["label"] for line in found.stdout.splitlines()]
    here = VideoClassifier.from_pretrained(portable, dtype=dtype, device="cpu")
    assert labels == [here(clip, top_k=1)[0]["label"] for clip in clips]


def test_other_files_are_refused_with_the_option_that_helps(tmp_path: Path) -> None:
    result = export(ExportOptions(MODELS["space_only"], output=tmp_path / "exported"))
    refused = timesformer("verify", result.folder, *ON_OPENVINO)
    assert refused.returncode == 2
    last = refused.stderr.splitlines()[-1]
    assert "openvino refuses it, though it loads on the CPU" in last
    assert "export it with timesformer-export --target portable" in last
    assert "Traceback" not in refused.stderr


def test_nodes_that_would_run_on_the_cpu_are_named(tmp_path: Path) -> None:
    """OpenVINO leaves an antialiased resize to the CPU."""
    path = tmp_path / "mixed.onnx"
    model = TinyGraph(metadata=own_metadata()).proto()
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.ones(2, dtype=np.float32), "as it is"))
    resize = helper.make_node(
        "Resize", ["answer", "", "as it is"], ["more"], mode="linear", antialias=1, name="its own"
    )
    last = next(node for node in graph.node if node.output[0] == "logits")
    last.input[0] = "more"
    graph.node.insert(len(graph.node) - 1, resize)
    onnx.save(model, path)

    refused = timesformer("classify", path, SAMPLES / "cut.mp4", *ON_OPENVINO)
    assert refused.returncode == 2
    assert "leaves 1 of its" in refused.stderr
    assert "Resize its own" in refused.stderr
    assert "--allow-cpu-nodes" in refused.stderr
    accepted = timesformer(
        "classify", path, SAMPLES / "cut.mp4", *ON_OPENVINO, "--allow-cpu-nodes", "--json"
    )
    assert accepted.returncode == 0, accepted.stderr
    assert "Resize its own" in accepted.stderr
    here = VideoClassifier.from_pretrained(path, device="cpu")(SAMPLES / "cut.mp4")
    found = json.loads(accepted.stdout)["predictions"]
    assert [p["label"] for p in found] == [p["label"] for p in here]
    assert [p["score"] for p in found] == pytest.approx([p["score"] for p in here], abs=1e-4)
    by_name = timesformer(
        "classify", path, SAMPLES / "cut.mp4", *ON_OPENVINO, "--provider", "cpu", "--json"
    )
    assert by_name.returncode == 0, by_name.stderr  # who names the CPU accepts its nodes


@pytest.mark.parametrize(
    ("option", "message"),
    [("device_type=NONE", "device_type='NONE'"), ("no_such_option=1", "no_such_option")],
)
def test_options_that_openvino_refuses(tmp_path: Path, option: str, message: str) -> None:
    path = TinyGraph(metadata=own_metadata()).save(tmp_path / "tiny.onnx")
    refused = timesformer(
        "classify", path, SAMPLES / "cut.mp4", *ON_OPENVINO, "--provider-option", option
    )
    assert refused.returncode == 2
    assert message in refused.stderr.splitlines()[-1]
    assert "Traceback" not in refused.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_a_process_that_is_forked_after_loading(tmp_path: Path) -> None:
    path = TinyGraph(metadata=own_metadata()).save(tmp_path / "tiny.onnx")
    program = f"""
import os, signal
from timesformer_runtime import VideoClassifier
classifier = VideoClassifier.from_pretrained({str(path)!r}, providers=["openvino"])
expected = classifier({str(SAMPLES / "cut.mp4")!r})
child = os.fork()
if not child:
    signal.alarm(60)
    os._exit(7 if classifier({str(SAMPLES / "cut.mp4")!r}) == expected else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert PYTHON is not None
    done = subprocess.run(
        [PYTHON, "-c", program],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY / "runtime")},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stdout.strip() == "7", done.stderr
