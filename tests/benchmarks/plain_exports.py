"""Exports transformers' model without this project: torch.onnx.export, and its int8.

    python -m tests.benchmarks.plain_exports CHECKPOINT FOLDER

writes into FOLDER

- ``model.onnx``: ``torch.onnx.export`` with a dynamic batch,
- ``model_static.onnx``: ``torch.onnx.export`` for a batch of one only,
- ``model_int8.onnx``, ``model_static_int8.onnx``: ``quantize_dynamic`` of the matrix products, u8
  activations and s8 weights per channel: ONNX Runtime's fast recipe.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import TimesformerForVideoClassification


class _Logits(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> Any:
        return self.model(pixel_values).logits


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
def main(checkpoint: Path, folder: Path) -> None:
    """Writes the graphs."""
    folder.mkdir(parents=True, exist_ok=True)
    _export(checkpoint, folder / "model.onnx", dynamic=True)
    _export(checkpoint, folder / "model_static.onnx", dynamic=False)
    for name in ("model", "model_static"):
        quantize_dynamic(
            folder / f"{name}.onnx",
            folder / f"{name}_int8.onnx",
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
    (folder / "model_static.onnx").unlink()


def _export(checkpoint: Path, path: Path, *, dynamic: bool) -> None:
    model = TimesformerForVideoClassification.from_pretrained(checkpoint).eval()
    config = model.config
    sides = (config.num_channels, config.image_size, config.image_size)
    example = torch.zeros(2 if dynamic else 1, config.num_frames, *sides)
    program = torch.onnx.export(
        _Logits(model),
        (example,),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},) if dynamic else None,
        input_names=["pixel_values"],
        output_names=["logits"],
        verbose=False,
    )
    assert program is not None
    # torch keeps a stack trace at every node. The other competitors' files have none.
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()
    program.save(path, external_data=False)
    # quantize_dynamic transposes some weights; its shape inference would then use the old shapes.
    graph = onnx.load(path)
    weights = {tensor.name for tensor in graph.graph.initializer}
    kept = [value for value in graph.graph.value_info if value.name not in weights]
    del graph.graph.value_info[:]
    graph.graph.value_info.extend(kept)
    onnx.save(graph, path)


if __name__ == "__main__":
    main()
