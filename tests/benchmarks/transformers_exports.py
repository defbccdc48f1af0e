"""Writes transformers.exporters' int8 graphs, dynamic and static, with its examples' settings.

python -m tests.benchmarks.transformers_exports CHECKPOINT CLIPS.npy FOLDER
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch
from transformers import TimesformerForVideoClassification
from transformers.exporters import (
    OnnxConfig,
    OnnxExporter,
    OnnxRuntimeDynamicConfig,
    OnnxRuntimeQuantizer,
    OnnxRuntimeStaticConfig,
)


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("clips", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
def main(checkpoint: Path, clips: Path, folder: Path) -> None:
    """Writes ``model_dynamic.onnx`` and ``model_static.onnx``."""
    samples = [{"pixel_values": torch.from_numpy(clip[None])} for clip in np.load(clips)]
    quantizers = {
        "dynamic": OnnxRuntimeQuantizer(OnnxRuntimeDynamicConfig()),
        "static": OnnxRuntimeQuantizer(
            OnnxRuntimeStaticConfig(per_channel=True),
            calibration_dataset=samples[:2],  # calibration keeps all activations: gigabytes a clip
        ),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, quantizer in quantizers.items():
        model = TimesformerForVideoClassification.from_pretrained(checkpoint).eval()
        exported = OnnxExporter().export(model, samples[0], config=OnnxConfig(quantizer=quantizer))
        OnnxExporter.save_program(exported.program, folder / f"model_{name}.onnx")


if __name__ == "__main__":
    main()
