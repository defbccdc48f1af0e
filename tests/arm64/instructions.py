"""Counts the instructions that each variant of a model takes on emulated 64-bit ARM processors.

    python -m tests.arm64.instructions MODEL

An emulator's times say nothing of a processor's, but it runs the very instructions that the
processor would. The count is that of the second run of the graph, on one thread. It says which
kinds of vector products are among the instructions, and so which kernels ONNX Runtime takes.

Debian's qemu-user takes no plugins, so the command builds qemu once, from Debian's source package.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import click

from tests import debian_packages
from tests.arm64 import machine, packages
from tests.arm64.machine import CPUS, REPOSITORY, SITE_PACKAGES, Machine

_TOOLS = ("cc", "ninja", "pkg-config")
_REMEDY = "apt install gcc ninja-build pkg-config libglib2.0-dev"
# Debian's source lacks the wheels of these, which qemu's own has.
_BUILD_TOOLS = ("meson==1.5.0", "pycotap==1.3.1")
_PLUGIN = Path(__file__).with_name("count_plugin.c")
_OPTIONS = [
    *("--target-list=aarch64-linux-user", "--enable-plugins", "--disable-werror"),
    *("--disable-system", "--disable-tools", "--disable-docs", "--disable-install-blobs"),
]
_KINDS = {
    "all": "all",
    "mmla8": "8-bit matrix products (SMMLA, UMMLA, USMMLA)",
    "dot8": "8-bit dot products (SDOT, UDOT)",
    "mul8": "widening products of integers (SMULL, SMLAL, ...)",
    "fma32": "float32 FMLA",
    "fma16": "float16 FMLA",
}


@click.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--cpu", "cpus", multiple=True, default=CPUS, show_default=True)
@click.option("--dtype", "dtypes", multiple=True, default=("fp32", "int8"), show_default=True)
def main(model: Path, cpus: tuple[str, ...], dtypes: tuple[str, ...]) -> None:
    """Prints a table: millions of instructions of one run, and of each kind of product."""
    problem = machine.missing() or _missing()
    if problem is not None:
        click.echo(f"count_arm64: {problem}", err=True)
        sys.exit(2)
    try:
        with tempfile.TemporaryDirectory() as shared:
            arm = machine.build(Path(shared))
        packages.install(arm)
        source = machine.made_once("qemu-counting", _build_qemu)
        plugin = _build_plugin(source)
    except (
        debian_packages.DebianError,
        packages.InstallError,
        subprocess.CalledProcessError,
    ) as error:
        click.echo(f"count_arm64: {error}", err=True)
        sys.exit(2)
    click.echo("millions of instructions in one run: " + ", ".join(_KINDS.values()))
    click.echo(f"{'processor':12}  {'variant':7}" + "".join(f"{kind:>9}" for kind in _KINDS))
    for cpu in cpus:
        runs = _count_runs(arm, source / "build", plugin, cpu, model.absolute(), dtypes)
        for dtype, counts in zip(dtypes, runs, strict=True):
            numbers = "".join(f"{counts[kind] / 1e6:9.1f}" for kind in _KINDS)
            click.echo(f"{cpu:12}  {dtype:7}{numbers}")


def _missing() -> str | None:
    """Says why qemu cannot be built here, with the remedy; None where it can."""
    lacking = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if not lacking and subprocess.run(["pkg-config", "glib-2.0"], check=False).returncode:
        lacking = ["glib-2.0"]
    return f"{', '.join(lacking)} not found: {_REMEDY}" if lacking else None


def _build_qemu(folder: Path, apt: Path) -> None:
    debian_packages.unpack_source("qemu", folder, apt, suite=machine.EMULATOR_SUITE)
    build, tools = folder / "build", folder / "tools"
    build.mkdir()
    venv.create(tools, with_pip=True)
    python = tools / "bin" / "python"
    for command in (
        [python, "-m", "pip", "install", "--quiet", *_BUILD_TOOLS],
        [folder / "configure", f"--python={python}", *_OPTIONS],
        ["ninja", "qemu-aarch64"],
    ):
        subprocess.run([*map(str, command)], cwd=build, stdout=subprocess.DEVNULL, check=True)


def _build_plugin(source: Path) -> Path:
    plugin = machine.CACHE / "count_plugin.so"
    flags = subprocess.check_output(["pkg-config", "--cflags", "glib-2.0"], text=True).split()
    header = source / "include" / "qemu"
    command = [
        "cc",
        "-O2",
        "-Wall",
        "-shared",
        "-fPIC",
        *flags,
        "-I",
        header,
        _PLUGIN,
        "-o",
        plugin,
    ]
    subprocess.run([*map(str, command)], check=True)
    return plugin


def _count_runs(
    arm: Machine, build: Path, plugin: Path, cpu: str, model: Path, dtypes: tuple[str, ...]
) -> list[dict[str, int]]:
    """Counts the instructions of one run of each variant, by kind.

    This qemu needs the host's libraries, so it runs outside the machine. It looks into the
    machine's folder first for each file that the program opens.
    """
    with tempfile.NamedTemporaryFile("r", suffix=".json") as log:
        emulator = [
            *(build / "qemu-aarch64", "-cpu", cpu, "-L", arm.root),
            *("-plugin", plugin, "-d", "plugin", "-D", log.name),
        ]
        python = arm.root / "usr/bin/python3.11"
        command = [*emulator, python, "-m", "tests.arm64.model_runs", model, *dtypes]
        subprocess.run(
            [*map(str, command)],
            cwd=REPOSITORY,
            env={"PYTHONPATH": str(Path("/") / SITE_PACKAGES)},
            stderr=subprocess.DEVNULL,
            check=True,
        )
        marks = [json.loads(line) for line in log]
    pairs = zip(marks[::2], marks[1::2], strict=True)
    return [{kind: after[kind] - before[kind] for kind in _KINDS} for before, after in pairs]


if __name__ == "__main__":
    main()
