"""Values of the environment in addresses: ``${NAME}``, so that no file has a password."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import quote

from timesformer_runtime.errors import InvalidOptionError, TimesformerError
from timesformer_runtime.video.live.address import is_url

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
# Characters of a value that ``hide`` finds anywhere; shorter ones it finds where they stand alone:
# "a" would hide half of a message.
_SHORTEST = 4


class Environment:
    """Fills in variables, and remembers their values, to keep them out of messages.

    Args:
        values: The variables, such as ``os.environ``.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self._secrets: set[str] = set()

    def in_address(self, text: str) -> str:
        """Fills variables into the address of a source, if it is a URL or one variable.

        Raises:
            InvalidOptionError: A variable is not set, or is empty, or has no name.
        """
        return self.in_url(text) if is_url(text) or is_variable(text) else text

    def in_url(self, text: str) -> str:
        """Fills in variables, percent-encoded: a password may hold ``@`` or ``/``.

        A text that is one variable has its value as it is: a whole URL.

        Raises:
            InvalidOptionError: A variable is not set, or is empty, or has no name.
        """
        if is_variable(text):
            return self.in_text(text)
        return self._filled(text, lambda value: quote(value, safe=""))

    def in_text(self, text: str) -> str:
        """Fills in variables as they are.

        Raises:
            InvalidOptionError: A variable is not set, or is empty, or has no name.
        """
        return self._filled(text, str)

    def _filled(self, text: str, encode: Callable[[str], str]) -> str:
        if "${" in _VARIABLE.sub("", text):
            raise InvalidOptionError(
                "'${' must begin the name of a variable, as in ${PASSWORD}; where it is a part of "
                "a password, give the password in a variable"
            )
        return _VARIABLE.sub(lambda found: encode(self._value(found[1])), text)

    def hide(self, text: str) -> str:
        """Replaces the values that were filled in by ``***``."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            if len(secret) >= _SHORTEST:
                text = text.replace(secret, "***")
            else:
                text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
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
        self._secrets |= {value, quote(value, safe=""), quote(value)}
        return value


def is_variable(text: str) -> bool:
    """True for a text that is one variable and nothing else."""
    return _VARIABLE.fullmatch(text) is not None
