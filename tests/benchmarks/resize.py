"""Compares ``resize="fast"`` with ``resize="exact"``, in pixels and in a model's logits.

python -m tests.benchmarks.resize MODEL VIDEO...
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table
from timesformer_runtime import VideoClassifier, Views, resample
from timesformer_runtime.video.pixels import RgbFrame, Size

from tests.video_files import read_clip

_SHORT_SIDE = 224


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("model")
@click.argument("videos", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
def main(model: str, videos: tuple[Path, ...]) -> None:
    """Measures and prints a table."""
    exact, fast = (
        VideoClassifier.from_pretrained(model, views=Views(resize=resize))
        for resize in ("exact", "fast")
    )
    table = Table(
        "video", "pixels: mean", "99 %", "max", "ms exact", "ms fast", "logits: max", "of", "top-1"
    )
    for path in videos:
        mean, most, largest, slow, quick = _pixels(path)
        one, other = exact.logits(path), fast.logits(path)
        same = "same" if np.argmax(one) == np.argmax(other) else "CHANGED"
        table.add_row(
            path.name,
            f"{mean:.3f}",
            f"{most:.0f}",
            f"{largest:.0f}",
            f"{slow:.2f}",
            f"{quick:.2f}",
            f"{np.abs(one - other).max():.4f}",
            f"{np.abs(one).max():.2f}",
            same,
        )
    Console(width=120).print(table)


def _pixels(path: Path) -> tuple[float, float, float, float, float]:
    """Differences in grey levels (mean, 99th percentile, largest), and milliseconds a frame."""
    clip = read_clip(path, _evenly)
    start = time.perf_counter()
    exact = [_resized(frame) for frame in clip.frames]
    middle = time.perf_counter()
    scaled = read_clip(path, _evenly, scale_to=_size).frames
    whole = time.perf_counter() - middle
    middle -= start
    start = time.perf_counter()
    read_clip(path, _evenly)
    without = time.perf_counter() - start
    difference = np.concatenate(
        [
            np.abs(one.astype(np.int16) - other).ravel()
            for one, other in zip(exact, scaled, strict=True)
        ]
    )
    quick = max(whole - without, 0.0)
    milliseconds = [1e3 * seconds / len(exact) for seconds in (middle, quick)]
    return (
        float(difference.mean()),
        float(np.quantile(difference, 0.99)),
        float(difference.max()),
        milliseconds[0],
        milliseconds[1],
    )


def _evenly(count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.linspace(0, count - 1, 8).astype(np.int64)


def _size(height: int, width: int) -> Size:
    scale = _SHORT_SIDE / min(height, width)
    return round(height * scale), round(width * scale)


def _resized(frame: RgbFrame) -> RgbFrame:
    size = _size(*frame.shape[:2])
    planes = resample.resize(frame, size, resample.BILINEAR, resample.Rectangle(0, 0, *size))
    return planes.transpose(1, 2, 0)


if __name__ == "__main__":
    main()
