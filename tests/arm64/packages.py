"""Installs the project's wheel on the emulated machine, with wheels for ARM of its dependencies.

The host's pip does it: it chooses wheels for another processor, and is faster than an emulated one.
"""

from __future__ import annotations

import hashlib
import itertools
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from tests.arm64.machine import PYTHON_VERSION, REPOSITORY, SITE_PACKAGES, Machine

_EXTRAS = ("cpu", "hub", "evaluate", "serve")
# Without torch and transformers: tests that compare with them are skipped.
_FOR_TESTS = ["httpx", "onnx", "packaging", "pytest", "pytest-timeout", "pytest-xdist"]
_LOCKED = REPOSITORY / "constraints" / "locked.txt"
# The machine's C library is of version 2.36. pip takes a tag only where it is named.
_TAGS = [f"manylinux_2_{minor}_aarch64" for minor in range(36, 16, -1)] + ["manylinux2014_aarch64"]
_NOT_IN_WHEEL = (".*", "*.egg-info", "build", "demo", "docs", "models", "tests")
_ENVIRONMENT = {
    "platform_machine": "aarch64",
    "python_full_version": PYTHON_VERSION,
    "python_version": PYTHON_VERSION.rpartition(".")[0],
    "sys_platform": "linux",
}


class InstallError(RuntimeError):
    """pip failed; the message has its last line."""


def install(machine: Machine) -> str:
    """Builds the project's wheel and installs it, and its dependencies where they changed.

    Returns:
        The wheel's name.

    Raises:
        InstallError: pip failed.
    """
    site = machine.root / SITE_PACKAGES
    requirements, constraints = _requirements(), _constraints()
    stamp = site / ".installed"
    wanted = hashlib.sha256(repr((requirements, constraints)).encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(site, ignore_errors=True)
        _install_dependencies(site, requirements, constraints)
        stamp.write_text(wanted)
    return _install_project(machine, site)


def _requirements() -> list[str]:
    """The dependencies of the runtime and of its tests."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    of_extras = itertools.chain.from_iterable(extras[name] for name in _EXTRAS)
    return [*project["dependencies"], *of_extras, *_FOR_TESTS]


def _constraints() -> str:
    """The locked versions for the machine's Python; pip would take those for the host's."""
    lines = _LOCKED.read_text(encoding="utf-8").splitlines()
    locked = [Requirement(line) for line in lines if not line.startswith("#")]
    return "".join(
        f"{one.name}{one.specifier}\n"
        for one in locked
        if one.marker is None or one.marker.evaluate(_ENVIRONMENT)
    )


def _install_dependencies(site: Path, requirements: list[str], constraints: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(constraints)
        file.flush()
        platforms = [f"--platform={tag}" for tag in _TAGS]
        _pip(
            *("install", "--target", site, "--constraint", file.name, "--no-compile"),
            *("--implementation=cp", f"--python-version={PYTHON_VERSION}", *platforms),
            *("--only-binary=:all:", *requirements),
        )


def _install_project(machine: Machine, site: Path) -> str:
    with tempfile.TemporaryDirectory() as folder:
        # A copy, because setuptools puts into a wheel what an earlier build left beside the source.
        source = Path(folder) / "source"
        shutil.copytree(REPOSITORY, source, ignore=shutil.ignore_patterns(*_NOT_IN_WHEEL))
        _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source)
        (wheel,) = Path(folder).glob("*.whl")
        _pip("install", "--target", site, "--no-deps", "--no-compile", "--upgrade", wheel)
    # pip names the host's Python in the command.
    script = (site / "bin" / "timesformer").read_text(encoding="utf-8")
    command = machine.root / "usr" / "bin" / "timesformer"
    command.write_text("#!/usr/bin/python3\n" + script.partition("\n")[2], encoding="utf-8")
    command.chmod(0o755)
    return wheel.name


def _pip(*arguments: str | Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr or done.stdout).strip().rpartition("\n")[2]
        raise InstallError(f"pip {arguments[0]}: {last}")
