"""The contents of export_report.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from timesformer_exporter.checkpoints import Checkpoint
from timesformer_exporter.checkpoints.files import sha256
from timesformer_exporter.graph.integer_products import IntegerProducts
from timesformer_exporter.graph.metadata import made_with, source_dict
from timesformer_exporter.graph.multiply_adds import MultiplyAdds
from timesformer_exporter.options import ExportOptions
from timesformer_exporter.proof.checks import Proof
from timesformer_exporter.web import WEB

# Options that the report leaves out: paths on this machine, which are private, and those that the
# entry "source" already has.
_NOT_REPORTED = (
    "model",
    "output",
    "revision",
    "local_files_only",
    "labels",
    "calibration_videos",
    "force",
    "push_to_hub",
    "private",
    "push_revision",
    "evaluate",
    "evaluate_root",
)


def export_report(
    folder: Path,
    checkpoint: Checkpoint,
    options: ExportOptions,
    *,
    proof: Proof,
    multiply_adds: MultiplyAdds,
    calibration: Mapping[str, Any] | None,
    integer_products: IntegerProducts | None,
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Makes the report of an export: source, options, comparison with PyTorch, and versions.

    Args:
        folder: The folder with the graphs.
        checkpoint: The exported checkpoint, with all notes on what was assumed and left out.
        options: The options of the export.
        proof: How the files compare with PyTorch.
        multiply_adds: Multiply-adds for one clip.
        calibration: How the model was calibrated; None where it was not.
        integer_products: The matrix products that the int8 file computes in integers; None
            without an int8 file.
        seconds: The time that each step took.
    """
    return {
        "verdict": "passed" if proof.passed else "failed",
        "source": source_dict(checkpoint.source),
        "options": {
            key: value
            for key, value in dataclasses.asdict(options).items()
            if key not in _NOT_REPORTED
        }
        | {"opset": options.operator_set},
        "notes": list(checkpoint.notes),
        "files": {
            file.relative_to(folder).as_posix(): {
                "bytes": file.stat().st_size,
                "sha256": sha256(file),
            }
            for file in (*sorted((folder / "onnx").iterdir()), *folder.glob(WEB))
        },
        **proof.to_dict(),
        "multiply_adds": dataclasses.asdict(multiply_adds),
        "calibration": calibration,
        "integer_products": None if integer_products is None else integer_products.to_dict(),
        "made_with": made_with(),
        "threads": torch.get_num_threads(),
        "seconds": dict(seconds),
    }
