"""The type of options and arguments that are paths."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click


class PathType(click.Path):
    """A path, as a ``Path``; an empty one, as of an unset variable, is refused.

    ``Path("")`` is the current folder, and results would be written there.

    Args:
        exists: The path must exist.
        dir_okay: The path may be a folder.
    """

    def __init__(self, *, exists: bool = False, dir_okay: bool = True) -> None:
        super().__init__(exists=exists, dir_okay=dir_okay, path_type=Path)

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """Refuses an empty text; else as ``click.Path``."""
        if not os.fspath(value):
            self.fail("it is empty; give a path, such as . for the current folder", param, ctx)
        return super().convert(value, param, ctx)
