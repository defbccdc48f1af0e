"""Quantizes a graph as transformers.js' script does for q8.

    python -m tests.benchmarks.transformers_js MODEL.onnx FOLDER

The script takes every operator that has an integer form, the convolution of the patches included,
with u8 weights and one scale for each tensor.
"""

from __future__ import annotations

from pathlib import Path

import click
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.registry import IntegerOpsRegistry


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
def main(model: Path, folder: Path) -> None:
    """Writes ``model_q8.onnx``."""
    folder.mkdir(parents=True, exist_ok=True)
    quantize_dynamic(
        model,
        folder / "model_q8.onnx",
        op_types_to_quantize=list(IntegerOpsRegistry),
        weight_type=QuantType.QUInt8,
        extra_options={"EnableSubgraph": True, "MatMulConstBOnly": True},
    )


if __name__ == "__main__":
    main()
