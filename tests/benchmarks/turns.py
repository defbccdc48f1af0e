"""Running competitors in turn: every round each once, in an order that changes."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

from tests.benchmarks.processes import Worker

_PAUSE = 0.02  # seconds in which the threads of the one before go to sleep
RUNS_IN_A_TURN = 2


def take_turns(
    runs: Sequence[Callable[[], float]],
    rounds: int,
    on_round: Callable[[int], None] = lambda _round: None,
) -> list[list[float]]:
    """Seconds of each run in each round, [runs][rounds].

    Args:
        runs: Each does its work once and returns the seconds that it took.
        rounds: How often each is done.
        on_round: Is called with the number of each round, from 1, before it.
    """
    shuffle = random.Random(0)
    order = list(range(len(runs)))
    seconds: list[list[float]] = [[] for _ in runs]
    for number in range(1, rounds + 1):
        on_round(number)
        shuffle.shuffle(order)
        for index in order:
            time.sleep(_PAUSE)
            seconds[index].append(runs[index]())
    return seconds


def warm_run(worker: Worker, batch: int = 1) -> float:
    """The second of two runs: in the first, the caches hold what another process left there."""
    worker.seconds(batch)
    return worker.seconds(batch)
