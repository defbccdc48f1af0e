"""Proves the runtime on emulated 64-bit ARM processors.

    python -m tests.arm64.check --cpu cortex-a53 --cpu neoverse-n2

The check builds an ARM machine from Debian's packages in build/arm64, installs the project's wheel
there with wheels for ARM of its dependencies, and runs on each processor: `timesformer verify`, all
sample clips in every variant, and the runtime's tests. Labels must be equal to those of this
machine, and logits must be as near to them as the exporter's gate demands.
"""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import click
import numpy as np
from timesformer_exporter import ExportOptions, export
from timesformer_runtime.model.gate import VariantFidelity, measure

from tests.arm64 import machine, packages, suite
from tests.arm64.answers import DTYPES
from tests.arm64.machine import CPUS, I8MM, NO_DOT_PRODUCTS, REPOSITORY, Machine
from tests.debian_packages import DebianError

_SHORT_CPUS = (NO_DOT_PRODUCTS, I8MM)
_KINDS = ("divided", "joint", "space")
_COMMAND_SECONDS = 2 * 3600.0  # enough for all models and variants, even on a busy machine
_SUITE_SECONDS = 4 * 3600.0


@dataclasses.dataclass(frozen=True)
class Row:
    """One variant on an emulated processor, against the same file on this machine.

    Attributes:
        model: The folder's name.
        dtype: The variant.
        fidelity: The agreement of the logits of all sample clips.
        problems: A phrase for each thing that is not as it should be.
    """

    model: str
    dtype: str
    fidelity: VariantFidelity
    problems: tuple[str, ...]


@click.command()
@click.option(
    "--cpu",
    "cpus",
    multiple=True,
    metavar="NAME",
    help=f"A processor in qemu's spelling; may be repeated. Default: {', '.join(CPUS)}.",
)
@click.option(
    "--short",
    is_flag=True,
    help=f"One model on {' and '.join(_SHORT_CPUS)}, and a few of the tests on the first of them.",
)
def main(cpus: tuple[str, ...], short: bool) -> None:
    """Exits with 1 where a processor gives another result, with 2 where the check cannot run."""
    problem = machine.missing()
    if problem is not None:
        _stop(problem)
    with tempfile.TemporaryDirectory(prefix="check-arm64-") as folder:
        try:
            arm = machine.build(Path(folder))
            wheel = packages.install(arm)
        except (DebianError, packages.InstallError) as error:
            _stop(str(error))
        click.echo(f"{wheel} is installed on an ARM machine, in {arm.root}")
        models = _export(Path(folder), _KINDS[:1] if short else _KINDS)
        here = _answers_here(models)
        chosen = cpus or (_SHORT_CPUS if short else CPUS)
        try:
            passed = [_check_results(arm, cpu, models, here) for cpu in chosen]
            passed += [_check_suite(arm, cpu, short) for cpu in (chosen[:1] if short else chosen)]
        except subprocess.TimeoutExpired as error:
            click.echo(f"check_arm64: it is not done after {error.timeout:.0f} s", err=True)
            sys.exit(1)
    sys.exit(0 if all(passed) else 1)


def compare(expected: dict[str, Any], found: dict[str, Any]) -> list[Row]:
    """Compares the answers of two machines, as ``tests.arm64.answers`` prints them."""
    return [
        _compare_variant(model, dtype, np.array(logits), np.array(found["logits"][model][dtype]))
        for model, variants in expected["logits"].items()
        for dtype, logits in variants.items()
    ]


def _compare_variant(model: str, dtype: str, expected: Any, found: Any) -> Row:
    # The gate has no limits for fp32, because the exporter demands more of it, for equal pixels.
    # FFmpeg's pixels differ between x86 and ARM, so the strictest of the gate's limits apply.
    fidelity = measure("fp16" if dtype == "fp32" else dtype, expected, found, logits=True)
    changed = int((expected.argmax(axis=1) != found.argmax(axis=1)).sum())
    labels = (f"{changed} of {len(expected)} labels differ",) if changed else ()
    return Row(model, dtype, fidelity, (*fidelity.missed, *labels))


def _export(folder: Path, kinds: tuple[str, ...]) -> list[Path]:
    """Exports bundled models in all variants into a folder that the ARM machine sees."""
    sources = {kind: str(REPOSITORY / "models" / f"shot-transitions-{kind}") for kind in kinds}
    return [
        export(ExportOptions(source, output=folder / kind, dtypes=DTYPES)).folder
        for kind, source in sources.items()
    ]


def _answers_here(models: list[Path]) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.arm64.answers", *map(str, models)]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers


def _check_results(arm: Machine, cpu: str, models: list[Path], here: dict[str, Any]) -> bool:
    """Runs ``verify`` and the sample clips on a processor, and prints a table."""
    shared = [f"/shared/{model.name}" for model in models]
    verified = [_verify(arm, cpu, model, dtype) for model in models for dtype in DTYPES]
    command = ["python3", "-m", "tests.arm64.answers", *shared]
    done = arm.run(cpu, command, seconds=_COMMAND_SECONDS)
    if done.returncode:
        click.echo(f"{cpu}: {done.stderr}")
        return False
    found = json.loads(done.stdout)
    rows = compare(here, found)
    click.echo(f"\n{cpu} ({', '.join(found['instruction_sets']) or 'no dot products'})")
    click.echo(f"{'model':8}  {'variant':7}  {'cosine':9}  difference/range  verify")
    for row, problem in zip(rows, verified, strict=True):
        fidelity = row.fidelity
        problems = "; ".join((*row.problems, *problem))
        click.echo(
            f"{row.model:8}  {row.dtype:7}  {fidelity.cosine:9.7f}  {fidelity.relative:16.5f}  "
            f"{'FAILED' if problem else 'passed'}  {problems}".rstrip()
        )
    return not any(row.problems for row in rows) and not any(verified)


def _verify(arm: Machine, cpu: str, model: Path, dtype: str) -> tuple[str, ...]:
    """Runs ``timesformer verify`` on a file; returns what is wrong."""
    command = ["timesformer", "verify", f"/shared/{model.name}", "--dtype", dtype]
    done = arm.run(cpu, command, seconds=_COMMAND_SECONDS)
    return (done.stderr.strip() or done.stdout.strip(),) if done.returncode else ()


def _check_suite(arm: Machine, cpu: str, short: bool) -> bool:
    """Runs the runtime's tests on a processor, and shows what they print."""
    click.echo(f"\n{cpu}: tests")
    for name, reason in suite.DESELECTED.items():
        click.echo(f"left out: {name}: {reason}")
    command = ["python3", "-m", "pytest", *suite.arguments(short=short)]
    done = arm.run(cpu, command, seconds=_SUITE_SECONDS, variables=suite.VARIABLES, show=True)
    return done.returncode == 0


def _stop(problem: str) -> NoReturn:
    click.echo(f"check_arm64: {problem}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # else the machine would go on
    main()
