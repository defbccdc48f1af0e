"""Renews the exact versions that ``make setup`` installs and says what changed: ``make lock``.

uv resolves pyproject.toml twice, for the newest versions and for the lowest versions that
pyproject.toml allows, each for every system and Python version. The files are pip's constraints:
they fix the version of a package that is installed, and do not install any package themselves.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent
FILES = {"locked.txt": "highest", "oldest.txt": "lowest-direct"}
EXTRAS = ("dev", "ray", "gpu", "docs", "coverage")
# Each build of torch (CPU, or one of several versions of CUDA) brings its own versions of these.
OF_A_BUILD_OF_TORCH = re.compile(r"(nvidia|cuda)-|triton==")
HEADER = "# Written by `make lock`, which renews it."


def resolve(resolution: str) -> list[str]:
    """Asks uv for lines ``name==version ; marker``, sorted by name.

    Args:
        resolution: uv's strategy, "highest" or "lowest-direct".
    """
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal"]
    command += ["--no-header", "--no-annotate", "--resolution", resolution]
    command += [f"--extra={extra}" for extra in EXTRAS]
    done = subprocess.run(  # noqa: S603 (fixed arguments)
        [*command, str(HERE.parent / "pyproject.toml")],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    return [line for line in lines if not OF_A_BUILD_OF_TORCH.match(line)]


def versions(lines: Iterable[str]) -> dict[str, str]:
    """The version of each package; "1 or 2" where it depends on the system or on Python."""
    found: dict[str, list[str]] = {}
    for line in lines:
        pin = line.partition(";")[0].strip()
        if pin and not pin.startswith("#"):
            name, _, version = pin.partition("==")
            found.setdefault(name, []).append(version)
    return {name: " or ".join(several) for name, several in found.items()}


def changes(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """One line for each package whose versions differ."""
    names = sorted(name for name in old | new if old.get(name) != new.get(name))
    return [f"{name}  {old.get(name, 'none')} -> {new.get(name, 'none')}" for name in names]


def main() -> None:
    """Writes both files and prints what changed in them."""
    for name, resolution in FILES.items():
        path = HERE / name
        old = versions(path.read_text().splitlines()) if path.exists() else {}
        lines = resolve(resolution)
        path.write_text("\n".join([HEADER, *lines, ""]))
        print(f"constraints/{name}:")
        for change in changes(old, versions(lines)) or ["nothing changed"]:
            print(f"  {change}")


if __name__ == "__main__":
    main()
