"""Checks the types of ``evaluate``'s arguments, for messages that name the argument."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import Any

from timesformer_runtime.errors import InvalidOptionError, quoted
from timesformer_runtime.input.views import Views

_VIEWS = frozenset(field.name for field in dataclasses.fields(Views))


def check_paths(paths: Mapping[str, Any], *, optional: Iterable[str]) -> None:
    """Checks that arguments are paths.

    Args:
        paths: The values by the arguments' names.
        optional: The arguments that may be None.

    Raises:
        InvalidOptionError: One is something else.
    """
    for name, value in paths.items():
        if isinstance(value, str | os.PathLike) or (value is None and name in optional):
            continue
        raise InvalidOptionError(f"`{name}` is {quoted(value)}; it must be a path")


def check_others(dtypes: Any, split: Any, on_video: Any, options: Mapping[str, Any]) -> None:
    """Checks the arguments that are no paths.

    Raises:
        InvalidOptionError: One has another type, or belongs into ``views``.
    """
    if not isinstance(dtypes, list | tuple) or not all(isinstance(dtype, str) for dtype in dtypes):
        raise InvalidOptionError(
            f"`dtypes` is {quoted(dtypes)}; it must be a name, such as 'int8', or a list of names"
        )
    if split is not None and not isinstance(split, str):
        raise InvalidOptionError(f"`split` is {quoted(split)}; it must be the name of a part")
    if on_video is not None and not callable(on_video):
        raise InvalidOptionError(f"`on_video` is {quoted(on_video)}; it must be a function")
    for name in _VIEWS & options.keys():
        views = f"Views({name}={_shown(name, options[name])})"
        if name == "protocol" and options[name] == "facebook":
            views = "Views.facebook()"
        raise InvalidOptionError(f"`{name}` is an option of Views; say `views={views}`")


def _shown(name: str, value: Any) -> str:
    is_method = name == "sampling" and isinstance(value, str)
    return f"Sampling({quoted(value)})" if is_method else quoted(value)
