"""transformers.js' q8 recipe: what its script makes of a graph with a convolution.

    python -m tests.benchmarks.transformers_js MODEL.onnx FOLDER

Every integer operator, u8 weights, one scale a tensor.
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
