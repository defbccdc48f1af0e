"""``timesformer verify``."""

from __future__ import annotations

import sys
from typing import Any

import click

from timesformer_runtime.cli.model_options import load, model_options
from timesformer_runtime.cli.output import CHECK_FAILED, check_output, echo
from timesformer_runtime.errors import printable


@click.command()
@click.argument("model")
@model_options
def verify(**options: Any) -> None:
    """Check that MODEL gives PyTorch's answer on this machine.

    The .onnx file holds PyTorch's answer for generated frames. The command runs the model on the
    same frames and compares; where the answers differ too much, the exit code is 1.
    """
    check_output()
    check = load(**options).verify()
    echo(
        f"{printable(check.output)}: max-abs {check.max_abs:.3g}, relative {check.relative:.3g}, "
        f"cosine {check.cosine:.8f}, top-1 {'agrees' if check.top1_agrees else 'differs'}"
    )
    limits = check.limit
    if check.rollout is not None:
        rollout = check.rollout
        echo(
            f"{rollout.output}: max-abs {rollout.max_abs:.3g} of an even share, "
            f"{'cosine' if 'max-abs' in rollout.limit else 'correlation'} {rollout.cosine:.8f}"
        )
        limits += f"; {rollout.output} {rollout.limit}"
    echo(f"{'passed' if check.passed else 'FAILED'}: {limits}")
    if not check.passed:
        sys.exit(CHECK_FAILED)
