"""Times whole programs: `timesformer classify` against a script with transformers' pipeline."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from timesformer_runtime.model.cpu import saturates_int8

from tests.benchmarks.bench import Bench
from tests.benchmarks.made_files import MakingError
from tests.benchmarks.processes import environment, last_words
from tests.benchmarks.rows import Row, ratio_row, without_goals
from tests.benchmarks.turns import take_turns

_OURS, _THEIRS = "timesformer classify, int8", "transformers' pipeline"
_SCRIPT = """
import sys
from transformers import pipeline
print(pipeline("video-classification", model=sys.argv[1])(sys.argv[2], top_k=5))
"""


def measure(bench: Bench) -> tuple[dict[str, dict[str, list[float]]], list[Row]]:
    """Runs both programs in turn on the same 10-second video.

    Returns:
        Seconds and peak memory in 10^6 bytes of each program in each round, and the table's rows.
    """
    checkpoint, video = bench.checkpoint(), str(bench.video())
    exported = bench.ours(checkpoint)
    commands = {
        _OURS: [
            sys.executable,
            "-m",
            "timesformer_runtime",
            "classify",
            str(exported),
            video,
            *("--dtype", "int8", "--threads", str(bench.threads)),
        ],
        _THEIRS: [sys.executable, "-c", _SCRIPT, str(checkpoint), video],
    }
    peaks: dict[str, list[float]] = {name: [] for name in commands}

    def run(name: str) -> float:
        seconds, megabytes = cost(commands[name], bench.threads, bench.logs / "whole.log")
        peaks[name].append(megabytes)
        return seconds

    for name in commands:
        run(name)  # fills the file cache
        peaks[name].clear()
    seconds = take_turns(
        [functools.partial(run, name) for name in commands],
        bench.rounds,
        lambda number: bench.announce(f"Round {number} of {bench.rounds}"),
    )
    figures = {
        name: {"seconds": times, "peak_mb": peaks[name]}
        for name, times in zip(commands, seconds, strict=True)
    }
    table = [
        ratio_row("whole process", (_OURS, seconds[0]), (_THEIRS, seconds[1]), 0.20),
        ratio_row("its peak memory", (_OURS, peaks[_OURS]), (_THEIRS, peaks[_THEIRS]), 0.35),
    ]
    return figures, without_goals(table) if saturates_int8() else table


def cost(command: Sequence[str], threads: int, log: Path) -> tuple[float, float]:
    """Runs a command to its end.

    Returns:
        Seconds, and peak resident memory in 10^6 bytes.

    Raises:
        MakingError: The command failed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment(threads),
        )
        # Linux counts the memory of a parent process as part of its child's peak. This parent stays
        # small, because other processes make and run all models.
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise MakingError(f"{Path(command[0]).name} failed: {last_words(log)}")
    return seconds, usage.ru_maxrss * 1024 / 1e6
