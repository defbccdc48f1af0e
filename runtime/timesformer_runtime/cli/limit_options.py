"""The options of commands that read video files: what reading one may cost."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from timesformer_runtime.cli.durations import duration

if TYPE_CHECKING:
    from timesformer_runtime.video.limits import DecodeLimits

_OPTIONS = {
    "max_pixels": click.option(
        "--max-pixels",
        type=click.IntRange(min=1),
        metavar="N",
        help="Refuse videos whose pictures have more pixels.  [default: 67108864, 8K twice]",
    ),
    "max_packets": click.option(
        "--max-packets",
        type=click.IntRange(min=1),
        metavar="N",
        help="Refuse videos of more packets.  [default: 2000000]",
    ),
    "max_seconds": click.option(
        "--max-seconds",
        type=duration,
        metavar="TIME",
        help="Refuse videos that take longer to read.  "
        "[default: 10m; of timelines and streams: none]",
    ),
    "max_bytes": click.option(
        "--max-bytes",
        type=click.IntRange(min=1),
        metavar="N",
        help="Refuse videos whose frames, as they are held, take more memory.  [default: 2 GiB]",
    ),
    "max_pipe_bytes": click.option(
        "--max-pipe-bytes",
        type=click.IntRange(min=1),
        metavar="N",
        help="Copy no more than that of a pipe or standard input.  [default: 4 GiB]",
    ),
}


def limit_options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds these options, or all; the command gets them as one argument ``limits``."""
    chosen = names or tuple(_OPTIONS)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def with_limits(**options: Any) -> Any:
            given = {name: options.pop(name) for name in chosen}
            return function(limits=_limits(given), **options)

        for name in reversed(chosen):
            with_limits = _OPTIONS[name](with_limits)
        return with_limits

    return decorate


def _limits(given: dict[str, Any]) -> DecodeLimits:
    from timesformer_runtime.video.limits import DecodeLimits  # noqa: PLC0415

    return DecodeLimits(**{name: value for name, value in given.items() if value is not None})
