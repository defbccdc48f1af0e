"""``timesformer doctor``."""

from __future__ import annotations

import sys

import click

from timesformer_runtime.cli.output import CHECK_FAILED, check_output, echo
from timesformer_runtime.errors import printable


@click.command()
def doctor() -> None:
    """Check the installation: show versions, providers, instruction sets and threads.

    Where something is wrong, the command says what to do, and the exit code is 1.
    """
    from timesformer_runtime.cli.diagnosis import diagnose  # noqa: PLC0415

    check_output()
    diagnosis = diagnose()
    width = max(len(name) for name in diagnosis.facts)
    for name, fact in diagnosis.facts.items():
        echo(f"{name:{width}}  {printable(fact)}")
    for problem in diagnosis.problems:
        echo(f"problem: {printable(problem)}")
    if diagnosis.problems:
        sys.exit(CHECK_FAILED)
