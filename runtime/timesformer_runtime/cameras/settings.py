"""The settings of many sources: their addresses, their windows and their events."""

from __future__ import annotations

import dataclasses
import os
import re

from timesformer_runtime.cameras.events import EventRules
from timesformer_runtime.errors import InvalidOptionError, quoted
from timesformer_runtime.workloads.stream_sources import LiveSettings
from timesformer_runtime.workloads.windows import WindowSettings

_LONGEST_NAME = 200  # characters


@dataclasses.dataclass(frozen=True)
class SourceSettings:
    """One source among many.

    Attributes:
        name: The source's name in results, events and messages.
        address: A URL, a device with its format, or the path of a file.
        windows: Length and stride of the windows.
        live: Options for reading.
        rules: The labels that become events.
        static_level: Windows of which no part changes its brightness by more than this, from 0 to
            255, are not classified; None to classify all windows.

    Raises:
        InvalidOptionError: The name is empty, too long, or has characters that do not print.
    """

    name: str
    address: str | os.PathLike[str] = dataclasses.field(repr=False)  # it may contain a password
    windows: WindowSettings = dataclasses.field(default_factory=WindowSettings)
    live: LiveSettings = dataclasses.field(default_factory=LiveSettings)
    rules: EventRules = dataclasses.field(default_factory=EventRules)
    static_level: float | None = None

    def __post_init__(self) -> None:
        if not re.search(r"\S", self.name) or len(self.name) > _LONGEST_NAME:
            raise InvalidOptionError(
                f"a source's name is {quoted(self.name)}; it must have 1 to {_LONGEST_NAME} "
                "characters"
            )
        if not self.name.isprintable():
            raise InvalidOptionError(
                f"a source's name is {quoted(self.name)}; its characters must be printable"
            )
        level = self.static_level
        if level is not None and not (type(level) in {int, float} and 0 <= level <= 255):
            raise InvalidOptionError(
                f"`static_level` is {quoted(level)}; it must be a number from 0 to 255"
            )

    def reads_like(self, other: SourceSettings) -> bool:
        """True if both read the source in one way: only the rules or the level may differ."""
        return (self.address, self.windows, self.live) == (
            other.address,
            other.windows,
            other.live,
        )
