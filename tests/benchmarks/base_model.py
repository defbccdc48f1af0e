"""Writes the checkpoint that the benchmarks time: TimeSformer base with random weights.

python -m tests.benchmarks.base_model FOLDER --attention-type joint_space_time
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import torch
from transformers import TimesformerConfig, TimesformerForVideoClassification

from tests.benchmarks.clips import preprocessing


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--attention-type", default="divided_space_time")
@click.option("--layers", type=int, default=12)
@click.option("--num-frames", type=int, default=8)
@click.option("--image-size", type=int, default=224)
def main(folder: Path, attention_type: str, layers: int, num_frames: int, image_size: int) -> None:
    """Writes the checkpoint with transformers' own classes and initialisation."""
    torch.manual_seed(0)
    config = TimesformerConfig(
        attention_type=attention_type,
        num_hidden_layers=layers,
        num_frames=num_frames,
        image_size=image_size,
        num_labels=400,
    )
    TimesformerForVideoClassification(config).eval().save_pretrained(folder)
    processor = json.dumps(preprocessing(image_size), indent=2)
    (folder / "preprocessor_config.json").write_text(processor)


if __name__ == "__main__":
    main()
