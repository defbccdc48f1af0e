"""The options of all commands that run a model, and the function that loads the model."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from timesformer_runtime.cli.output import say
from timesformer_runtime.model.settings import DEVICES

if TYPE_CHECKING:
    from timesformer_runtime.classifier import VideoClassifier
    from timesformer_runtime.input.views import Views
    from timesformer_runtime.video.limits import DecodeLimits


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of a model; the command passes them on to ``load``."""
    return combined(
        session_option(),
        *hub_options(),
        dtype_option(),
        device_option(),
        click.option(
            "--threads",
            type=click.IntRange(min=1),
            metavar="N",
            help="CPU threads.  [default: as many as CPU affinity and the container's quota grant]",
        ),
    )(function)


def session_option() -> Decorator:
    """Adds ``--session-option``."""
    return click.option(
        "--session-option",
        "session_options",
        metavar="KEY=VALUE",
        multiple=True,
        callback=_read_session_options,
        help="An option of ONNX Runtime's session (repeatable), such as "
        "session.intra_op.allow_spinning=1 or enable_cpu_mem_arena=0.",
    )


def hub_options() -> tuple[Decorator, Decorator]:
    """Adds ``--local-files-only`` and ``--revision``."""
    return (
        click.option(
            "--local-files-only",
            is_flag=True,
            help="Never use the network: take files of the Hub from its cache.",
        ),
        click.option("--revision", help="Branch, tag or commit on the Hub."),
    )


def dtype_option(default: str = "int8 on a CPU, fp16 on CUDA, else fp32") -> Decorator:
    """Adds ``--dtype``, whose default the help text describes."""
    return click.option(
        "--dtype",
        metavar="NAME",
        help="Which file of the model, by its precision: fp32, fp16, int8, q4, ...  "
        f"[default: {default}]",
    )


def device_option() -> Decorator:
    """Adds ``--device``."""
    return click.option(
        "--device",
        type=click.Choice(DEVICES),
        default="auto",
        show_default=True,
        help="Where the model runs; auto: on CUDA where it works, else on the CPU.",
    )


def combined(*decorators: Decorator) -> Decorator:
    """Joins decorators; the help text shows the last one first."""
    return lambda function: functools.reduce(lambda f, decorate: decorate(f), decorators, function)


def top_k_option(default: int, of: str) -> Decorator:
    """Adds ``--top-k``: how many labels to print.

    Args:
        default: The number of labels without the option.
        of: The thing that the labels are of: ``video``, ``window`` or ``segment``.
    """
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
    """Loads the model, and says on stderr which file, device and threads were chosen.

    Where several runs of the model share the threads, ``threads`` is the number of threads for one
    run, and ``share_of`` the number for all runs together.
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
    """Loads the model for a command that runs it several times at once, on shared threads.

    Returns:
        The model, and the number of threads for all of its runs together.
    """
    from timesformer_runtime.model.cpu import granted_threads  # noqa: PLC0415
    from timesformer_runtime.workloads.workers import shared_threads  # noqa: PLC0415

    cores = threads or granted_threads()
    return load(threads=shared_threads(cores), share_of=cores, **options), cores
