"""The configuration file: sources, events and receivers, as TOML.

spool = "events.sqlite3"

[defaults]                 # for all sources
window = 4.0               # seconds, as all times
enter = 0.7

[source.door]
address = "rtsp://user:${DOOR_PASSWORD}@10.0.0.5/live"

[source.door.label.cut]    # for one label of one source
min_duration = 2.0

[webhook]
url = "https://example.org/events"
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timesformer_runtime.cameras.environment import Environment, is_variable
from timesformer_runtime.cameras.events import EventRule, EventRules
from timesformer_runtime.cameras.receivers import MqttSettings, WebhookSettings, check_file_name
from timesformer_runtime.cameras.settings import SourceSettings
from timesformer_runtime.errors import InvalidOptionError, listed, named, quoted
from timesformer_runtime.source_names import shown
from timesformer_runtime.video.live.address import is_url
from timesformer_runtime.workloads.stream_sources import LiveSettings
from timesformer_runtime.workloads.windows import WindowSettings

_MOST_BYTES = 1 << 20  # of the file
_MOST_EVENTS = 1_000_000_000
_LIVE = tuple(field.name for field in dataclasses.fields(LiveSettings))
_RULE = tuple(field.name for field in dataclasses.fields(EventRule))
_SOURCE = ("window", "stride", *_LIVE, "static_level", "labels", *_RULE, "label")
_TOP = ("spool", "spool_events", "defaults", "source", "webhook", "mqtt")


@dataclasses.dataclass(frozen=True)
class Configuration:
    """Everything that a run needs besides the model.

    Attributes:
        sources: The sources.
        webhook: Where to POST events; None for nowhere.
        mqtt: The broker to publish events at; None for none.
        spool: The file that holds the events which a receiver does not have yet.
        spool_events: Most events that wait for a receiver; beyond, the oldest ones are dropped.
    """

    sources: tuple[SourceSettings, ...]
    webhook: WebhookSettings | None = None
    mqtt: MqttSettings | None = None
    spool: Path | None = None
    spool_events: int = 100_000

    def __post_init__(self) -> None:
        if (self.webhook or self.mqtt) and self.spool is None:
            raise InvalidOptionError(
                "`spool` is missing; name a file that holds the events while a receiver is away"
            )
        if self.spool and not (self.webhook or self.mqtt):
            raise InvalidOptionError(
                "`spool` has no effect without `webhook` or `mqtt`: leave it out, or give one"
            )
        if type(self.spool_events) is not int or not 1 <= self.spool_events <= _MOST_EVENTS:
            raise InvalidOptionError(
                f"`spool_events` is {quoted(self.spool_events)}; it must be an integer from 1 to "
                f"{_MOST_EVENTS}"
            )


def read_configuration(
    path: Path, defaults: SourceSettings, environment: Environment
) -> Configuration:
    """Reads a configuration file.

    Args:
        path: The file.
        defaults: The settings of sources for which the file says nothing else; its name and address
            are not used.
        environment: Fills in ``${NAME}`` in addresses, URLs and headers.

    Raises:
        InvalidOptionError: The file cannot be read, is not TOML, or has a value that is not
            allowed; the message names the file and the table.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        return _configuration(_parsed(data), defaults, environment)
    except OSError as error:
        reason = f"it cannot be read: {error.strerror or error}; give a TOML file with the sources"
    except InvalidOptionError as error:
        # A file has keys and not options, which the command line would make of these words.
        reason = str(error).replace("`", "'")
    raise InvalidOptionError(f"{path}: {reason}")


def _parsed(data: bytes) -> dict[str, Any]:
    if len(data) > _MOST_BYTES:
        raise InvalidOptionError(f"it has more than {_MOST_BYTES} bytes; give a smaller one")
    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise InvalidOptionError(f"it is not TOML: {error}") from error


def _configuration(
    data: Mapping[str, Any], defaults: SourceSettings, environment: Environment
) -> Configuration:
    _check_keys(data, _TOP, "the file")
    usual = _table(data, "defaults")
    defaults = _with_values(defaults, usual, {}, "defaults")
    tables = _table(data, "source")
    sources = tuple(
        _source(
            name, _table(tables, name, "source."), defaults, _table(usual, "label"), environment
        )
        for name in tables
    )
    webhook = _table(data, "webhook")
    mqtt = _table(data, "mqtt")
    spool = data.get("spool")
    if spool is not None:
        check_file_name("spool", spool)
    found = Configuration(
        sources=sources,
        webhook=webhook_of(webhook, environment) if "webhook" in data else None,
        mqtt=mqtt_of(mqtt, environment) if "mqtt" in data else None,
        spool=None if spool is None else Path(spool),
        spool_events=data.get("spool_events", Configuration.spool_events),
    )
    if not sources:
        raise InvalidOptionError("it has no source; give at least one, as a table [source.NAME]")
    return found


def _source(
    name: str,
    table: Mapping[str, Any],
    defaults: SourceSettings,
    labels: Mapping[str, Mapping[str, Any]],
    environment: Environment,
) -> SourceSettings:
    values = dict(table)
    address = values.pop("address", None)
    if not isinstance(address, str):
        raise InvalidOptionError(
            f"source.{named(name)}: `address` is missing or not a string; give a URL, a device or "
            "a file"
        )
    found = _with_values(defaults, values, labels, f"source.{named(name)}", "address")
    return dataclasses.replace(found, name=name, address=environment.in_address(address))


