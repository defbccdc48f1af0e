"""How the cores are shared out where the model runs again and again."""

from __future__ import annotations

from timesformer_runtime.errors import InvalidOptionError

_MOST_RUNS = 8  # at once: each takes memory
_MOST_WORKERS = 256


def shared_threads(threads: int) -> int:
    """How many of these threads one run should have; so many runs at once share them all.

    Runs of one thread never wait for each other, as the threads of one run do.
    """
    return next(n for n in range(1, threads + 1) if threads % n == 0 and threads // n <= _MOST_RUNS)


def usual_workers(threads: int) -> int:
    """One more than there are threads: it may wait for the model, or for the disk."""
    return min(threads + 1, _MOST_WORKERS)


def check_workers(workers: object) -> None:
    """Makes sure that there can be so many.

    Raises:
        InvalidOptionError: It is no such number.
    """
    if type(workers) is not int or not 1 <= workers <= _MOST_WORKERS:
        raise InvalidOptionError(
            f"workers is {workers!r}; it must be an integer from 1 to {_MOST_WORKERS}"
        )
