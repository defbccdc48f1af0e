"""The unmodified ``tritonclient`` asks a running service, in an environment of its own.

``make check-serve`` makes that environment, because tritonclient wants other versions of packages
than the exporter.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from timesformer_exporter import ExportOptions, export
from timesformer_runtime import VideoClassifier

from tests.patience import PATIENCE
from tests.service import served

ROOT = Path(__file__).parents[2]
CLIENT = Path(__file__).with_name("triton_client.py")
VIDEO = ROOT / "runtime" / "timesformer_runtime" / "sample_clips" / "cut.mp4"
PYTHON = os.environ.get("TIMESFORMER_TRITON_PYTHON")


@pytest.mark.skipif(PYTHON is None, reason="needs TIMESFORMER_TRITON_PYTHON (make check-serve)")
def test_tritonclient(tmp_path: Path) -> None:
    assert PYTHON is not None
    model = tmp_path / "shots"
    checkpoint = ROOT / "models" / "shot-transitions-divided"
    assert export(ExportOptions(checkpoint, output=model, dtypes=("fp32",))).passed
    with VideoClassifier.from_pretrained(model, device="cpu", threads=1) as classifier:
        np.save(tmp_path / "logits.npy", classifier.logits(VIDEO))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with served(model, "--device", "cpu", "--threads", "1") as service:
        done = subprocess.run(
            [PYTHON, CLIENT, service.address, "shots", VIDEO, tmp_path / "logits.npy"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert "tritonclient agrees" in done.stdout
