"""Times decoders, this project's among them: eight frames spread over each video of a folder.

    python -m tests.benchmarks.decode [FOLDER]

Every decoder has one thread; they run in turn, and medians count. The table says how many times as
fast as plain PyAV each decoder is. Plain PyAV decodes from the start and gets the indices of the
frames to convert. torchcodec and OpenCV take part where they are installed:
``pip install torchcodec opencv-python-headless``.
"""

from __future__ import annotations

import functools
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
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
_PLAIN, _OURS = "plain PyAV", "timesformer"
_SAMPLES = Path(__file__).parents[2] / "runtime/timesformer_runtime/sample_clips"


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument(
    "folder", type=click.Path(exists=True, file_okay=False, path_type=Path), default=_SAMPLES
)
@click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True)
def main(folder: Path, rounds: int) -> None:
    """Measures and prints a table."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    decoders: dict[str, Decoder] = {}
    for name, decoder in available():
        if isinstance(decoder, str):
            console.print(f"Without {name}: {decoder}", markup=False)
        else:
            decoders[name] = decoder
    others = list(decoders)[1:]
    title = "Times as fast as plain PyAV"
    table = Table("video", "frames", "plain PyAV, ms", *others, title=title, title_justify="left")
    measured: dict[str, dict[str, float]] = {}
    long = []
    for path in sorted(folder.iterdir()):
        try:
            clip = timesformer(str(path), range(_FRAMES))
        except TimesformerError:
            continue
        name, seconds = path.name, _medians(str(path), clip.indices, decoders, rounds)
        if clip.times and clip.times[-1] > _LONG:
            name += " (long)"
            long.append(name)
        measured[name] = seconds
        speeds = [_speed([seconds], other) or "fails" for other in others]
        table.add_row(name, str(clip.count), f"{seconds[_PLAIN] * 1e3:.1f}", *speeds)
    total = sum(seconds[_PLAIN] for seconds in measured.values())
    table.add_section()
    decoded = {
        other: [seconds for seconds in measured.values() if other in seconds] for other in others
    }
    speeds = [_speed(decoded[other], other) for other in others]
    table.add_row("all that the decoder reads", "", f"{total * 1e3:.0f}", *speeds)
    ours = [_speed(decoded[other], _OURS) for other in others]
    table.add_row(f"{_OURS} on these", "", "", *ours)
    speeds = [_speed([measured[name] for name in long], other) for other in others]
    table.add_row(f"longer than {_LONG:.0f} s", "", "", *speeds)
    console.print(table)


def _speed(files: Sequence[Mapping[str, float]], name: str) -> str:
    """The speed of a decoder over files, with plain PyAV as 1; empty if it cannot read them all."""
    if not files or any(name not in seconds for seconds in files):
        return ""
    plain, own = (sum(seconds[key] for seconds in files) for key in (_PLAIN, name))
    return f"{plain / own:.2f}"


def _medians(
    path: str, indices: Sequence[int], decoders: Mapping[str, Decoder], rounds: int
) -> dict[str, float]:
    """Seconds of each decoder that can read the video."""

    def timed(decoder: Decoder) -> float:
        start = time.perf_counter()
        decoder(path, indices)
        return time.perf_counter() - start

    working = {name: of for name, of in decoders.items() if _works(of, path, indices)}
    runs = [functools.partial(timed, decoder) for decoder in working.values()]
    times = take_turns(runs, rounds)
    return dict(zip(working, map(statistics.median, times), strict=True))


def _works(decoder: Decoder, path: str, indices: Sequence[int]) -> bool:
    try:
        decoder(path, indices)
    except Exception:
        if decoder in {plain_pyav, timesformer}:
            raise
        return False
    return True


if __name__ == "__main__":
    lend_ffmpeg_to_torchcodec()
    main()
