"""The options of ``timesformer stream`` for many sources and for events."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from timesformer_runtime.cli.limit_options import duration, duration_or_zero
from timesformer_runtime.cli.paths import PathType

if TYPE_CHECKING:
    from timesformer_runtime.cameras.configuration import Configuration
    from timesformer_runtime.cameras.environment import Environment
    from timesformer_runtime.cameras.events import EventRules

_RULES = ("enter", "leave", "min_duration", "gap")
_ONLY_EVENTS = (*_RULES, "labels", "webhook", "mqtt", "spool")
NAMES = ("events", "config", "skip_static", "static_level", "report", *_ONLY_EVENTS)


@dataclasses.dataclass(frozen=True)
class CameraOptions:
    """The options as given; None or empty where an option was left out."""

    events: bool
    config: Path | None
    skip_static: bool
    static_level: float | None
    report: float | None
    enter: float | None
    leave: float | None
    min_duration: float | None
    gap: float | None
    labels: tuple[str, ...]
    webhook: str | None
    mqtt: str | None
    spool: Path | None

    @property
    def for_many(self) -> bool:
        """True where an option needs the command for many sources, also with a single source."""
        return self.events or self.config is not None or self.skip_static or self.report is not None

    def check(self) -> None:
        """Makes sure that no option is without effect.

        Raises:
            click.UsageError: An option needs another one.
        """
        if self.static_level is not None and not self.skip_static:
            raise click.UsageError("--static-level has no effect without --skip-static: give both")
        given = [name for name in _ONLY_EVENTS if getattr(self, name) not in {None, ()}]
        if given and not self.events:
            option = "--label" if given[0] == "labels" else "--" + given[0].replace("_", "-")
            raise click.UsageError(f"{option} has no effect without --events: give both")
        in_file = [name for name in ("webhook", "mqtt", "spool") if getattr(self, name) is not None]
        if in_file and self.config is not None:
            raise click.UsageError(f"--{in_file[0]} and --config: write it into the file")

    def configuration(
        self,
        addresses: tuple[str, ...],
        windows: tuple[float, float],
        live: Mapping[str, Any],
        environment: Environment,
    ) -> Configuration:
        """Makes the configuration of the file, or else of the arguments.

        Args:
            addresses: The sources as given.
            windows: Length and stride of windows, in seconds.
            live: The values of ``LiveSettings``.
            environment: Fills variables into URLs.

        Raises:
            InvalidOptionError: The file or an option is wrong.
        """
        from timesformer_runtime.cameras import configuration as files  # noqa: PLC0415
        from timesformer_runtime.cameras.settings import SourceSettings  # noqa: PLC0415
        from timesformer_runtime.workloads.stream_sources import LiveSettings  # noqa: PLC0415
        from timesformer_runtime.workloads.windows import WindowSettings  # noqa: PLC0415

        defaults = SourceSettings(
            name="defaults",
            address="",
            windows=WindowSettings(*windows),
            live=LiveSettings(**live),
            rules=self._rules(),
            static_level=self._static_level(),
        )
        if self.config is not None:
            return files.read_configuration(self.config, defaults, environment)
        return files.Configuration(
            sources=files.sources_of_arguments(addresses, defaults, environment),
            webhook=files.webhook_of({"url": self.webhook}, environment) if self.webhook else None,
            mqtt=files.mqtt_of({"url": self.mqtt}, environment) if self.mqtt else None,
            spool=self.spool,
        )

    def _static_level(self) -> float | None:
        from timesformer_runtime.cameras.motion import USUAL_LEVEL  # noqa: PLC0415

        if not self.skip_static:
            return None
        return USUAL_LEVEL if self.static_level is None else self.static_level

    def _rules(self) -> EventRules:
        from timesformer_runtime.cameras.events import EventRule, EventRules  # noqa: PLC0415

        given = {name: getattr(self, name) for name in _RULES}
        usual = EventRule(**{name: value for name, value in given.items() if value is not None})
        return EventRules(self.labels or None, usual)


def camera_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options; the command takes them out of its own with ``taken``."""
    for decorate in reversed(
        (
            click.option(
                "--events",
                is_flag=True,
                help="Print when labels begin and end, as JSON lines, in place of windows.",
            ),
            click.option(
                "--enter",
                type=float,
                metavar="SCORE",
                help="Score at which an event begins.  [default: 0.6]",
            ),
            click.option(
                "--leave",
                type=float,
                metavar="SCORE",
                help="Score below which it ends.  [default: 0.4]",
            ),
            click.option(
                "--min-duration",
                type=duration_or_zero,
                metavar="TIME",
                help="Leave out events that are shorter.  [default: 0s]",
            ),
            click.option(
                "--gap",
                type=duration_or_zero,
                metavar="TIME",
                help="An event goes on after a pause of at most this length.  [default: 0s]",
            ),
            click.option(
                "--label",
                "labels",
                multiple=True,
                metavar="NAME",
                help="A label that may become an event (repeatable).  [default: all]",
            ),
            click.option(
                "--webhook",
                metavar="URL",
                help="POST each event to this URL, again and again until it is taken.",
            ),
            click.option(
                "--mqtt",
                metavar="URL",
                help="Publish each event: mqtt[s]://[USER:PASSWORD@]HOST[:PORT][/TOPIC].",
            ),
            click.option(
                "--spool",
                type=PathType(dir_okay=False),
                metavar="FILE",
                help="Holds the events that no receiver has yet; needed for --webhook and --mqtt.",
            ),
            click.option(
                "--skip-static",
                is_flag=True,
                help="Do not classify windows in which nothing moves.",
            ),
            click.option(
                "--static-level",
                type=click.FloatRange(0, 255),
                metavar="LEVEL",
                help="Brightness, from 0 to 255, by which a part of a window must change to count "
                "as motion.  [default: 4]",
            ),
            click.option(
                "--config",
                type=PathType(dir_okay=False),
                metavar="FILE",
                help="A TOML file with the sources and their settings; SIGHUP reads it again.",
            ),
            click.option(
                "--report",
                type=duration,
                metavar="TIME",
                help="Print the counts of each source this often, as JSON lines.",
            ),
        )
    ):
        function = decorate(function)
    return function


def taken(options: dict[str, Any]) -> CameraOptions:
    """Takes these options out of a command's options, and checks them."""
    found: Mapping[str, Any] = {name: options.pop(name) for name in NAMES}
    chosen = CameraOptions(**found)
    chosen.check()
    return chosen
