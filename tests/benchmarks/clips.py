"""Renders the input of the benchmarks: a 10-second video, and preprocessed clips.

python -m tests.benchmarks.clips video VIDEO.mp4
python -m tests.benchmarks.clips clips CLIPS.npy --count 8 --num-frames 8 --side 224
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
from timesformer_runtime.input.preprocess import Preprocessing

from models.shot_transitions.clips import encode
from models.shot_transitions.scenes import Scene

_RATE, _SECONDS = 30, 10.0


def preprocessing(side: int) -> dict[str, Any]:
    """The preprocessor_config.json of the authors' models, for frames of ``side`` pixels."""
    return {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": side},
        "resample": 2,
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.45, 0.45, 0.45],
        "image_std": [0.225, 0.225, 0.225],
    }


@click.group()
def main() -> None:
    """Renders the input of the benchmarks."""


@main.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--height", type=int, default=720)
def video(path: Path, height: int) -> None:
    """Renders one shot: 16:9, 30 frames a second, 10 seconds, H.264."""
    scene = Scene(np.random.default_rng(0), height, height * 16 // 9, _SECONDS)
    frames = [scene.frame(i / _RATE) for i in range(round(_RATE * _SECONDS))]
    path.write_bytes(encode(frames, _RATE, crf=23, preset="medium"))


@main.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--count", type=int, required=True)
@click.option("--num-frames", type=int, required=True)
@click.option("--side", type=int, required=True)
def clips(path: Path, count: int, num_frames: int, side: int) -> None:
    """Writes float32 [count, num_frames, 3, side, side], preprocessed as the model wants it."""
    preprocess = Preprocessing.from_dict(preprocessing(side))
    rendered = []
    for seed in range(count):
        scene = Scene(np.random.default_rng(seed), side, side * 4 // 3, _SECONDS)
        times = np.linspace(0, _SECONDS, num_frames)
        rendered.append(preprocess(np.stack([scene.frame(float(time)) for time in times])))
    np.save(path, np.stack(rendered))


if __name__ == "__main__":
    main()
