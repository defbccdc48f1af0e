"""The options of commands that slide windows over a video."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from timesformer_runtime.cli.durations import duration


def window_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--window`` and ``--stride``, which the command gets in seconds."""
    for decorate in (
        click.option(
            "--stride",
            type=duration,
            default="2s",
            show_default=True,
            metavar="TIME",
            help="From the start of one window to that of the next.",
        ),
        click.option(
            "--window",
            type=duration,
            default="4s",
            show_default=True,
            metavar="TIME",
            help="How much of the video the model sees at a time: 4s, 500ms, 1m.",
        ),
    ):
        function = decorate(function)
    return function
