"""``timesformer doctor``."""

from __future__ import annotations

import json
import sys

import click

from timesformer_runtime.cli.output import CHECK_FAILED, check_output, echo
from timesformer_runtime.errors import printable


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def doctor(as_json: bool) -> None:
    """Check the installation: versions, providers, NVIDIA's libraries, processor, memory, FFmpeg.

    The command runs a tiny TimeSformer on each of ONNX Runtime's providers, and compares the
    values with PyTorch's. Where something is wrong, it says what to do, and the exit code is 1.
    """
    from timesformer_runtime.cli.diagnosis import diagnose  # noqa: PLC0415

    check_output()
    diagnosis = diagnose()
    if as_json:
        echo(json.dumps(diagnosis.to_dict()))
    else:
        width = max(len(name) for name in diagnosis.facts)
        for name, fact in diagnosis.facts.items():
            echo(f"{name:{width}}  {printable(fact.text)}")
        for problem in diagnosis.problems:
            echo(f"problem: {printable(problem)}")
    if diagnosis.problems:
        sys.exit(CHECK_FAILED)
