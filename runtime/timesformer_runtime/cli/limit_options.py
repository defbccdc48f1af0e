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
    "isolated": "Read each video in another process (on Linux): a file that crashes or hangs "
    "FFmpeg, or makes it take endless memory, then costs an error and nothing else.",
    "max_process_bytes": "Memory that such a process may take for a video.  [default: 2 GiB]",
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

        decorated: Callable[..., Any] = with_limits
        for name in reversed(chosen):
            help_text = (
                f"For files, not live sources: {_HELP[name]}" if name in files_only else _HELP[name]
            )
            decorated = _option(name, help_text)(decorated)
        return decorated

    return decorate


def _option(name: str, help_text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    option = "--" + name.replace("_", "-")
    if name == "isolated":
        return click.option(option, is_flag=True, default=None, help=help_text)
    is_time = name == "max_seconds"
    return click.option(
        option,
        type=duration if is_time else _COUNT,
        metavar="TIME" if is_time else "N",
        help=help_text,
    )


def _limits(given: dict[str, Any]) -> DecodeLimits:
    from timesformer_runtime.video.limits import DecodeLimits  # noqa: PLC0415

    return DecodeLimits(**{name: value for name, value in given.items() if value is not None})
