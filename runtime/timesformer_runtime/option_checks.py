"""Checks of options that several classes and functions have."""

from __future__ import annotations

from timesformer_runtime.errors import InvalidOptionError, quoted

_MOST_THREADS = 1024


def check_flag(name: str, value: object) -> None:
    """Makes sure that an option is True or False: ``"no"`` would count as True.

    Raises:
        InvalidOptionError: The value is neither.
    """
    if type(value) is not bool:
        raise InvalidOptionError(f"`{name}` is {quoted(value)}; it must be True or False")


def check_threads(threads: object) -> None:
    """Makes sure that a number of threads is possible.

    Raises:
        InvalidOptionError: The number is not an integer in the allowed range.
    """
    if type(threads) is not int or not 1 <= threads <= _MOST_THREADS:  # True is an int, too
        raise InvalidOptionError(
            f"`threads` is {quoted(threads)}; it must be an integer from 1 to {_MOST_THREADS}"
        )
