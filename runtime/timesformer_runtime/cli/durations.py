"""Durations on the command line: ``4s``, ``500ms``, ``1m``, ``1h`` or a number of seconds."""

from __future__ import annotations

import re

import click

_UNITS = {"": 1.0, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_PATTERN = re.compile(r"\s*(\d+\.?\d*|\.\d+)\s*([a-z]*)\s*", re.ASCII)


def duration(value: str | float) -> float:
    """The ``type`` of an option: seconds, above 0.

    Raises:
        click.BadParameter: The text is not a duration.
    """
    match = _PATTERN.fullmatch(str(value).lower())
    if match is None or match[2] not in _UNITS or float(match[1]) == 0:
        raise click.BadParameter(f"{value!r} is not a duration; write it as 4s, 500ms, 1.5m or 1h")
    return float(match[1]) * _UNITS[match[2]]
