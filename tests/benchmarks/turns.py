"""Runs competitors in turn: each once in every round, in an order that changes."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

from tests.benchmarks.processes import Worker

_PAUSE = 0.02  # seconds in which the threads of the previous competitor go to sleep
RUNS_IN_A_TURN = 2


def take_turns(
    runs: Sequence[Callable[[], float]],
    rounds: int,
    on_round: Callable[[int], None] = lambda _round: None,
) -> list[list[float]]:
    """Calls all functions once in each round.

    Args:
        runs: Functions that do their work once and return the seconds that it took.
        rounds: The number of rounds.
        on_round: Called with the number of each round, from 1, before the round.

    Returns:
        The seconds of each function in each round, [runs][rounds].
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
    """Runs twice and times the second run, because the first run fills the CPU's caches."""
    worker.seconds(batch)
    return worker.seconds(batch)
