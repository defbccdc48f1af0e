"""Compares the time of ``timesformer evaluate`` with that of ``timesformer batch``, and its memory.

    python -m tests.benchmarks.evaluate MODEL [--clips 1000] [--rounds 3] [--size 256x340]

Both commands run in turn on the same clips of 10 seconds, each a file of its own, one variant each.
Memory is the peak of ``evaluate`` with a tenth of the clips and with all of them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks import footage
from tests.benchmarks.turns import take_turns

_WANTED = 1.05
_SHOTS = 8  # different clips; the others are links to them
_COMMAND = [sys.executable, "-m", "timesformer_runtime"]


class Cost(NamedTuple):
    """The cost of one command: seconds, CPU seconds, and peak memory in 10^6 bytes."""

    seconds: float
    cpu: float
    peak_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", default="256x340", help="height x width")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shots = footage.shots(folder, _SHOTS, arguments.size)
        for part, count in (("few", arguments.clips // 10), ("all", arguments.clips)):
            _link(shots, folder / part / "0", count)
        _compare(arguments.model, folder, arguments.clips, arguments.rounds)


def _link(shots: list[Path], folder: Path, count: int) -> None:
    """Makes a folder of the class of number 0 with links to a few shots."""
    folder.mkdir(parents=True)
    for number in range(count):
        os.link(shots[number % len(shots)], folder / f"{number:05}.mp4")


def _compare(model: str, folder: Path, clips: int, rounds: int) -> None:
    costs: dict[str, list[Cost]] = {"batch": [], "evaluate": []}

    def run(command: str, part: str = "all") -> Cost:
        with tempfile.TemporaryDirectory() as output:
            file = Path(output, "results.jsonl" if command == "batch" else "out")
            return _cost(command, model, str(folder / part), "--output", str(file))

    def timed(command: str) -> float:
        costs[command].append(run(command))
        return costs[command][-1].seconds

    take_turns([lambda: timed("batch"), lambda: timed("evaluate")], rounds)
    print(f"{clips} clips, {rounds} rounds, medians")
    print("command   seconds  CPU seconds  peak MB")
    for command, found in costs.items():
        seconds, cpu, peak = (statistics.median(values) for values in zip(*found, strict=True))
        print(f"{command:8} {seconds:8.1f} {cpu:12.1f} {peak:8.0f}")
    for name in ("seconds", "cpu"):
        ratios = [
            getattr(mine, name) / getattr(theirs, name)
            for mine, theirs in zip(costs["evaluate"], costs["batch"], strict=True)
        ]
        print(f"evaluate / batch, {name}: {statistics.median(ratios):.3f} (wanted: {_WANTED})")
    few = run("evaluate", "few")
    print(f"peak of evaluate with {clips // 10} clips: {few.peak_mb:.0f} MB")


def _cost(*arguments: str) -> Cost:
    start = time.perf_counter()
    process = subprocess.Popen(
        [*_COMMAND, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{arguments[0]} ended with code {process.returncode}")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6)


if __name__ == "__main__":
    main()