def _with_values(
    defaults: SourceSettings,
    table: Mapping[str, Any],
    labels: Mapping[str, Mapping[str, Any]],
    name: str,
    *others: str,
) -> SourceSettings:
    """Puts the values of a table in place of the defaults.

    Args:
        defaults: The values that the table does not have.
        table: The table.
        labels: The values of single labels among the defaults.
        name: The table's name, for errors.
        others: More keys that the table may have.
    """
    _check_keys(table, (*others, *_SOURCE), name)
    try:
        windows = WindowSettings(
            table.get("window", defaults.windows.length),
            table.get("stride", defaults.windows.stride),
        )
        return dataclasses.replace(
            defaults,
            windows=windows,
            live=dataclasses.replace(defaults.live, **_chosen(table, _LIVE)),
            rules=_rules(defaults.rules, table, labels),
            **_chosen(table, ("static_level",)),
        )
    except InvalidOptionError as error:
        raise InvalidOptionError(f"{name}: {error}") from error


def _rules(
    defaults: EventRules, table: Mapping[str, Any], usual_labels: Mapping[str, Mapping[str, Any]]
) -> EventRules:
    usual = dataclasses.replace(defaults.usual, **_chosen(table, _RULE))
    values = {label: dict(found) for label, found in usual_labels.items()}
    labels = _table(table, "label")
    for label in labels:
        found = _table(labels, label, "label.")
        _check_keys(found, _RULE, f"label.{named(label)}")
        values[label] = {**values.get(label, {}), **found}
    # Of the source's usual rule: what no label says is as for its other labels.
    own = {label: _rule(usual, label, found) for label, found in values.items()}
    given = table.get("labels", defaults.labels)
    if given is not None and not (
        isinstance(given, list | tuple) and given and all(isinstance(each, str) for each in given)
    ):
        raise InvalidOptionError(f"`labels` is {quoted(given)}; it must be a list of labels")
    return EventRules(None if given is None else tuple(given), usual, own)


def _rule(usual: EventRule, label: str, values: Mapping[str, Any]) -> EventRule:
    try:
        return dataclasses.replace(usual, **values)
    except InvalidOptionError as error:
        raise InvalidOptionError(f"label.{named(label)}: {error}") from error


def webhook_of(table: Mapping[str, Any], environment: Environment) -> WebhookSettings:
    """Makes the settings of a webhook from its table.

    Raises:
        InvalidOptionError: A value is not allowed.
    """
    _check_keys(table, ("url", "headers", "timeout"), "webhook")
    values = dict(table)
    headers = _table(values, "headers")
    for key, value in headers.items():
        if not isinstance(value, str):
            raise InvalidOptionError(f"webhook.headers: {named(key)} is not a string")
    values["headers"] = {key: environment.in_text(value) for key, value in headers.items()}
    values["url"] = environment.in_url(_url(values, "webhook"))
    return WebhookSettings(**values)


def mqtt_of(table: Mapping[str, Any], environment: Environment) -> MqttSettings:
    """Makes the settings of a broker from its table.

    Raises:
        InvalidOptionError: A value is not allowed.
    """
    _check_keys(table, ("url", "topic", "ca_file"), "mqtt")
    values = dict(table)
    values["url"] = environment.in_url(_url(values, "mqtt"))
    return MqttSettings(**values)


def _url(values: Mapping[str, Any], table: str) -> str:
    url = values.get("url")
    if not isinstance(url, str):
        raise InvalidOptionError(f"{table}: `url` is missing or not a string")
    return url


def _chosen(table: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: table[key] for key in keys if key in table}


def _table(data: Mapping[str, Any], key: str, parent: str = "") -> Mapping[str, Any]:
    found = data.get(key, {})
    if not isinstance(found, dict):
        raise InvalidOptionError(f"{parent}{named(key)} is {quoted(found)}; it must be a table")
    return found


def _check_keys(table: Mapping[str, Any], known: tuple[str, ...], name: str) -> None:
    unknown = [key for key in table if key not in known]
    if unknown:
        raise InvalidOptionError(
            f"{name} has the unknown key {named(unknown[0])}; the keys are {listed(known, 30)}"
        )


def sources_of_arguments(
    addresses: tuple[str, ...], defaults: SourceSettings, environment: Environment
) -> tuple[SourceSettings, ...]:
    """Makes the settings of sources that have no file: each is ``ADDRESS`` or ``NAME=URL``.

    Raises:
        InvalidOptionError: A variable is not set, or a name is not allowed.
    """
    found: list[SourceSettings] = []
    for given in addresses:
        name, address = name_and_address(given)
        name = shown(given) if name is None else name
        found.append(
            dataclasses.replace(defaults, name=name, address=environment.in_address(address))
        )
    return tuple(found)


def name_and_address(given: str) -> tuple[str | None, str]:
    """Splits ``NAME=URL``; the name is None where there is none."""
    name, equals, rest = given.partition("=")
    if equals and (is_url(rest) or is_variable(rest)) and not is_url(given):
        return name, rest
    return None, given
