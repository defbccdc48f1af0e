"""The options of the commands that measure a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
model_option = click.option("--model", "folder", type=FOLDER, required=True, help="Model folder.")
write_card_option = click.option(
    "--write-card", is_flag=True, help="Put what is printed into the model's README.md."
)
threads_option = click.option("--threads", default=1, show_default=True, help="CPU threads.")


def renders_option(*, required: bool = True, pool: str = "Pool") -> Decorator:
    """Adds ``--renders``; ``pool`` begins its help text."""
    return click.option(
        "--renders",
        type=FOLDER,
        required=required,
        help=f"{pool} of held-out renders, of the model's image size.",
    )
