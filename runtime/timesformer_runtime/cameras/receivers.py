"""The settings of receivers of events: a webhook, and a broker of MQTT."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from urllib.parse import SplitResult, unquote, urlsplit

from timesformer_runtime.errors import InvalidOptionError, named, quoted
from timesformer_runtime.source_names import shown
from timesformer_runtime.workloads.stream_sources import check_timeout

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_LONGEST_TOPIC = 1000  # bytes; the name of a source follows, and 65,535 are MQTT's limit


@dataclasses.dataclass(frozen=True)
class WebhookSettings:
    """A server to which events are posted.

    Attributes:
        url: Its URL, http or https.
        headers: Headers of each request, such as ``Authorization``.
        timeout: Seconds that the server may take to answer.

    Raises:
        InvalidOptionError: A value is not allowed.
    """

    url: str = dataclasses.field(repr=False)
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    timeout: float = 10.0

    def __post_init__(self) -> None:
        parts = _split(self.url, "webhook", ("http", "https"))
        if not (parts.path + parts.query).isascii():
            raise InvalidOptionError(
                f"`webhook` is {self.name}; percent-encode its characters that are not ASCII"
            )
        check_timeout("`timeout` of the webhook", self.timeout)
        for name, value in self.headers.items():
            if not (name and name.isascii() and name.replace("-", "").isalnum()):
                raise InvalidOptionError(f"the webhook's header {named(name)} is not a name")
            if not (value.isascii() and value.isprintable()):
                raise InvalidOptionError(
                    f"the webhook's header {name} has characters that a header cannot have"
                )

    @property
    def name(self) -> str:
        """The URL for messages, without secrets."""
        return shown(self.url)


@dataclasses.dataclass(frozen=True)
class MqttSettings:
    """A broker at which events are published.

    Attributes:
        url: ``mqtt://`` or, with TLS, ``mqtts://``; then ``[USER:PASSWORD@]HOST[:PORT]``, and
            ``/TOPIC`` in place of ``topic``.
        topic: The beginning of all topics; by default ``timesformer``.
        ca_file: A file of certificates to trust for ``mqtts``; by default the system's.

    Raises:
        InvalidOptionError: A value is not allowed.
    """

    url: str = dataclasses.field(repr=False)
    topic: str | None = None
    ca_file: str | None = None

    def __post_init__(self) -> None:
        parts = _split(self.url, "mqtt", tuple(_PORTS))
        if set("?#") & set(self.url):
            raise InvalidOptionError(f"the URL of MQTT is {self.name}; it must end after its topic")
        if self.topic is not None and parts.path.strip("/"):
            raise InvalidOptionError(
                "the URL of MQTT and `topic` both name a topic; leave out one of them"
            )
        topic = self.prefix
        if set("+#") & set(topic) or not topic.isprintable() or topic.startswith("$"):
            raise InvalidOptionError(
                f"the topic of MQTT is {quoted(topic)}; it must not begin with $, or have +, # or "
                "characters that do not print"
            )
        if len(topic.encode()) > _LONGEST_TOPIC:
            raise InvalidOptionError(
                f"the topic of MQTT is {quoted(topic)}; it must have at most {_LONGEST_TOPIC} bytes"
            )
        if self.ca_file is not None:
            check_file_name("ca_file", self.ca_file)
            if parts.scheme != "mqtts":
                raise InvalidOptionError("`ca_file` is for mqtts; leave it out, or use mqtts")

    @property
    def name(self) -> str:
        """The URL for messages, without secrets."""
        return shown(self.url)

    @property
    def prefix(self) -> str:
        """The beginning of all topics, without a slash at its end."""
        if self.topic is not None:
            if not isinstance(self.topic, str) or not self.topic.strip("/"):
                raise InvalidOptionError(f"`topic` is {quoted(self.topic)}; it must be a topic")
            return self.topic.strip("/")
        return unquote(urlsplit(self.url).path).strip("/") or "timesformer"

    @property
    def host(self) -> str:
        """The broker's host."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The broker's port."""
        parts = urlsplit(self.url)
        return parts.port or _PORTS[parts.scheme]

    @property
    def encrypted(self) -> bool:
        """True for a connection with TLS."""
        return urlsplit(self.url).scheme == "mqtts"

    @property
    def credentials(self) -> tuple[str, str | None] | None:
        """User and password; None for none."""
        parts = urlsplit(self.url)
        if parts.username is None:
            return None
        return unquote(parts.username), None if parts.password is None else unquote(parts.password)


def check_file_name(key: str, value: object) -> None:
    """Makes sure that a value of the configuration can be the name of a file.

    Raises:
        InvalidOptionError: It cannot.
    """
    if not isinstance(value, str) or not value or "\0" in value:
        raise InvalidOptionError(f"`{key}` is {quoted(value)}; it must be the name of a file")


def _split(url: str, name: str, schemes: tuple[str, ...]) -> SplitResult:
    """Splits a URL, and makes sure that it has a scheme of these and a host."""
    try:
        parts = urlsplit(url)
        is_right = parts.scheme in schemes and (parts.port or 1) > 0
        is_right &= bool((parts.hostname or "").encode("idna"))
    except ValueError:  # such as a port that is not a number, or a host with two dots in a row
        is_right = False
    if not is_right or not url.isprintable() or " " in url:
        raise InvalidOptionError(
            f"`{name}` is {shown(url)}; it must be a URL that begins with "
            f"{' or '.join(f'{scheme}://' for scheme in schemes)} and names a host"
        )
    return parts
