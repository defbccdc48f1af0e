"""The options that every command with a model has, and the loading of that model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from timesformer_runtime.cli.output import say
from timesformer_runtime.model.settings import DEVICES

if TYPE_CHECKING:
    from timesformer_runtime.classifier import VideoClassifier
    from timesformer_runtime.input.views import Views
    from timesformer_runtime.video.limits import DecodeLimits


def model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options; the command hands them to ``load``."""
    for decorate in (
        click.option(
            "--session-option",
            "session_options",
            metavar="KEY=VALUE",
            multiple=True,
            callback=_read_session_options,
            help="An option of ONNX Runtime's session (repeatable), such as "
            "session.intra_op.allow_spinning=1 or enable_cpu_mem_arena=0.",
        ),
        click.option("--local-files-only", is_flag=True, help="Never use the network."),
        click.option("--revision", help="Branch, tag or commit on the Hub."),
        click.option(
            "--dtype",
            metavar="NAME",
            help="Which file of the model: fp32, fp16, int8, q4, ...  "
            "[default: the fastest for the device]",
        ),
        click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True),
        click.option(
            "--threads",
            type=click.IntRange(min=1),
            metavar="N",
            help="CPU threads.  [default: as many as are granted]",
        ),
    ):
        function = decorate(function)
    return function


def top_k_option(default: int, of: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds ``--top-k``: how many labels there are of a video, a window, a segment."""
    return click.option(
        "--top-k",
        type=click.IntRange(min=1),
        default=default,
        show_default=True,
        metavar="N",
        help=f"Labels per {of}.",
    )


def _read_session_options(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    options = {}
    for value in values:
        key, equals, setting = value.partition("=")
        if not equals:
            raise click.BadParameter(f"{value!r} is not KEY=VALUE")
        options[key] = setting
    return options


def load(  # noqa: PLR0913 (the options of the command, by name)
    model: str,
    *,
    device: str,
    dtype: str | None,
    threads: int | None,
    revision: str | None,
    local_files_only: bool,
    session_options: Mapping[str, str],
    views: Views | None = None,
    limits: DecodeLimits | None = None,
    share_of: int | None = None,
) -> VideoClassifier:
    """Loads the model and says on stderr what was chosen.

    Of ``share_of`` threads a run may have only a part, and the others other runs.
    """
    from timesformer_runtime.classifier import VideoClassifier  # noqa: PLC0415
    from timesformer_runtime.input.views import Views  # noqa: PLC0415

    classifier = VideoClassifier.from_pretrained(
        model,
        device=device,
        dtype=dtype,
        threads=threads,
        revision=revision,
        local_files_only=local_files_only,
        session_options=session_options,
        views=views,
        limits=limits,
    )
    for note in classifier.notes:
        say(f"{classifier.name}: {note}")
    reason = f" (auto: {classifier.device_reason})" if classifier.device_reason else ""
    used = share_of or classifier.threads
    threads_used = f"{used} thread{'s' if used > 1 else ''}"
    if used != classifier.threads:
        threads_used += f", {classifier.threads} for each run"
    seen = f", {classifier.views.describe()}" if classifier.views != Views() else ""
    wide = " in 16-bit products (8-bit ones overflow on this CPU)"
    say(
        f"{classifier.name}: {classifier.dtype or 'dtype as stored'}"
        f"{wide if classifier.wide_products else ''}, "
        f"device {classifier.device}{reason}, {threads_used}{seen}"
    )
    return classifier


def load_to_share(*, threads: int | None, **options: Any) -> tuple[VideoClassifier, int]:
    """For commands that run the model again and again: several runs share the threads.

    Returns:
        The model, and the number of threads for all of its runs together.
    """
    from timesformer_runtime.model.cpu import granted_threads  # noqa: PLC0415
    from timesformer_runtime.workloads.workers import shared_threads  # noqa: PLC0415

    cores = threads or granted_threads()
    return load(threads=shared_threads(cores), share_of=cores, **options), cores
