"""Compares ``batch --ray`` with ``batch``, and one machine of a cluster with two.

    python -m tests.benchmarks.ray_batch MODEL [--clips 384] [--rounds 3]

Needs Ray and Linux (``make check-ray`` makes an environment). Everything runs on two cores. First
the work of both commands in turn; then clusters of one machine of one core and of two such
machines, in turn. Speed and processor time are those after the first quarter of the videos, so that
the start of Ray's processes does not count; it is printed apart.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ray.cluster_utils import Cluster as LocalCluster
from timesformer_runtime import VideoClassifier
from timesformer_runtime.ray.cluster import classify_on, connect
from timesformer_runtime.workloads.workers import usual_workers

from tests.benchmarks import footage

_WANTED = 0.9
_STARTED = 0.25  # part of the videos after which all processes work
_FILES = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--clips", type=int, default=384)
    parser.add_argument("--size", default="256x340", help="height x width")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    # Ray runs its workers at a low priority; other programs of this machine would then count twice.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  # Ray's own name
    cores = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, cores)
    with tempfile.TemporaryDirectory() as folder:
        files = [*map(str, footage.shots(Path(folder), _FILES, arguments.size))]
        videos = [files[number % _FILES] for number in range(arguments.clips)]
        _compare(arguments.model, videos, arguments.rounds)
        _grow(arguments.model, videos, arguments.rounds, cores)


@dataclasses.dataclass(frozen=True)
class _Pace:
    """How fast a run was, once all of its processes worked.

    Attributes:
        speed: Videos in a second.
        processor: Processor seconds for a video, of all processes.
        start: Seconds until the first result.
    """

    speed: float
    processor: float
    start: float


def _compare(model: str, videos: Sequence[str], rounds: int) -> None:
    classifier = VideoClassifier.from_pretrained(model, threads=1)
    paces: list[tuple[_Pace, _Pace]] = []
    with _machines([2]) as cluster:
        for _ in range(rounds):
            here = _pace(classifier.batch(videos, workers=usual_workers(2)), len(videos))
            paces.append((here, _pace(_on_ray(cluster, classifier, videos), len(videos))))
    here, there = map(_median, zip(*paces, strict=True))
    ratio = statistics.median(there.speed / here.speed for here, there in paces)
    work = statistics.median(here.processor / there.processor for here, there in paces)
    print(f"{len(videos)} clips, two cores, median of {rounds} rounds")
    print(f"batch                    {_described(here)}")
    print(f"batch --ray              {_described(there)}")
    print(f"ratio of the speeds      {ratio:.2f}, wanted at least {_WANTED}")
    print(f"ratio of processor time  {work:.2f}", flush=True)


def _grow(model: str, videos: Sequence[str], rounds: int, cores: Sequence[int]) -> None:
    classifier = VideoClassifier.from_pretrained(model, threads=1)
    paces: list[list[_Pace]] = []
    for _ in range(rounds):
        paces.append([])
        for count in (1, 2):
            with _machines([1] * count, cores) as cluster:
                paces[-1].append(_pace(_on_ray(cluster, classifier, videos), len(videos)))
    one, two = map(_median, zip(*paces, strict=True))
    growth = statistics.median(second.speed / first.speed for first, second in paces)
    print(f"one machine of one core  {_described(one)}")
    print(f"two such machines        {_described(two)}")
    print(f"ratio of the speeds      {growth:.2f}")


def _pace(outcomes: Iterable[object], count: int) -> _Pace:
    began, times, processor = time.perf_counter(), [], []
    for _ in outcomes:
        times.append(time.perf_counter())
        processor.append(
            _processor_seconds() if len(times) in {int(count * _STARTED), count} else 0
        )
    first = int(count * _STARTED) - 1
    left = count - first - 1
    return _Pace(
        left / (times[-1] - times[first]),
        (processor[-1] - processor[first]) / left,
        times[0] - began,
    )


def _median(paces: Sequence[_Pace]) -> _Pace:
    rows = map(dataclasses.astuple, paces)
    return _Pace(*(statistics.median(values) for values in zip(*rows, strict=True)))


def _described(pace: _Pace) -> str:
    return (
        f"{pace.speed:.2f} clips a second, {pace.processor * 1000:.1f} ms of processor time for "
        f"each, the first after {pace.start:.1f} s"
    )


def _processor_seconds() -> float:
    """Processor time of this process and of all below it, ended ones included."""
    parents, ticks = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            parents[int(folder.name)] = int(fields[1])
            ticks[int(folder.name)] = sum(map(int, fields[11:15]))
    total = 0
    for process, spent in ticks.items():
        ancestor = process
        while ancestor not in {0, os.getpid()}:
            ancestor = parents.get(ancestor, 0)
        total += spent if ancestor else 0
    return total / os.sysconf("SC_CLK_TCK")


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


def _on_ray(
    cluster: LocalCluster, classifier: VideoClassifier, videos: Sequence[str]
) -> Iterator[object]:
    arguments = {**classifier.arguments, "dtype": classifier.dtype, "threads": 1}
    connected = connect(cluster.address, 1)
    for _, record in classify_on(connected, videos, arguments, classifier.fingerprint()):
        assert "predictions" in record, record
        yield record


if __name__ == "__main__":
    main()
