"""Reads damaged files in a process of its own, so that a crash or a hang is only a finding.

Takes lines ``seed number`` and answers each with a line of JSON.
"""

import collections
import contextlib
import io
import json
import os
import resource
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
from timesformer_runtime.errors import TimesformerError
from timesformer_runtime.timeline import WindowReader
from timesformer_runtime.video import DecodeLimits
from timesformer_runtime.video.pixels import Rendering
from timesformer_runtime.windows import WindowSettings

from tests.fuzz.mutations import mutate
from tests.video_files import read_clip

# A picture of 2^20 pixels is about 256 times as large as those of the seeds.
LIMITS = DecodeLimits(max_pixels=1 << 20, max_packets=10_000, max_seconds=4, max_bytes=1 << 25)
_LISTED_ON = 2.0  # seconds
ADDRESS_SPACE = 1 << 30  # bytes above what the process has before the first file


def main(folder: Path, scratch: Path) -> None:
    """Answers until the input ends."""
    read_clip(folder / "h264.mp4", _evenly)  # libraries load on first use
    _limit_memory()
    seeds = {path.name: path.read_bytes() for path in folder.iterdir()}
    before = _open_things()
    for line in sys.stdin:
        name, number = line.split()
        answer = _read(mutate(seeds[name], int(number)), int(number), scratch / name)
        answer["left_open"] = _left_open(before)
        answer["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(json.dumps(answer), flush=True)


def _read(data: bytes, number: int, path: Path) -> dict[str, Any]:
    start = time.monotonic()
    source: Path | io.BytesIO = io.BytesIO(data)
    if number % 2:
        path.write_bytes(data)
        source = path
    try:
        threads = 1 + number % 3 // 2
        if number % 7:
            problems = read_clip(source, _evenly, threads=threads, limits=LIMITS).problems
        else:
            problems = _slide(source, threads)
        outcome = "marked" if problems else "read"
    except TimesformerError as error:
        outcome = "refused"
        if "\n" in str(error):
            outcome = f"an error of several lines: {error!r}"
    except Exception as error:  # the finding
        outcome = repr(error)
    return {"outcome": outcome, "seconds": time.monotonic() - start}


def _slide(source: Path | io.BytesIO, threads: int) -> tuple[str, ...]:
    """Reads it window by window, as for a timeline."""

    def convert(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        return frame[:8, :8].copy()

    model_input = SimpleNamespace(
        choose=lambda count, _rate: _evenly(count), rendering=Rendering, convert=convert
    )
    model: Any = SimpleNamespace(input=model_input, limits=LIMITS, threads=1 + threads)
    reader = WindowReader(model, source, WindowSettings(2.0, 1.0))
    with contextlib.closing(reader.windows()) as windows:
        collections.deque(windows, maxlen=0)
    return reader.problems


def _evenly(count: int) -> npt.NDArray[np.int64]:
    return np.linspace(0, count - 1, 4).astype(np.int64)


def _limit_memory() -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    limit = size + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _left_open(before: tuple[int, int, int]) -> list[int]:
    """How many more things are open than before; a thread that has ended is listed a little on."""
    end = time.monotonic() + _LISTED_ON
    while True:
        more = [now - then for now, then in zip(_open_things(), before, strict=True)]
        if max(more) <= 0 or time.monotonic() > end:
            return more
        time.sleep(0.01)


def _open_things() -> tuple[int, int, int]:
    """Files, Python's threads, and all threads."""
    files = len(list(Path("/proc/self/fd").iterdir()))
    return files, threading.active_count(), len(list(Path("/proc/self/task").iterdir()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
