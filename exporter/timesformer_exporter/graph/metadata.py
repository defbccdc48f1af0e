"""Makes the metadata inside every ``.onnx`` file, so that the file alone can be run and checked."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import onnxruntime
from timesformer_runtime.model.golden import GENERATOR

from timesformer_exporter.checkpoints import Source
from timesformer_exporter.folder import to_json
from timesformer_exporter.model.config import TimesformerConfig

FORMAT = "1"
GOLDEN_SEED = 0
_MADE_WITH = ("timesformer-onnx", "torch", "onnx", "onnxscript")


def made_with() -> dict[str, str]:
    """The versions of the packages that take part in an export."""
    versions = {package: version(package) for package in _MADE_WITH}
    # The module onnxruntime comes from the package onnxruntime or from onnxruntime-gpu.
    return versions | {"onnxruntime": onnxruntime.__version__}


def source_dict(source: Source) -> dict[str, Any]:
    """The description of the checkpoint that the model was made from, for JSON."""
    return {
        "model": source.model,
        "revision": source.revision,
        "format": source.format,
        "files": dict(source.files),
    }


def metadata(
    *,
    config: TimesformerConfig,
    preprocessing: Mapping[str, Any],
    task: str,
    input_name: str,
    target: str,
    source: Source,
    golden: Mapping[str, Any],
) -> dict[str, str]:
    """The ``metadata_props`` of a file; all values are JSON, but for the first four."""
    return {
        "timesformer_onnx.format": FORMAT,
        "task": task,
        "input": input_name,
        "target": target,
        "config": to_json(config.to_dict()),
        "preprocessor_config": to_json(preprocessing),
        "frame_sampling": to_json({"method": "uniform", "num_frames": config.num_frames}),
        "source": to_json(source_dict(source)),
        "made_with": to_json(made_with()),
        "golden": to_json(golden),
    }


def golden_check(
    shape: tuple[int, int, int, int], output: str, values: np.ndarray[Any, Any]
) -> dict[str, Any]:
    """Describes the golden check: the frames to generate, and PyTorch's float32 output for them."""
    return {
        "generator": GENERATOR,
        "seed": GOLDEN_SEED,
        "shape": list(shape),
        "output": output,
        # JSON has no infinities; a file whose output has one fails the fidelity check anyway.
        "values": [float(value) if np.isfinite(value) else None for value in values],
    }
