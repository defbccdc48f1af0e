"""Writes our int8 graph without the export's checks: PyTorch would take minutes at large sizes.

python -m tests.benchmarks.quick_export CHECKPOINT FOLDER
"""

from __future__ import annotations

from pathlib import Path

import click
from timesformer_exporter.checkpoints import build_model, load_checkpoint
from timesformer_exporter.graph.quantize import write_variant
from timesformer_exporter.graph.trace import save_graph, trace
from timesformer_exporter.model.inference_form import InferenceForm

_TASK = "video-classification"


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
def main(checkpoint: Path, folder: Path) -> None:
    """Writes ``model_int8.onnx``."""
    loaded = load_checkpoint(str(checkpoint))
    form = InferenceForm(build_model(loaded, _TASK), _TASK, attention_operator=True)
    folder.mkdir(parents=True)
    graph = folder / "model.onnx"
    save_graph(trace(form, loaded.config).model, graph)
    write_variant(graph, folder / "model_int8.onnx", "int8")
    graph.unlink()


if __name__ == "__main__":
    main()
