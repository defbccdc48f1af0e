"""OpenVINO on the CPU."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.worker import Run

openvino: Any = importlib.import_module("openvino")  # only in the environment of the peers


def load(model: Path, threads: int, options: Mapping[str, Any]) -> Run:
    """Loads an ``.xml`` file; ``options`` are properties of the CPU device."""
    settings = {"INFERENCE_NUM_THREADS": threads, **options}
    compiled = openvino.Core().compile_model(str(model), "CPU", settings)
    request = compiled.create_infer_request()
    return lambda clips: np.array(request.infer([clips])[0], np.float32)
