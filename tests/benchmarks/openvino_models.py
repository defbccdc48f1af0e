"""Makes OpenVINO models of an ONNX file: in float32, and in int8 by NNCF.

    python -m tests.benchmarks.openvino_models MODEL.onnx CLIPS.npy FOLDER

Runs where OpenVINO and NNCF are installed; nothing else is needed there.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    """Writes ``model.xml`` and ``model_int8.xml``."""
    parser = argparse.ArgumentParser()
    for name in ("model", "clips", "folder"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    openvino: Any = importlib.import_module("openvino")
    nncf: Any = importlib.import_module("nncf")
    clips = np.load(arguments.clips)
    model = openvino.convert_model(arguments.model)
    model.reshape([-1, *clips.shape[1:]])
    openvino.save_model(model, arguments.folder / "model.xml", compress_to_fp16=False)
    quantized = nncf.quantize(
        model,
        nncf.Dataset(list(clips), lambda clip: clip[None]),
        subset_size=len(clips),
        model_type=nncf.ModelType.TRANSFORMER,
    )
    openvino.save_model(quantized, arguments.folder / "model_int8.xml", compress_to_fp16=False)


if __name__ == "__main__":
    main()
