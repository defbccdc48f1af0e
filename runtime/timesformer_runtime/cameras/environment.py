"""Values of the environment in addresses: ``${NAME}``, so that no file has a password."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote

from timesformer_runtime.errors import InvalidOptionError, TimesformerError
from timesformer_runtime.video.live.address import is_url

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SHORTEST = 4  # characters of a value that ``hide`` looks for: "a" would hide half of a message


class Environment:
    """Fills in variables, and remembers their values, to keep them out of messages.

    Args:
        values: The variables, such as ``os.environ``.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self._secrets: set[str] = set()

    def in_address(self, text: str) -> str:
        """Fills variables into the address of a source, if it is a URL.

        Raises:
            InvalidOptionError: A variable is not set, or is empty.
        """
        return self.in_url(text) if is_url(text) else text

    def in_url(self, text: str) -> str:
        """Fills in variables, percent-encoded: a password may hold ``@`` or ``/``.

        Raises:
            InvalidOptionError: A variable is not set, or is empty.
        """
        return _VARIABLE.sub(lambda found: quote(self._value(found[1]), safe=""), text)

    def in_text(self, text: str) -> str:
        """Fills in variables as they are.

        Raises:
            InvalidOptionError: A variable is not set, or is empty.
        """
        return _VARIABLE.sub(lambda found: self._value(found[1]), text)

    def hide(self, text: str) -> str:
        """Replaces the values that were filled in by ``***``."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text

    @contextlib.contextmanager
    def hidden_in_errors(self) -> Iterator[None]:
        """Hides the values that were filled in, in the errors that leave the block."""
        try:
            yield
        except TimesformerError as error:
            message = str(error)
            if self.hide(message) == message:
                raise
            hidden = type(error)(self.hide(message))
        else:
            return
        raise hidden

    def _value(self, name: str) -> str:
        value = self._values.get(name)
        if not value:
            state = "is not set" if value is None else "is empty"
            raise InvalidOptionError(f"the environment variable {name} {state}; give it a value")
        if len(value) >= _SHORTEST:
            self._secrets |= {value, quote(value, safe=""), quote(value)}
        return value
