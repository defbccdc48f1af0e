"""The options of commands that read video files: what reading one may cost."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import click

from timesformer_runtime.cli.durations import duration

if TYPE_CHECKING:
    from timesformer_runtime.video.limits import DecodeLimits

_COUNT = click.IntRange(min=1)
_HELP = {
    "max_pixels": "Refuse videos whose pictures have more pixels.  [default: 67108864, 8K twice]",
    "max_packets": "Refuse videos of more packets.  [default: 2000000]",
    "max_seconds": "Refuse videos that take longer, the model's runs included.  [default: 10m to "
    "read, except of timelines and streams, and 10m for each run]",
    "max_bytes": "Refuse videos whose frames, as they are held, take more memory.  "
    "[default: 2 GiB]",
    "max_pipe_bytes": "Copy no more than that of a pipe or standard input.  [default: 4 GiB]",
}


def limit_options(
    *names: str, files_only: Collection[str] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds these options, or all; the command gets them as one argument ``limits``.

    Args:
        names: Which.
        files_only: Those of which the help says that a live source refuses them.
    """
    chosen = names or tuple(_HELP)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def with_limits(**options: Any) -> Any:
            given = {name: options.pop(name) for name in chosen}
            return function(limits=_limits(given), **options)

        for name in reversed(chosen):
            help_text = (
                f"For files, not live sources: {_HELP[name]}" if name in files_only else _HELP[name]
            )
            with_limits = click.option(
                "--" + name.replace("_", "-"),
                type=duration if name == "max_seconds" else _COUNT,
                metavar="TIME" if name == "max_seconds" else "N",
                help=help_text,
            )(with_limits)
        return with_limits

    return decorate


def _limits(given: dict[str, Any]) -> DecodeLimits:
    from timesformer_runtime.video.limits import DecodeLimits  # noqa: PLC0415

    return DecodeLimits(**{name: value for name, value in given.items() if value is not None})
