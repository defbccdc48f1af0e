"""Runs competitors in turn: each once in every round, in an order that changes."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from tests.benchmarks.processes import Worker

_PAUSE = 0.02  # seconds in which the threads of the previous competitor go to sleep

Measured = TypeVar("Measured")


class Turn(NamedTuple):
    """The cost of one clip in a competitor's turn.

    Attributes:
        seconds: The time of the clip.
        cpu_seconds: Processor time of all threads of the competitor.
    """

    seconds: float
    cpu_seconds: float


def take_turns(
    runs: Sequence[Callable[[], Measured]],
    rounds: int,
    on_round: Callable[[int], None] = lambda _round: None,
) -> list[list[Measured]]:
    """Calls all functions once in each round.

    Args:
        runs: Functions that do their work once and return what it cost, such as the seconds.
        rounds: The number of rounds.
        on_round: Called with the number of each round, from 1, before the round.

    Returns:
        The cost of each function in each round, [runs][rounds].
    """
    shuffle = random.Random(0)
    order = list(range(len(runs)))
    costs: list[list[Measured]] = [[] for _ in runs]
    for number in range(1, rounds + 1):
        on_round(number)
        shuffle.shuffle(order)
        for index in order:
            time.sleep(_PAUSE)
            costs[index].append(runs[index]())
    return costs


def warm_turn(worker: Worker) -> Turn:
    """Runs twice and times the second run, because the first run fills the CPU's caches."""
    before = worker.cpu_seconds()
    worker.seconds()
    seconds = worker.seconds()
    return Turn(seconds, (worker.cpu_seconds() - before) / 2)
