"""An exported model, run where only the runtime's dependencies are installed.

``make test`` makes that environment and names its interpreter in TIMESFORMER_RUNTIME_PYTHON.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from timesformer_exporter.export import export
from timesformer_exporter.options import ExportOptions
from timesformer_runtime.input.preprocess import Preprocessing

from tests.patience import PATIENCE
from tests.tiny_models import ATTENTION_TYPES, tiny_config, write_checkpoint
from tests.video_files import decode_plainly, moving_pictures, write_video

PYTHON = os.environ.get("TIMESFORMER_RUNTIME_PYTHON")
pytestmark = pytest.mark.skipif(not PYTHON, reason="TIMESFORMER_RUNTIME_PYTHON is not set")


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert PYTHON is not None
    return subprocess.run(
        [PYTHON, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def test_the_environment_has_no_torch() -> None:
    program = (
        "import importlib.util as u\n"
        "names = ('torch', 'onnx', 'onnxscript', 'transformers', 'safetensors', 'PIL')\n"
        "print([name for name in names if u.find_spec(name)])\n"
    )
    assert _run("-c", program).stdout.strip() == "[]"


def test_the_exporter_says_what_to_install_there() -> None:
    done = _run("-m", "timesformer_exporter", "--model", "x")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "timesformer-export: the exporter needs torch, onnx, onnxscript, safetensors; "
        'install it with: pip install "timesformer-onnx[export]"'
    ]


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
def test_an_exported_model_classifies_a_video_there_as_pytorch_does_here(
    attention_type: str, tmp_path: Path
) -> None:
    preprocessing = Preprocessing(size=32, crop_size=(32, 32))
    model = write_checkpoint(
        tmp_path / "model", tiny_config(attention_type), preprocessing=preprocessing.to_dict()
    )
    result = export(ExportOptions(str(tmp_path / "model"), output=tmp_path / "exported"))
    assert result.passed
    video = write_video(tmp_path / "clip.mp4", moving_pictures(20))
    done = _run("-m", "timesformer_runtime", "classify", str(result.folder), str(video), "--json")
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)

    frames = np.stack(decode_plainly(video))
    indices = np.linspace(0, len(frames) - 1, 3).astype(int)
    assert row["frames"]["indices"] == indices.tolist()
    with torch.no_grad():
        logits = model(torch.from_numpy(preprocessing(frames[indices])[None]))[0]
    scores = logits.softmax(0)
    best = scores.argsort(descending=True)[:5]
    assert [p["label"] for p in row["predictions"]] == [f"label {i}" for i in best.tolist()]
    np.testing.assert_allclose(
        [p["score"] for p in row["predictions"]], scores[best].numpy(), rtol=1e-4
    )
