"""Writes our int8 graphs without the export's checks: PyTorch would take minutes at large sizes.

python -m tests.benchmarks.quick_export CHECKPOINT FOLDER
"""

from __future__ import annotations

from pathlib import Path

import click
from timesformer_exporter.checkpoints import build_model, load_checkpoint
from timesformer_exporter.graph.quantize import write_variant
from timesformer_exporter.graph.trace import save_graph, trace
from timesformer_exporter.model.inference_form import InferenceForm
from timesformer_runtime.model.locate import DTYPES, INT8_OF_7_BITS

_TASK = "video-classification"


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
def main(checkpoint: Path, folder: Path) -> None:
    """Writes an int8 graph for each kind of processors; weights of 7 bits are just rounded."""
    loaded = load_checkpoint(str(checkpoint))
    form = InferenceForm(build_model(loaded, _TASK), _TASK, attention_operator=True)
    folder.mkdir(parents=True)
    graph = folder / "model.onnx"
    save_graph(trace(form, loaded.config).model, graph)
    write_variant(graph, folder / DTYPES["int8"], "int8")
    write_variant(graph, folder / INT8_OF_7_BITS, "int8", int8_target="avx2")
    graph.unlink()


if __name__ == "__main__":
    main()
