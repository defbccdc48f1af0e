"""The options of all commands that run a model, and the function that loads the model."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from timesformer_runtime.cli.output import name_options, reworded, say
from timesformer_runtime.errors import InvalidOptionError
from timesformer_runtime.model.settings import DEVICES, check_device

if TYPE_CHECKING:
    from timesformer_runtime.classifier import VideoClassifier
    from timesformer_runtime.input.views import Views
    from timesformer_runtime.video.limits import DecodeLimits

_OF_PROVIDER = "'--provider-option'"

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of a model; the command passes them on to ``load``."""
    return combined(
        session_option(),
        *hub_options(),
        dtype_option(),
        *provider_options(),
        device_option(),
        threads_option(),
    )(function)


def models_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of a model of which several variants may be loaded, as ``dtypes``."""
    return combined(
        session_option(),
        *hub_options(),
        click.option(
            "--dtype",
            "dtypes",
            metavar="NAME",
            multiple=True,
            help="A file of the model, by its precision (repeatable): fp32, fp16, int8, q4, ...  "
            "[default: int8 on a CPU, fp16 on CUDA, else fp32]",
        ),
        *provider_options(),
        device_option(),
        threads_option(),
    )(function)


def threads_option() -> Decorator:
    """Adds ``--threads``."""
    return click.option(
        "--threads",
        type=click.IntRange(min=1),
        metavar="N",
        help="CPU threads.  [default: as many as CPU affinity and the container's quota grant]",
    )


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
        metavar="|".join(DEVICES),
        callback=_read_device,
        default="auto",
        show_default=True,
        help="Where the model runs; auto: on CUDA where it works, else on the CPU; cuda:N: on the "
        "GPU of number N, from 0.",
    )


def provider_options() -> tuple[Decorator, ...]:
    """Adds ``--allow-cpu-nodes``, ``--provider-option`` and ``--provider``."""
    return (
        click.option(
            "--allow-cpu-nodes",
            is_flag=True,
            help="Let the named device or provider leave nodes of the graph to the CPU.",
        ),
        click.option(
            "--provider-option",
            "provider_options",
            metavar="KEY=VALUE",
            multiple=True,
            help="An option of the provider (repeatable), such as device_type=GPU; "
            "NAME:KEY=VALUE where there are several providers.",
        ),
        click.option(
            "--provider",
            "providers",
            metavar="NAME",
            multiple=True,
            help="An execution provider of ONNX Runtime in place of --device, such as openvino "
            "(repeatable, the most wanted first).",
        ),
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


workers_option = click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many videos to work on at a time.  [default: one more than threads]",
)


def _read_device(context: click.Context, _parameter: click.Parameter, value: str) -> str:
    try:
        check_device(value)
    except InvalidOptionError as error:
        raise click.BadParameter(name_options(str(error), context.command)) from error
    return value


def options_of_providers(
    providers: Sequence[str], options: Sequence[str]
) -> list[dict[str, str]] | None:
    """Gives each provider its options.

    Args:
        providers: Names of providers, as given.
        options: ``KEY=VALUE`` for the only provider, or ``NAME:KEY=VALUE``.

    Returns:
        For each provider its options; None if the user gave no option of a provider.

    Raises:
        click.BadParameter: An option is not of that form, or belongs to none of the providers.
    """
    if not options:
        return None
    if not providers:
        raise click.BadParameter(
            f"{options[0]!r} needs a provider; name it with --provider", param_hint=_OF_PROVIDER
        )
    from timesformer_runtime.model.device import short_name  # noqa: PLC0415

    names = [short_name(name) for name in providers]
    found: list[dict[str, str]] = [{} for _ in providers]
    for option in options:
        key, equals, value = option.partition("=")
        provider, colon, rest = key.partition(":")
        if not equals or not key or (colon and not rest):
            raise click.BadParameter(f"{option!r} is not KEY=VALUE", param_hint=_OF_PROVIDER)
        if colon and short_name(provider) in names:
            found[names.index(short_name(provider))][rest] = value
        elif len(providers) > 1 or colon:
            raise click.BadParameter(
                f"{option!r} does not say of which provider; give one of "
                f"{', '.join(f'{name}:{rest or key}={value}' for name in providers)}",
                param_hint=_OF_PROVIDER,
            )
        else:
            found[0][key] = value
    return found


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
    providers: Sequence[str] = (),
    provider_options: Sequence[str] = (),
    allow_cpu_nodes: bool = False,
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
        providers=providers or None,
        provider_options=options_of_providers(providers, provider_options),
        allow_cpu_nodes=allow_cpu_nodes,
        dtype=dtype,
        threads=threads,
        revision=revision,
        local_files_only=local_files_only,
        session_options=session_options,
        views=views,
        limits=limits,
    )
    for note in classifier.notes:
        say(f"{classifier.name}: {reworded(note)}")
    reason = f" (auto: {classifier.device_reason})" if classifier.device_reason else ""
    used = share_of or classifier.threads
    threads_used = f"{used} thread{'s' if used > 1 else ''}"
    if used != classifier.threads:
        threads_used += f", {classifier.threads} for each run"
    seen = f", {classifier.views.describe()}" if classifier.views != Views() else ""
    say(
        f"{classifier.name}: {classifier.dtype or 'dtype as stored'}{_products(classifier)}, "
        f"device {classifier.device}{reason}, {threads_used}{seen}"
    )
    return classifier


def _products(classifier: VideoClassifier) -> str:
    """Says how an int8 model computes where that is not the usual way."""
    if classifier.wide_products:
        return " in 16-bit products (8-bit ones overflow on this CPU)"
    seven_bits = classifier.metadata.get("int8_target") == "avx2"
    return " with weights of 7 bits (for CPUs where those of 8 overflow)" if seven_bits else ""


def load_to_share(*, threads: int | None, **options: Any) -> tuple[VideoClassifier, int]:
    """Loads the model for a command that runs it several times at once, on shared threads.

    Returns:
        The model, and the number of threads for all of its runs together.
    """
    from timesformer_runtime.model.cpu import granted_threads  # noqa: PLC0415
    from timesformer_runtime.workloads.workers import shared_threads  # noqa: PLC0415

    cores = threads or granted_threads()
    return load(threads=shared_threads(cores), share_of=cores, **options), cores
