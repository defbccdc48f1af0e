"""Compares ``batch --ray`` with ``batch``, and one machine of a cluster with two.

    python -m tests.benchmarks.ray_batch MODEL [--clips 64] [--rounds 3]

Needs Ray and Linux (``make check-ray`` makes an environment). Everything runs on two cores. First
both commands' work in turn, on two cores; then a cluster of one machine of one core, and one of two
such machines, in turn. Starting Ray's processes is counted apart: the speed is that of the videos
after the first few.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ray.cluster_utils import Cluster as LocalCluster
from timesformer_runtime import VideoClassifier
from timesformer_runtime.ray.cluster import classify_on, connect
from timesformer_runtime.workloads.workers import usual_workers

from tests.benchmarks import footage
from tests.benchmarks.turns import take_turns

_WANTED = 0.9
_FEW = 4  # videos, which take as long as Ray's processes take to start
_FILES = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--size", default="256x340", help="height x width")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, cores)
    height, width = map(int, arguments.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        files = [
            str(footage.shot(Path(folder, f"{seed}.mp4"), height, width, seed))
            for seed in range(_FILES)
        ]
        videos = [files[number % _FILES] for number in range(arguments.clips)]
        _compare(arguments.model, videos, arguments.rounds)
        _grow(arguments.model, videos, arguments.rounds, cores)


def _compare(model: str, videos: Sequence[str], rounds: int) -> None:
    classifier = VideoClassifier.from_pretrained(model, threads=1)

    def batch() -> float:
        start = time.perf_counter()
        for outcome in classifier.batch(videos, workers=usual_workers(2)):
            assert outcome.result is not None
        return time.perf_counter() - start

    with _machines([2]) as cluster:
        works = [
            batch,
            lambda: _seconds(cluster, classifier, videos),
            lambda: _seconds(cluster, classifier, videos[:_FEW]),
        ]
        here, there, few = map(statistics.median, take_turns(works, rounds))
    alone, on_ray = len(videos) / here, (len(videos) - _FEW) / (there - few)
    print(f"{len(videos)} clips, two cores, median of {rounds} rounds")
    print(f"batch                    {alone:.2f} clips a second")
    print(f"batch --ray              {on_ray:.2f} clips a second, {on_ray / alone:.2f} times that")
    print(f"wanted                   at least {_WANTED} times")
    print(f"until Ray's first {_FEW}      {few:.1f} s")


def _grow(model: str, videos: Sequence[str], rounds: int, cores: Sequence[int]) -> None:
    classifier = VideoClassifier.from_pretrained(model, threads=1)
    speeds: list[list[float]] = []
    for _ in range(rounds):
        speeds.append([])
        for count in (1, 2):
            with _machines([1] * count, cores) as cluster:
                few = _seconds(cluster, classifier, videos[:_FEW])
                whole = _seconds(cluster, classifier, videos)
            speeds[-1].append((len(videos) - _FEW) / (whole - few))
    one, two = map(statistics.median, zip(*speeds, strict=True))
    growth = statistics.median(second / first for first, second in speeds)
    print(f"one machine of one core  {one:.2f} clips a second")
    print(f"two such machines        {two:.2f} clips a second, {growth:.2f} times that")


@contextlib.contextmanager
def _machines(cpus: Sequence[int], cores: Sequence[int] = ()) -> Iterator[LocalCluster]:
    """Starts a cluster; with ``cores``, the processes of each machine stay on one of them."""
    everywhere = os.sched_getaffinity(0)
    cluster = LocalCluster()
    for number, count in enumerate(cpus):
        if cores:
            os.sched_setaffinity(0, {cores[number]})
        cluster.add_node(num_cpus=count)
    os.sched_setaffinity(0, everywhere)
    cluster.wait_for_nodes()
    try:
        yield cluster
    finally:
        cluster.shutdown()


def _seconds(cluster: LocalCluster, classifier: VideoClassifier, videos: Sequence[str]) -> float:
    arguments = {**classifier.arguments, "dtype": classifier.dtype, "threads": 1}
    connected = connect(cluster.address, 1)
    start = time.perf_counter()
    for _, record in classify_on(connected, videos, arguments, classifier.fingerprint()):
        assert "predictions" in record, record
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
