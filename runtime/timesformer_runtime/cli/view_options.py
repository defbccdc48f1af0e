"""The options that choose the windows, frames, crops and pixels that the model sees."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from timesformer_runtime.cli.limit_options import duration
from timesformer_runtime.input.option_values import (
    CHANNEL_ORDERS,
    CROP_COUNTS,
    METHODS,
    PROTOCOLS,
    RESIZES,
    SHORT_POLICIES,
)

if TYPE_CHECKING:
    from timesformer_runtime.input.views import Views


def view_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of the views; the command gets one argument ``views`` for ``load``."""

    @functools.wraps(function)
    def with_views(**options: Any) -> Any:
        given = {name: options.pop(name) for name in _NAMES}
        return function(views=_views(**given), **options)

    for decorate in (
        click.option(
            "--square-pixels",
            is_flag=True,
            help="Correct the width of frames whose pixels are not square.",
        ),
        click.option(
            "--resize",
            type=click.Choice(RESIZES),
            default="exact",
            show_default=True,
            help="exact: Pillow's values, bit for bit; fast: FFmpeg resizes while it decodes.",
        ),
        click.option(
            "--channel-order",
            type=click.Choice(CHANNEL_ORDERS),
            default="rgb",
            show_default=True,
            help="bgr: for models trained on frames as OpenCV reads them.",
        ),
        click.option(
            "--protocol",
            type=click.Choice(PROTOCOLS),
            default="huggingface",
            show_default=True,
            help="huggingface: as Hugging Face's examples; facebook: the authors' Kinetics test, "
            "with its frames, its resize, 3 crops, and the sum of their logits.",
        ),
        click.option(
            "--crops",
            type=click.Choice([str(crops) for crops in CROP_COUNTS]),
            help="1: the middle of each frame; 3: the average over three crops along the longer "
            "side.  [default: 1; with --protocol facebook: 3]",
        ),
        click.option(
            "--short",
            type=click.Choice(SHORT_POLICIES),
            default="repeat_last",
            show_default=True,
            help="Where a video has too few frames. repeat_last: repeat its last frame; wrap: "
            "begin again at its start; error: refuse it.",
        ),
        click.option(
            "--clips",
            type=click.IntRange(min=1),
            metavar="K",
            help="Average over K clips (for dense and facebook).  [default: 1]",
        ),
        click.option(
            "--frame-sampling-rate",
            type=click.IntRange(min=1),
            metavar="N",
            help="Take every N-th frame (for center, dense, pipeline and facebook).  "
            "[default: 1 for pipeline; else that of the released model with as many frames: 32 "
            "for 8 frames, 16 for 16, 4 for 96]",
        ),
        click.option(
            "--sampling",
            type=click.Choice(METHODS),
            help="How to choose frames. uniform: evenly over the whole video; center: around its "
            "middle; dense: in K clips, spread over it; segments: the middle of equal parts; "
            "pipeline: as transformers' pipeline; facebook: as the authors' Kinetics test.  "
            "[default: uniform; with --protocol facebook: facebook]",
        ),
    ):
        with_views = decorate(with_views)
    return with_views


def window_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--window`` and ``--stride``; the command gets both in seconds."""
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


_NAMES = (
    "sampling",
    "frame_sampling_rate",
    "clips",
    "short",
    "crops",
    "protocol",
    "channel_order",
    "resize",
    "square_pixels",
)


def _views(
    *,
    sampling: str | None,
    frame_sampling_rate: int | None,
    clips: int | None,
    short: str,
    crops: str | None,
    protocol: str,
    **others: Any,
) -> Views:
    from timesformer_runtime.input.sampling import Sampling  # noqa: PLC0415
    from timesformer_runtime.input.views import Views  # noqa: PLC0415

    facebook = protocol == "facebook"
    frames = Sampling(
        sampling or ("facebook" if facebook else "uniform"), frame_sampling_rate, clips or 1, short
    )
    if facebook:
        return Views.facebook(frames, int(crops or 3), **others)
    return Views(frames, int(crops or 1), **others)
