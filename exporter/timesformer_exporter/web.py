"""Makes web.json for JavaScript, whose ONNX Runtime does not show the metadata of a graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timesformer_runtime.results import Ranking

from timesformer_exporter.checkpoints import Checkpoint
from timesformer_exporter.options import Dtype, ExportOptions, Variant

WEB = "web.json"
FORMAT = "1"

# The dtypes that run on each device, the fastest first, and the feature that the device must have.
_DEVICES: Mapping[str, tuple[tuple[Dtype, str | None], ...]] = {
    "wasm": (("int8", None), ("q4", None), ("fp32", None), ("fp16", None)),
    "webgpu": (("fp16", "shader-f16"), ("fp32", None), ("q4", None)),
}


def web_description(
    folder: Path, checkpoint: Checkpoint, options: ExportOptions, golden: Mapping[str, Any]
) -> dict[str, Any]:
    """Describes an exported model as docs/reference/file-formats.md says.

    Args:
        folder: The exported model, with its graphs.
        checkpoint: The checkpoint that it was made from.
        options: The options of the export.
        golden: The golden check, as in the files' metadata.
    """
    config = checkpoint.config
    return {
        "format": FORMAT,
        "task": options.task,
        "input": options.input,
        "output": golden["output"],
        "labels": None if config.id2label is None else list(config.id2label.values()),
        # That which makes scores of logits, as in the runtime.
        "function": (
            None if config.id2label is None else Ranking().function_of(config.problem_type)
        ),
        "frame_sampling": {"method": "uniform", "num_frames": config.num_frames},
        "preprocessor_config": dict(checkpoint.preprocessing),
        "files": {dtype: _file(folder, dtype) for dtype in options.dtypes},
        "devices": {
            device: [
                {"dtype": dtype, "feature": feature}
                for dtype, feature in choices
                if dtype in options.dtypes
            ]
            for device, choices in _DEVICES.items()
        },
        "golden": dict(golden),
    }


def _file(folder: Path, dtype: Dtype) -> dict[str, Any]:
    path = folder / "onnx" / Variant(dtype, dtype).file
    return {"path": path.relative_to(folder).as_posix(), "bytes": path.stat().st_size}
