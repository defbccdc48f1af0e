"""Classifies thousands of videos in one process, and checks that it does not grow.

    python -m tests.benchmarks.soak MODEL [--number 10000] [--isolated 1000]

Two threads share a classifier, as in a service. The videos are intact, damaged, not videos at all,
of several sizes and codecs, and given as paths, file objects, pipes and arrays. Between them
timelines, batches and streams are left half-way, and further classifiers are loaded and closed.
Then a classifier that reads videos in other processes does the same.

The process does not grow if its last quarter takes at most 2 % and 4 MB more memory than its
second one, by the medians, and at its least has no more threads, open files and child processes:
what leaks never goes away. Else the exit code is 1. The first quarter is for caches and for the
allocator.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeAlias

from timesformer_runtime import DecodeLimits, TimesformerError, VideoClassifier

from tests.video_files import damage, moving_pictures, write_video

_SAMPLES = Path(__file__).parents[2] / "runtime/timesformer_runtime/sample_clips"
_THREADS = 2  # that share the classifier
_READINGS = 80  # of memory, threads and files
_SHARE, _MB = 0.02, 4.0  # of growth that is allowed
_TABLE_ROWS = 16

Use: TypeAlias = Callable[[VideoClassifier], object]


class Reading(NamedTuple):
    """The resources of this process at one moment, when no classification is going on.

    Attributes:
        done: Number of classifications so far.
        memory: Resident memory of this process, in 10^6 bytes.
        readers: Resident memory of its child processes together.
        threads: Number of threads.
        files: Number of open descriptors.
        children: Number of child processes.
    """

    done: int
    memory: float
    readers: float
    threads: int
    files: int
    children: int


class Unseekable(io.BytesIO):
    """A file object that is read like a pipe."""

    def seekable(self) -> bool:
        return False


def growth(readings: Sequence[Reading]) -> list[str]:
    """Compares the last quarter of the readings with the second one.

    Returns:
        A sentence for each resource of which the process takes more and more.
    """
    quarter = len(readings) // 4
    before, after = readings[quarter : 2 * quarter], readings[-quarter:]
    found = []
    for name in ("memory", "readers"):
        old, new = (
            statistics.median(getattr(reading, name) for reading in part)
            for part in (before, after)
        )
        limit = old * (1 + _SHARE) + _MB
        if new > limit:
            found.append(f"{name}: {new:.1f} MB after {old:.1f} MB; at most {limit:.1f} MB")
    for name in ("threads", "files", "children"):
        # The fewest, because what leaks never goes away, while a connection may be open just then.
        old, new = (min(getattr(reading, name) for reading in part) for part in (before, after))
        if new > old:
            found.append(f"{name}: never less than {new} after {old}")
    return found


def write_videos(folder: Path) -> list[Path]:
    """Writes videos of several sizes and codecs, and damaged ones; gives them and the samples."""
    small, large = moving_pictures(40), moving_pictures(10, 720, 1280)
    made = [
        write_video(folder / "small.mp4", small),
        write_video(folder / "short.mkv", small[:3]),
        write_video(folder / "other.avi", small, codec="mpeg4"),
        write_video(folder / "large.mp4", large, options={"preset": "ultrafast"}),
        damage(write_video(folder / "damaged.mp4", moving_pictures(60, 240, 320))),
    ]
    data = made[0].read_bytes()
    (folder / "cut.mp4").write_bytes(data[: len(data) // 2])
    (folder / "cut.avi").write_bytes(made[2].read_bytes()[:-2000])
    (folder / "text.mp4").write_text("not a video")
    (folder / "empty.mp4").write_bytes(b"")
    broken = [folder / name for name in ("cut.mp4", "cut.avi", "text.mp4", "empty.mp4", "no.mp4")]
    return [*made, *broken, *sorted(_SAMPLES.glob("*.mp4"))]


def uses(videos: Sequence[Path]) -> Iterator[Use]:
    """Gives what the threads do, one classification or a little more each, without end."""
    frames = moving_pictures(12, 96, 128)
    data = videos[0].read_bytes()
    others: list[Use] = [
        lambda classifier: classifier(frames),
        lambda classifier: classifier(io.BytesIO(data)),
        lambda classifier: classifier(Unseekable(data)),
        lambda classifier: classifier(frames.astype(float)),  # refused
    ]
    halfway: list[Use] = [
        lambda classifier: next(classifier.timeline(videos[0], 0.4, 0.2)),
        lambda classifier: next(classifier.batch(itertools.cycle(videos), workers=2)),
        lambda classifier: next(classifier.stream(videos[0], window=0.4, stride=0.2)),
        lambda classifier: next(classifier.stream(videos[0], window=0.4, stride=0.2, drop=True)),
    ]
    given = itertools.cycle(halfway)
    while True:
        for video in videos:
            yield lambda classifier, video=video: classifier(video)  # type: ignore[misc]
        yield from others
        yield next(given)


def soak(
    model: str,
    number: int,
    limits: DecodeLimits,
    used: Iterator[Use],
    show: Callable[[Reading], None],
) -> list[Reading]:
    """Classifies videos, and reads the process's resources from time to time.

    Args:
        model: The exported model.
        number: How many classifications.
        limits: Limits of the classifier.
        used: The uses of the classifier, one after the other.
        show: Called with some of the readings.
    """
    readings: list[Reading] = []

    def load() -> VideoClassifier:
        return VideoClassifier.from_pretrained(model, device="cpu", threads=1, limits=limits)

    with load() as classifier, ThreadPoolExecutor(_THREADS) as pool:

        def use(one: Use) -> None:
            with contextlib.suppress(TimesformerError):  # of broken videos
                one(classifier)

        done = 0
        for part in range(1, _READINGS + 1):
            before, done = done, number * part // _READINGS
            list(pool.map(use, itertools.islice(used, done - before)))
            with load() as another:
                use(lambda _, another=another: another(moving_pictures(8)))  # type: ignore[misc]
            readings.append(read_resources(done))
            if part % (_READINGS // _TABLE_ROWS) == 0:
                show(readings[-1])
    return readings


def read_resources(done: int) -> Reading:
    """Reads the resources of this process, from Linux's /proc."""
    gc.collect()
    children = [
        int(child)
        for task in Path("/proc/self/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    return Reading(
        done,
        _memory("self"),
        sum(map(_memory, children)),
        len(list(Path("/proc/self/task").iterdir())),
        len(list(Path("/proc/self/fd").iterdir())),
        len(children),
    )


def _memory(process: object) -> float:
    with contextlib.suppress(OSError):  # the process has ended
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE") / 1e6
    return 0.0


def main() -> None:
    """Prints two tables; exit code 1 where the process grows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument(
        "--number", type=int, default=10_000, help="classifications in this process"
    )
    parser.add_argument(
        "--isolated",
        type=int,
        default=1_000,
        help="classifications of videos that another process reads",
    )
    arguments = parser.parse_args()
    if sys.platform != "linux":
        parser.exit(2, "soak: the program reads /proc, so it needs Linux\n")
    if min(arguments.number, arguments.isolated) < _READINGS:
        parser.exit(2, f"soak: the numbers must be at least {_READINGS}\n")
    problems: list[str] = []
    parts: dict[str, tuple[int, DecodeLimits]] = {
        "in this process": (arguments.number, DecodeLimits()),
        "isolated": (arguments.isolated, DecodeLimits(isolated=True)),
    }
    with tempfile.TemporaryDirectory() as folder:
        videos = write_videos(Path(folder))
        for name, (number, limits) in parts.items():
            print(f"\n{name}\n")
            print(
                "| classifications | memory | readers' memory | threads | files | children | time |"
            )
            print("|--:|--:|--:|--:|--:|--:|--:|")
            start = time.monotonic()

            def show(reading: Reading, start: float = start) -> None:
                done, memory, readers, *rest = reading
                seconds = round(time.monotonic() - start)
                cells = [done, f"{memory:.1f} MB", f"{readers:.1f} MB", *rest, f"{seconds} s"]
                print(f"| {' | '.join(map(str, cells))} |", flush=True)

            readings = soak(arguments.model, number, limits, uses(videos), show)
            problems += [f"{name}: {problem}" for problem in growth(readings)]
    print("\nflat" if not problems else "\n".join(["", "it grows", *problems]))
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
