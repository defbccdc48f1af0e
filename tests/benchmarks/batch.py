"""Compares the throughput of a batch of 10-second clips with that of the model alone.

    python -m tests.benchmarks.batch MODEL [--clips 8] [--size 256x340] [--workers N]

The default size is that of the usual copies of Kinetics. Both run in turn: the model alone with one
clip at a time on all cores, and the batch as ``timesformer batch`` shares the cores out.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from timesformer_runtime import VideoClassifier
from timesformer_runtime.model.cpu import granted_threads
from timesformer_runtime.workloads.workers import shared_threads, usual_workers

from tests.benchmarks import footage
from tests.benchmarks.turns import take_turns

_WANTED = 0.9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--size", default="256x340", help="height x width")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--workers", type=int)
    arguments = parser.parse_args()
    threads = arguments.threads or granted_threads()
    classifier = VideoClassifier.from_pretrained(arguments.model, threads=threads)
    sharing = VideoClassifier.from_pretrained(arguments.model, threads=shared_threads(threads))
    with tempfile.TemporaryDirectory() as folder:
        videos = footage.shots(Path(folder), arguments.clips, arguments.size)
        workers = arguments.workers or usual_workers(threads)
        _compare(classifier, sharing, videos, arguments.rounds, workers)


def _compare(
    classifier: VideoClassifier,
    sharing: VideoClassifier,
    videos: list[Path],
    rounds: int,
    workers: int,
) -> None:
    frames = classifier.read(videos[0]).frames
    classifier.predict(frames)

    def read() -> float:
        start = time.perf_counter()
        for video in videos:
            classifier.read(video, threads=1)
        return time.perf_counter() - start

    def infer() -> float:
        start = time.perf_counter()
        for _ in videos:
            classifier.predict(frames)
        return time.perf_counter() - start

    def batch() -> float:
        start = time.perf_counter()
        for outcome in sharing.batch(videos, workers=workers):
            assert outcome.result is not None
        return time.perf_counter() - start

    reading, model, whole = map(statistics.median, take_turns([read, infer, batch], rounds))
    count = len(videos)
    print(f"{count} clips, {classifier.threads} threads")
    print(f"reading alone, 1 thread  {count / reading:.2f} clips a second")
    print(f"model alone              {count / model:.2f} clips a second")
    print(
        f"batch                    {count / whole:.2f} clips a second, "
        f"{model / whole:.2f} times as fast as the model alone"
    )
    print(f"wanted                   at least {_WANTED} times as fast as the model alone")


if __name__ == "__main__":
    main()
