"""``timesformer stream``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from timesformer_runtime.cli.camera_options import CameraOptions, camera_options, taken
from timesformer_runtime.cli.limit_options import duration, limit_options
from timesformer_runtime.cli.model_options import load, model_options, top_k_option
from timesformer_runtime.cli.output import (
    INTERRUPTED,
    check_output,
    echo,
    fail_at_once,
    name_options,
    say,
)
from timesformer_runtime.cli.view_options import view_options, window_options
from timesformer_runtime.errors import InvalidOptionError

if TYPE_CHECKING:
    from timesformer_runtime.cameras.configuration import Configuration
    from timesformer_runtime.cameras.environment import Environment
    from timesformer_runtime.classifier import VideoClassifier
    from timesformer_runtime.workloads.stream import LiveResult

_LIVE = ("timeout", "drop", "format", "rtsp_transport", "hardware")
_FILES_ONLY = ("max_packets", "max_seconds", "isolated", "max_process_bytes")
_FACTS = ("latency", "dropped", "damaged")


@click.command()
@click.argument("model")
@click.argument("sources", metavar="URL|DEVICE|FILE...", nargs=-1)
@window_options
@top_k_option(1, "window")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per window and line.")
@click.option(
    "--timeout",
    type=duration,
    metavar="TIME",
    help="A source that gives no frame for this long counts as lost.  [default: 10s]",
)
@click.option(
    "--reconnect",
    type=click.IntRange(min=0),
    metavar="N",
    help="How many times in a row to try to connect to a lost source again, "
    "after 0.5, 1, 2, ... up to 30 seconds.  [default: 10; without end for several sources or one "
    "with a name, and with --events, --config, --skip-static or --report]",
)
@click.option("--no-reconnect", is_flag=True, help="Stop when the source ends or is lost.")
@click.option(
    "--drop/--no-drop",
    default=None,
    help="Skip frames that the model cannot keep up with, and classify the newest window.  "
    "[default: for live sources, not for files]",
)
@click.option(
    "--format",
    metavar="NAME",
    help="FFmpeg's name of a device or format, such as v4l2, hls or mjpeg.",
)
@click.option(
    "--rtsp-transport",
    type=click.Choice(["tcp", "udp"]),
    help="How an RTSP camera sends its packets.  [default: tcp]",
)
@click.option(
    "--hardware",
    metavar="NAME",
    help="Decode on hardware, by FFmpeg's name of it, such as cuda or vaapi; an error where that "
    "does not work.",
)
@camera_options
@view_options
@limit_options("max_pixels", "max_bytes", *_FILES_ONLY, files_only=_FILES_ONLY)
@model_options
def stream(
    sources: tuple[str, ...],
    top_k: int,
    as_json: bool,
    reconnect: int | None,
    no_reconnect: bool,
    window: float,
    stride: float,
    **options: Any,
) -> None:
    """Classify live sources, window after window.

    A source is a URL (rtsp, udp, http, https, rtmp, tcp, rtp), a device with its --format, or a
    video file, which is replayed as fast as the model can. The command runs until the source
    ends, or until Ctrl-C. Times count from the first frame.

    Several sources share the model and take turns. They may have names, as in
    door=rtsp://host/live. A source that is lost is tried again without end, unless --reconnect
    says otherwise. In a URL, ${NAME} stands for a variable of the environment.

    Where the URL is a file on a web server, the command connects again after its end and plays
    the file again; --no-reconnect prevents this. A web server may redirect to any other host,
    also to one in your own network: name only web servers that you trust.
    """
    from timesformer_runtime.cameras.configuration import name_and_address  # noqa: PLC0415
    from timesformer_runtime.cameras.environment import Environment  # noqa: PLC0415

    check_output()
    if no_reconnect and reconnect is not None:
        raise click.UsageError("--reconnect and --no-reconnect contradict each other: give one")
    cameras = taken(options)
    live = {name: options.pop(name) for name in _LIVE}
    live["reconnect"] = 0 if no_reconnect else reconnect
    if not sources and cameras.config is None:
        raise click.UsageError("Missing argument 'URL|DEVICE|FILE...'.")
    if sources and cameras.config is not None:
        raise click.UsageError("give sources or --config, not both")
    if cameras.events and _is_given("top_k"):
        raise click.UsageError("--top-k has no effect with --events, which looks at all labels")
    environment = Environment(os.environ)
    with environment.hidden_in_errors():
        if len(sources) == 1 and not cameras.for_many and name_and_address(sources[0])[0] is None:
            source = environment.in_address(sources[0])
            _check_limits(source, live["format"])
            live |= {"window": window, "stride": stride}
            _stream_one(load(**options), source, top_k, as_json, environment.hide, live)
        else:
            windows = (window, stride)
            _stream_many(sources, cameras, top_k, as_json, windows, live, options, environment)


def _stream_many(
    sources: tuple[str, ...],
    cameras: CameraOptions,
    top_k: int,
    as_json: bool,
    windows: tuple[float, float],
    live: dict[str, Any],
    model: dict[str, Any],
    environment: Environment,
) -> None:
    """Prints the windows or the events of several sources."""
    from timesformer_runtime.cameras.watching import errors_of  # noqa: PLC0415
    from timesformer_runtime.cli.cameras import Printing, watch  # noqa: PLC0415
    from timesformer_runtime.cli.signals import caught_signals  # noqa: PLC0415

    def tell(message: str) -> None:
        say(f"timesformer: {environment.hide(name_options(message, stream))}")

    def read() -> Configuration:
        configuration = cameras.configuration(sources, windows, live, environment)
        for source in configuration.sources:
            with errors_of(source):
                _check_limits(source.address, source.live.format)
        return configuration

    with caught_signals() as signals:
        configuration = read()
        if configuration.spool is not None and not cameras.events:
            raise click.UsageError(f"{cameras.config} names receivers of events: give --events too")
        printing = Printing(cameras.events, as_json, top_k, cameras.report)
        watch(load(**model), read, configuration, printing, signals, tell)


def _is_given(name: str) -> bool:
    """True for an option that the user gave."""
    source = click.get_current_context().get_parameter_source(name)
    return source is not click.core.ParameterSource.DEFAULT


def _check_limits(source: str | os.PathLike[str], form: str | None) -> None:
    """Refuses limits for files where a source is live."""
    from timesformer_runtime.workloads.stream_sources import is_live  # noqa: PLC0415

    given = click.get_current_context().params
    for name in _FILES_ONLY:
        if given[name] is not None and is_live(source, form):
            raise InvalidOptionError(f"`{name}` is for files; this source is live: leave it out")


def _stream_one(
    classifier: VideoClassifier,
    source: str,
    top_k: int,
    as_json: bool,
    hide: Callable[[str], str],
    options: Mapping[str, Any],
) -> None:
    """Prints the windows of one source."""
    from timesformer_runtime.cli.segment_lines import JsonLines, Rows  # noqa: PLC0415

    results = classifier.stream(
        source,
        top_k=top_k,
        notify=lambda message: say(f"timesformer: {hide(name_options(message, stream))}"),
        **options,
    )
    rows = Rows(classifier.labels, _FACTS)
    try:
        for result in results:
            lines = JsonLines().lines(result) if as_json else rows.lines(result, _facts(result))
            for line in lines:
                echo(line)
    except KeyboardInterrupt:
        # The network may not answer until the timeout; after Ctrl-C the command does not wait.
        fail_at_once("interrupted", INTERRUPTED)
    finally:
        results.close()


def _facts(result: LiveResult) -> tuple[str, ...]:
    from timesformer_runtime.cli.segment_lines import damage_of  # noqa: PLC0415

    return f"{result.latency:.2f} s", str(result.dropped_frames), damage_of(result)
