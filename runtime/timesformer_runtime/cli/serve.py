"""``timesformer serve``."""

from __future__ import annotations

import ipaddress
import os
import time
from pathlib import Path
from typing import Any

import click

from timesformer_runtime.cli.limit_options import duration, limit_options
from timesformer_runtime.cli.model_options import (
    Decorator,
    combined,
    load_to_share,
    model_options,
    top_k_option,
)
from timesformer_runtime.cli.output import one_line, say
from timesformer_runtime.cli.paths import PathType
from timesformer_runtime.cli.view_options import view_options, window_options

_TOKEN = "TIMESFORMER_SERVE_TOKEN"  # noqa: S105  # the name of a variable


@click.command()
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port to listen on; 0: any that is free.",
)
@click.option(
    "--token-file",
    type=PathType(),
    metavar="FILE",
    help="File with the token that clients have to send as `Authorization: Bearer TOKEN`.  "
    f"[default: the environment's {_TOKEN}; without it, everybody is let in]",
)
@click.option(
    "--queue",
    type=click.IntRange(min=0),
    default=16,
    show_default=True,
    metavar="N",
    help="How many requests may wait for a worker; the next one is refused with status 503.",
)
@click.option(
    "--max-upload",
    type=click.IntRange(min=1),
    default=1 << 29,
    metavar="N",
    help="Refuse requests with more bytes.  [default: 512 MiB]",
)
@click.option(
    "--upload-time",
    type=duration,
    default="1m",
    show_default=True,
    metavar="TIME",
    help="Refuse requests that take longer to arrive.",
)
@click.option(
    "--drain",
    type=duration,
    default="30s",
    show_default=True,
    metavar="TIME",
    help="After SIGTERM: how long the last requests may take.",
)
@click.option(
    "--timeline-time",
    type=duration,
    default="1h",
    show_default=True,
    metavar="TIME",
    help="Refuse timelines that take longer, the model's runs included.",
)
@limit_options(  # without max_pipe_bytes: uploads become files
    *("max_pixels", "max_packets", "max_seconds", "max_bytes", "isolated", "max_process_bytes"),
    defaults={"max_pixels": "9437184", "max_seconds": "60s", "max_bytes": "536870912"},
)
@model_options
def serve(  # noqa: PLR0913, PLR0917  # the options of the command, by name
    models: tuple[str, ...],
    host: str,
    port: int,
    token_file: Path | None,
    queue: int,
    max_upload: int,
    upload_time: float,
    drain: float,
    timeline_time: float,
    **options: Any,
) -> None:
    """Serve MODELs over HTTP: for people, programs, Open Inference Protocol clients, Prometheus.

    POST a video to /v1/classify or /v1/timeline; open / in a browser to drop a video on a page;
    /docs describes all requests. The extra `serve` brings the libraries:
    pip install "timesformer-onnx[serve]".

    Videos come from strangers, so some limits are lower than those of other commands. With
    --isolated a video that crashes FFmpeg costs an error and nothing else.
    """
    start = time.perf_counter()
    from timesformer_runtime.serve.query import OptionReader, Queries  # noqa: PLC0415
    from timesformer_runtime.serve.server import listen, run  # noqa: PLC0415
    from timesformer_runtime.serve.settings import ServiceSettings  # noqa: PLC0415

    token = _token(token_file)
    settings = ServiceSettings(
        limits=options["limits"],
        queue=queue,
        max_upload=max_upload,
        upload_seconds=upload_time,
        timeline_seconds=timeline_time,
        token=token,
    )
    with listen(host, port) as listening:
        address, port = listening.getsockname()[:2]
        if token is None and not ipaddress.ip_address(address).is_loopback:
            say(
                f"timesformer: everybody who reaches {host} may use this service; give "
                f"--token-file, or set {_TOKEN}"
            )
        imported = time.perf_counter() - start
        loaded = [load_to_share(model=model, **options) for model in models]
        cores = loaded[0][1]
        loading = time.perf_counter() - start - imported

        def ready() -> None:
            own = time.perf_counter() - start - loading
            say(
                f"timesformer: serving at http://{_in_url(host)}:{port} (ready after "
                f"{loading:.2f} s of loading and {own:.2f} s of its own)"
            )

        run(
            listening,
            [classifier for classifier, _ in loaded],
            cores,
            settings,
            queries=Queries(
                classify=OptionReader(_classify_query),
                timeline=OptionReader(_timeline_query),
                infer=OptionReader(_infer_query),
            ),
            drain_seconds=drain,
            ready=ready,
        )


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _token(file: Path | None) -> str | None:
    """Reads the token from a file or the environment; None where there is none."""
    if file is None:
        token = os.environ.get(_TOKEN, "")
        if not token:
            return None
        origin = _TOKEN
    else:
        origin = str(file)
        try:
            token = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise click.BadParameter(
                f"{origin} cannot be read: {reason}", param_hint="'--token-file'"
            ) from error
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise click.UsageError(
            f"{one_line(origin)} does not hold a token; write one of printable ASCII characters "
            "without spaces"
        )
    return token


def _model_option() -> Decorator:
    return click.option(
        "--model", help="Name of the model; needed where several models are served."
    )


def _query(**options: Any) -> dict[str, Any]:
    """Gives the options of a request as the service uses them."""
    return options


# The queries of requests have the options of the commands.
_classify_query = click.command("classify")(
    combined(
        view_options,
        click.option("--pictures", is_flag=True, help="Also give frames as JPEG pictures."),
        top_k_option(5, "video"),
        _model_option(),
    )(_query)
)
_timeline_query = click.command("timeline")(
    combined(
        view_options,
        top_k_option(1, "segment"),
        click.option("--merge", is_flag=True, help="Join neighbouring windows with one label."),
        window_options,
        _model_option(),
    )(_query)
)
_infer_query = click.command("infer")(view_options(_query))
