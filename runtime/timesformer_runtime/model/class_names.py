"""The names of a model's classes, from its configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from timesformer_runtime.errors import InvalidModelError, quoted
from timesformer_runtime.json_object import whole_number


def class_names(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Reads the names in the order of the classes; None where the configuration has none.

    Args:
        config: The contents of a ``config.json``. ``id2label`` counts; where that is absent,
            ``label2id`` counts.

    Raises:
        InvalidModelError: The names are not one for each class from 0 on.
    """
    for key, inverted in (("id2label", False), ("label2id", True)):
        given = config.get(key)
        if given is None:
            continue
        if not isinstance(given, Mapping) or not given:
            what = "names to class indices" if inverted else "class indices to names"
            raise InvalidModelError(f"{key} is {quoted(given)}; it must map {what}")
        pairs = ((index, name) for name, index in given.items()) if inverted else given.items()
        return _ordered(pairs, key)
    return None


def _ordered(pairs: Iterable[tuple[object, object]], key: str) -> tuple[str, ...]:
    """Orders names by class index; refuses gaps and two names for one class."""
    names: dict[int, str] = {}
    for given, name in pairs:
        index = _index(given, key)
        if index in names:
            raise InvalidModelError(
                f"{key} has two names for class {index}: {quoted(names[index])} and "
                f"{quoted(name)}; leave one of them out"
            )
        names[index] = str(name)
    missing = next((index for index in range(len(names)) if index not in names), None)
    if missing is not None:
        raise InvalidModelError(
            f"{key} has {len(names)} labels but none for index {missing}; "
            f"the indices must be 0 to {len(names) - 1}"
        )
    return tuple(names[index] for index in range(len(names)))


def _index(given: object, key: str) -> int:
    value = whole_number(given)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    # JSON writes the keys of id2label as text.
    if isinstance(value, str) and len(value) <= 20:
        try:
            return int(value)
        except ValueError:
            pass
    raise InvalidModelError(f"{key} has an index that is not an integer: {quoted(given)}")
