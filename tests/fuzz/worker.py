"""Reads damaged videos in a process of its own, so that a crash or a hang is only a finding."""

import collections
import contextlib
import functools
import io
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
from timesformer_runtime.errors import TimesformerError
from timesformer_runtime.isolation.in_this_process import InThisProcess
from timesformer_runtime.video import DecodeLimits
from timesformer_runtime.video.pixels import Rendering
from timesformer_runtime.workloads.timeline import WindowReader
from timesformer_runtime.workloads.windows import WindowSettings

from tests.fuzz.mutations import mutate
from tests.fuzz.process import answer_all, limited_memory, refusal
from tests.video_files import read_clip

# A frame of 2^20 pixels is about 256 times as large as those of the seeds.
LIMITS = DecodeLimits(max_pixels=1 << 20, max_packets=10_000, max_seconds=4, max_bytes=1 << 25)
ADDRESS_SPACE = 1 << 30  # bytes above what the process has before the first file


def main(folder: Path, scratch: Path) -> None:
    """Reads and answers cases until the input ends."""
    read_clip(folder / "h264.mp4", _evenly)  # libraries load on first use
    seeds = {path.name: path.read_bytes() for path in folder.iterdir()}
    with limited_memory(ADDRESS_SPACE):
        answer_all(functools.partial(_read, seeds, scratch))


def _read(seeds: dict[str, bytes], scratch: Path, name: str, number: int) -> dict[str, Any]:
    data = mutate(seeds[name], number)
    start = time.monotonic()
    source: Path | io.BytesIO = io.BytesIO(data)
    if number % 2:
        source = scratch / name
        source.write_bytes(data)
    try:
        threads = 1 + number % 3 // 2
        if number % 7:
            problems = read_clip(source, _evenly, threads=threads, limits=LIMITS).problems
        else:
            problems = _slide(source, threads)
        outcome = "marked" if problems else "read"
    except TimesformerError as error:
        outcome = refusal(error)
    except Exception as error:  # the finding
        outcome = repr(error)
    return {"outcome": outcome, "seconds": time.monotonic() - start}


def _slide(source: Path | io.BytesIO, threads: int) -> tuple[str, ...]:
    """Reads a video window by window, as a timeline does; stand-ins take the model's place."""

    def convert(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        return frame[:8, :8].copy()

    model_input = SimpleNamespace(
        choose=lambda count, _rate: _evenly(count), rendering=Rendering, convert=convert
    )
    session = SimpleNamespace(threads=1 + threads)
    loaded = SimpleNamespace(session=session)
    model: Any = SimpleNamespace(
        input=model_input, limits=LIMITS, model=loaded, new_readers=InThisProcess
    )
    reader = WindowReader(model, source, WindowSettings(2.0, 1.0))
    with contextlib.closing(reader.windows()) as windows:
        collections.deque(windows, maxlen=0)
    return reader.problems


def _evenly(count: int) -> npt.NDArray[np.int64]:
    return np.linspace(0, count - 1, 4).astype(np.int64)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
