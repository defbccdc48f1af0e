"""Eight frames of each video of a folder, spread over it: this project against other decoders.

    python -m tests.benchmarks.decode [FOLDER]

Every decoder has one thread; they run in turn, and medians count. Times are shown as ratios to a
plain sequential PyAV decode that is told which frames to convert. torchcodec and OpenCV are
compared with where they are installed: ``pip install torchcodec opencv-python-headless``.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from timesformer_runtime.errors import TimesformerError

from tests.benchmarks.decoders import (
    Decoder,
    available,
    lend_ffmpeg_to_torchcodec,
    plain_pyav,
    timesformer,
)
from tests.benchmarks.turns import take_turns

_FRAMES = 8
_LONG = 120.0  # seconds
_SAMPLES = Path(__file__).parents[2] / "runtime/timesformer_runtime/sample_clips"


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument(
    "folder", type=click.Path(exists=True, file_okay=False, path_type=Path), default=_SAMPLES
)
@click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True)
def main(folder: Path, rounds: int) -> None:
    """Measures and prints a table."""
    lend_ffmpeg_to_torchcodec()
    console = Console(soft_wrap=True)
    decoders: dict[str, Decoder] = {}
    for name, decoder in available():
        if isinstance(decoder, str):
            console.print(f"Without {name}: {decoder}", markup=False)
        else:
            decoders[name] = decoder
    table = Table("video", "frames", "plain PyAV, ms", *list(decoders)[1:])
    totals = {name: [0.0, 0.0] for name in decoders}  # of it, and of plain PyAV on the same files
    for path in sorted(folder.iterdir()):
        try:
            clip = timesformer(str(path), range(_FRAMES))
        except TimesformerError:
            continue
        seconds = _medians(str(path), clip.indices, list(decoders.values()), rounds)
        cells = [f"{seconds[0] * 1e3:.1f}"]
        for name, its in zip(decoders, seconds, strict=True):
            if its is not None:
                totals[name][0] += its
                totals[name][1] += seconds[0]
            if name != "plain PyAV":
                cells.append("fails" if its is None else f"{its / seconds[0]:.2f}")
        long = " (long)" if clip.times and clip.times[-1] > _LONG else ""
        table.add_row(path.name + long, str(clip.count), *cells)
    shares = [f"{its / plain:.2f}" for its, plain in totals.values() if plain][1:]
    table.add_row(
        "all, as far as it decodes them", "", f"{totals['plain PyAV'][0] * 1e3:.0f}", *shares
    )
    console.print(table)


def _medians(
    path: str, indices: Sequence[int], decoders: Sequence[Decoder], rounds: int
) -> list[float | None]:
    """Seconds of each decoder; None where it fails."""

    def timed(decoder: Decoder) -> float:
        start = time.perf_counter()
        decoder(path, indices)
        return time.perf_counter() - start

    working = [decoder for decoder in decoders if _works(decoder, path, indices)]
    times = take_turns([lambda d=decoder: timed(d) for decoder in working], rounds)
    medians = dict(zip(working, map(statistics.median, times), strict=True))
    return [medians.get(decoder) for decoder in decoders]


def _works(decoder: Decoder, path: str, indices: Sequence[int]) -> bool:
    try:
        decoder(path, indices)
    except Exception:
        if decoder in {plain_pyav, timesformer}:
            raise
        return False
    return True


if __name__ == "__main__":
    main()
