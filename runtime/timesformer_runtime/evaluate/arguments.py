"""Checks the types of ``evaluate``'s arguments, for messages that name the argument."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import Any

from timesformer_runtime.errors import InvalidOptionError, quoted
from timesformer_runtime.input.views import Views

_VIEWS = [field.name for field in dataclasses.fields(Views)]


def check_paths(paths: Mapping[str, Any], *, optional: Iterable[str]) -> None:
    """Checks that arguments are paths that a file can have.

    An empty path would be the current folder, and results would be written there.

    Args:
        paths: The values by the arguments' names.
        optional: The arguments that may be None.

    Raises:
        InvalidOptionError: One is something else, is empty, or has a NUL character.
    """
    for name, value in paths.items():
        if value is None and name in optional:
            continue
        path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
        if not isinstance(path, str):
            raise InvalidOptionError(f"`{name}` is {quoted(value)}; it must be a path")
        if not path:
            raise InvalidOptionError(
                f"`{name}` is empty; give a path, such as . for the current folder"
            )
        if "\0" in path:
            raise InvalidOptionError(
                f"`{name}` is {quoted(path)}, which has a NUL character; give a path without one"
            )


def check_others(dtypes: Any, split: Any, on_video: Any, options: Mapping[str, Any]) -> None:
    """Checks the types of the other arguments, and that none belongs into ``views``.

    Raises:
        InvalidOptionError: One has another type, or some belong into ``views``.
    """
    if not isinstance(dtypes, list | tuple) or not all(isinstance(dtype, str) for dtype in dtypes):
        raise InvalidOptionError(
            f"`dtypes` is {quoted(dtypes)}; it must be a name, such as 'int8', or a list of names"
        )
    if split is not None and not isinstance(split, str):
        raise InvalidOptionError(f"`split` is {quoted(split)}; it must be the name of a part")
    if on_video is not None and not callable(on_video):
        raise InvalidOptionError(f"`on_video` is {quoted(on_video)}; it must be a function")
    of_views = {name: options[name] for name in _VIEWS if name in options}
    if of_views:
        names = " and ".join(f"`{name}`" for name in of_views)
        are = "is an option" if len(of_views) == 1 else "are options"
        raise InvalidOptionError(f"{names} {are} of Views; say `views={_views(of_views)}`")


def _views(options: Mapping[str, Any]) -> str:
    """Writes the Views with some options, as Python code."""
    is_facebook = options.get("protocol") == "facebook"
    arguments = ", ".join(
        f"{name}={_shown(name, value)}"
        for name, value in options.items()
        if not (is_facebook and name == "protocol")
    )
    return f"Views{'.facebook' if is_facebook else ''}({arguments})"


def _shown(name: str, value: Any) -> str:
    is_method = name == "sampling" and isinstance(value, str)
    return f"Sampling({quoted(value)})" if is_method else quoted(value)
