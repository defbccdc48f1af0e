"""Finds the label of a model that the text of a dataset means: a name or a number."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Sequence

from timesformer_runtime.errors import InvalidOptionError, listed, quoted

_NUMBER = re.compile(r"[+-]?\d{1,18}(\.0*)?", re.ASCII)
_GENERIC = re.compile(r"LABEL_\d+")  # the names of transformers for labels without names
_NEAREST = 3


def number_of(text: str) -> int | None:
    """Reads a number such as ``7`` or ``7.0``; None for any other text."""
    return int(float(text)) if _NUMBER.fullmatch(text) else None


def forgiving(name: str) -> str:
    """Gives the letters and digits of a name: case, spaces, underscores and brackets do not count.

    So ``ApplyEyeMakeup``, ``apply_eye_makeup`` and ``Apply [eye] makeup`` are one name. A name
    without letters and digits stays as it is.
    """
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(character for character in folded if character.isalnum()) or folded


class LabelNames:
    """The labels of a model, to be found by name.

    Args:
        labels: The names in the model's order.

    Attributes:
        labels: As given.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self._exact = {label: index for index, label in reversed([*enumerate(self.labels)])}
        self._forgiving: dict[str, list[int]] = {}
        for index, label in enumerate(self.labels):
            self._forgiving.setdefault(forgiving(label), []).append(index)

    @property
    def are_generic(self) -> bool:
        """True where the model has no names, only LABEL_0, LABEL_1, ..."""
        return all(_GENERIC.fullmatch(label) for label in self.labels)

    def find(self, name: str) -> int | None:
        """Finds the number of a label by its name; None where the model does not have it.

        Raises:
            InvalidOptionError: Two labels of the model differ from the name only in case, spaces
                and signs.
        """
        if name in self._exact:
            return self._exact[name]
        found = self._forgiving.get(forgiving(name), [])
        if len(found) > 1:
            raise InvalidOptionError(
                f"the label {quoted(name)} can mean {_quotes(self.labels[i] for i in found)}, "
                "which differ only in case, spaces and signs; write it exactly as the model does"
            )
        return found[0] if found else None

    def nearest(self, name: str) -> str:
        """Lists the labels whose names are nearest to a name, for a message."""
        keys = difflib.get_close_matches(
            forgiving(name), list(self._forgiving), n=_NEAREST, cutoff=0.5
        )
        if keys:
            return f"the nearest are {_quotes(self.labels[self._forgiving[k][0]] for k in keys)}"
        return f"it has {listed(self.labels, 5)}"


def _quotes(names: object) -> str:
    return " and ".join(map(repr, names))  # type: ignore[call-overload]
