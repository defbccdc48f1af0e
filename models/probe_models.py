"""Makes the tiny TimeSformers with which ``timesformer doctor`` tries out execution providers.

python -m models.probe_models

The weights are random. Each file holds PyTorch's answer for generated frames, as every export does.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import timesformer_runtime
import torch
from safetensors.torch import save_file
from timesformer_exporter import ExportOptions, export
from timesformer_exporter.model.config import TimesformerConfig
from timesformer_exporter.model.timesformer import TimesformerForVideoClassification

CONFIG = TimesformerConfig(
    image_size=8,
    patch_size=4,
    num_frames=2,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=32,
    id2label={index: f"label {index}" for index in range(4)},
)
PREPROCESSING = {
    "image_processor_type": "VideoMAEImageProcessor",
    "size": {"shortest_edge": 8},
    "crop_size": {"height": 8, "width": 8},
}
OPSETS = (18, 23)  # one of older operators, which more providers take, and an ordinary export's
FOLDER = Path(timesformer_runtime.__file__).parent / "probe_models"


def main() -> None:
    """Writes the files into the runtime's package."""
    with tempfile.TemporaryDirectory() as name:
        checkpoint = Path(name) / "probe"
        _write_checkpoint(checkpoint)
        for opset in OPSETS:
            file = f"opset{opset}.onnx"
            output = Path(name) / file
            result = export(ExportOptions(model=checkpoint, output=output, opset=opset))
            if not result.passed:
                raise SystemExit(f"{file} does not agree with PyTorch")
            shutil.copy(output / "onnx" / "model.onnx", FOLDER / file)
            print(f"{FOLDER / file}  {(FOLDER / file).stat().st_size} bytes")


def _write_checkpoint(folder: Path) -> None:
    torch.manual_seed(0)
    model = TimesformerForVideoClassification(CONFIG).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))  # no bias is zero, no norm is trivial
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING))
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
