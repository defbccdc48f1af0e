"""Turns errors of the runtime into HTTP statuses with one line."""

from __future__ import annotations

import re

from timesformer_runtime.errors import (
    ClosedError,
    InferenceTimeoutError,
    InvalidOptionError,
    InvalidVideoError,
    MissingOutputError,
    NotEnoughMemoryError,
    TimesformerError,
    VideoLimitError,
    printable,
    reason_of,
)

# The first class that fits counts.
_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (VideoLimitError, 413),
    (InvalidVideoError, 422),
    (InvalidOptionError, 400),
    (MissingOutputError, 400),
    (InferenceTimeoutError, 503),
    (NotEnoughMemoryError, 503),
    (MemoryError, 503),
    (ClosedError, 503),
)

# A client cannot raise the limits of the service.
_ADVICE_FOR_OTHERS = re.compile(r",? or raise `max_\w+`")


def status_of(error: Exception) -> int:
    """The HTTP status for an error of the runtime: 4xx where another request may succeed."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def kind_of(error: Exception) -> str:
    """A word for the kind of an error, for metrics."""
    return type(error).__name__


def line_of(error: Exception, names: dict[str, str]) -> str:
    """The error on one line, with public names in place of the server's own paths.

    Args:
        error: The error.
        names: For texts in the message, such as paths, the text to write in their place.
    """
    if not isinstance(error, TimesformerError | MemoryError):
        return "the service failed; its log says why"
    line = _ADVICE_FOR_OTHERS.sub("", " ".join(reason_of(error).split()))
    for path in sorted(names, key=len, reverse=True):
        line = line.replace(path, printable(names[path]))
    return line
