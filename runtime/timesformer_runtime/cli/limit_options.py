"""The options for the limits of reading one video, and durations on the command line."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from timesformer_runtime.video.limits import DecodeLimits

_UNITS = {"": 1.0, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}  # seconds
_DURATION = re.compile(r"\s*(\d+\.?\d*|\.\d+)\s*([a-z]*)\s*", re.ASCII)
_COUNT = click.IntRange(min=1)
_HELP = {
    "max_pixels": "Refuse videos whose frames have more pixels.  "
    "[default: 67108864, twice an 8K frame]",
    "max_packets": "Refuse videos with more packets.  "
    "[default: 2000000, about 18 hours at 30 a second]",
    "max_seconds": "Refuse videos that take longer, the model's runs included.  "
    "[default: 10m for reading (timeline and stream: no limit) and 10m for each run]",
    "max_bytes": "Refuse videos whose frames take more bytes of memory at a time.  "
    "[default: 2 GiB]",
    "max_pipe_bytes": "Refuse pipes and standard input with more bytes; they are copied to a "
    "temporary file.  [default: 4 GiB]",
    "isolated": "Read each video in another process (Linux only). A file that crashes or hangs "
    "FFmpeg, or makes it take endless memory, then costs an error and nothing else.",
    "max_process_bytes": "With --isolated: bytes of memory that the process may take for a video.  "
    "[default: 2 GiB]",
}


def duration(value: str | float) -> float:
    """Reads ``4s``, ``500ms``, ``1.5m``, ``1h`` or a number of seconds; a ``type`` for click.

    Returns:
        Seconds, above 0.

    Raises:
        click.BadParameter: The text is not a duration.
    """
    seconds = duration_or_zero(value)
    if seconds == 0:
        raise click.BadParameter(
            f"{value!r} is not a duration above 0; write it as 4s, 500ms, 1.5m or 1h"
        )
    return seconds


def duration_or_zero(value: str | float) -> float:
    """Reads a duration as ``duration`` does, and ``0s`` too; a ``type`` for click."""
    match = _DURATION.fullmatch(str(value).lower())
    if match is None or match[2] not in _UNITS:
        raise click.BadParameter(f"{value!r} is not a duration; write it as 4s, 500ms, 1.5m or 1h")
    return float(match[1]) * _UNITS[match[2]]


def limit_options(
    *names: str, files_only: Collection[str] = (), defaults: Mapping[str, str] | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds options for limits; the command gets them as one argument ``limits``.

    Args:
        names: The options to add, as ``DecodeLimits`` names them; by default all.
        files_only: The options in ``names`` that only files have: their help says so.
        defaults: Other defaults than those of ``DecodeLimits``, as a user would write them.
    """
    chosen = names or tuple(_HELP)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def with_limits(**options: Any) -> Any:
            given = {name: options.pop(name) for name in chosen}
            return function(limits=_limits(given), **options)

        decorated: Callable[..., Any] = with_limits
        for name in reversed(chosen):
            help_text = (
                f"For files, not live sources: {_HELP[name]}" if name in files_only else _HELP[name]
            )
            decorated = _option(name, help_text, (defaults or {}).get(name))(decorated)
        return decorated

    return decorate


def _option(
    name: str, help_text: str, default: str | None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    option = "--" + name.replace("_", "-")
    if name == "isolated":
        return click.option(option, is_flag=True, default=None, help=help_text)
    is_time = name == "max_seconds"
    return click.option(
        option,
        type=duration if is_time else _COUNT,
        metavar="TIME" if is_time else "N",
        default=default,
        show_default=True,
        help=help_text if default is None else help_text.partition("  [default:")[0],
    )


def _limits(given: dict[str, Any]) -> DecodeLimits:
    from timesformer_runtime.video.limits import DecodeLimits  # noqa: PLC0415

    return DecodeLimits(**{name: value for name, value in given.items() if value is not None})
