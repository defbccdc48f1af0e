"""Measures the timeline of a long video: its time against its slower half alone, and its memory.

    python -m tests.benchmarks.timeline MODEL [--seconds 60] [--size 720x1280] [--minutes 60]

Three programs run in turn: reading alone (decoding, and converting the frames that windows need),
the model alone, and the whole timeline. First reading and the model have one core each; then the
model has all cores, so that reading costs time. The model alone runs one window on all its cores;
the timeline runs several windows at once, as the command does. Then another process goes through a
video of many minutes and prints how much memory that takes above the loaded model.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from timesformer_runtime import VideoClassifier
from timesformer_runtime.model.cpu import granted_threads
from timesformer_runtime.workloads.timeline import WindowReader
from timesformer_runtime.workloads.windows import WindowSettings
from timesformer_runtime.workloads.workers import shared_threads

from tests.benchmarks import footage
from tests.benchmarks.turns import take_turns

_WANTED_RATIO, _WANTED_MEGABYTES = 1.15, 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--seconds", type=int, default=60, help="of the video for the times")
    parser.add_argument("--minutes", type=int, default=60, help="of the video for the memory")
    parser.add_argument("--size", default="720x1280", help="height x width")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-of", metavar="VIDEO", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        print(_megabytes_above_model(arguments.model, Path(arguments.memory_of)))
        return
    height, width = map(int, arguments.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        shot = footage.shot(Path(folder, "shot.mp4"), height, width)
        shots = max(1, arguments.seconds // footage.SHOT_SECONDS)
        video = footage.repeated(shot, Path(folder, "a.mp4"), shots)
        for threads in sorted({1, granted_threads()}):
            _times(arguments.model, threads, video, arguments.rounds)
        shots = max(1, arguments.minutes * 60 // footage.SHOT_SECONDS)
        video = footage.repeated(shot, Path(folder, "b.mp4"), shots)
        _memory([*sys.argv[1:], "--memory-of", str(video)], arguments.minutes)


def _times(name: str, threads: int, video: Path, rounds: int) -> None:
    classifier = VideoClassifier.from_pretrained(name, threads=threads)
    windows = [
        prepared.window for prepared in WindowReader(classifier, video, WindowSettings()).windows()
    ]
    values = windows[0].values
    classifier.predict(values)

    def read() -> None:
        for _ in WindowReader(classifier, video, WindowSettings()).windows():
            pass

    def infer() -> None:
        for _ in windows:
            classifier.predict(values)

    each = shared_threads(classifier.threads)
    sharing = VideoClassifier.from_pretrained(name, threads=each)
    sharing.predict(values)

    def whole() -> None:
        for _ in sharing.timeline(video, workers=classifier.threads // each):
            pass

    runs = [_timed(run) for run in (read, infer, whole)]
    reading, model, both = map(statistics.median, take_turns(runs, rounds))
    ratio = both / max(reading, model)
    print(
        f"model on {classifier.threads} of {granted_threads()} cores, {len(windows)} windows: "
        f"reading alone {reading:.2f} s, model alone {model:.2f} s, the whole {both:.2f} s, "
        f"{ratio:.2f} times as long as the slower one (wanted: at most {_WANTED_RATIO} times)"
    )


def _memory(arguments: list[str], minutes: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.timeline", *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    megabytes = float(done.stdout)
    print(
        f"memory: {megabytes:.0f} MB above the model in {minutes} minutes of video "
        f"(wanted: at most {_WANTED_MEGABYTES} MB)"
    )


def _megabytes_above_model(model_name: str, video: Path) -> float:
    """The most memory during a timeline above that of the model after a run, in megabytes."""
    classifier = VideoClassifier.from_pretrained(model_name)
    reader = WindowReader(classifier, video, WindowSettings())
    with contextlib.closing(reader.windows()) as windows:
        classifier.predict(next(windows).window.values)
    model = most = _resident_megabytes()
    for _ in classifier.timeline(video):
        most = max(most, _resident_megabytes())
    return most - model


def _resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _timed(run: Callable[[], None]) -> Callable[[], float]:
    def seconds() -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    return seconds


if __name__ == "__main__":
    main()
