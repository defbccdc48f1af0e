"""``timesformer doctor``."""

from __future__ import annotations

import sys

import click

from timesformer_runtime.cli.output import CHECK_FAILED


@click.command()
def doctor() -> None:
    """Show versions, providers, instruction sets and threads."""
    from timesformer_runtime.cli.diagnosis import diagnose  # noqa: PLC0415

    diagnosis = diagnose()
    width = max(len(name) for name in diagnosis.facts)
    for name, fact in diagnosis.facts.items():
        click.echo(f"{name:{width}}  {fact}")
    for problem in diagnosis.problems:
        click.echo(f"problem: {problem}")
    if diagnosis.problems:
        sys.exit(CHECK_FAILED)
