"""Installs the runtime into a new virtual environment, without the files that it never uses.

    python3 minimal_install.py /opt/timesformer
    python3 minimal_install.py /opt/timesformer --for frames

The second line is for programs that bring their frames as arrays: it installs no PyAV. The files
that are left out, each with its reason, are listed in leave_out.toml beside this script. The script
needs pip 22.3 or newer, and ``strip`` (Debian: binutils).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

MEGABYTE = 1_000_000

# The runtime's modules are imported once, which also writes the bytecode of all that they need: a
# container with a read-only root cannot write it later.
_IMPORT_ALL = """
import importlib, pkgutil, timesformer_runtime
for module in pkgutil.walk_packages(timesformer_runtime.__path__, "timesformer_runtime."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""
_IMPORT_FOR_FRAMES = "import timesformer_runtime.classifier, timesformer_runtime.workloads.batch"


def install(folder: Path, purpose: str, package: str, pip_options: list[str]) -> Path:
    """Makes the environment; returns its site-packages.

    Args:
        folder: The new environment.
        purpose: ``video`` or ``frames``.
        package: ``timesformer-onnx``, or the path of its wheel.
        pip_options: Options for ``pip install``, such as a constraints file.
    """
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    if purpose == "video":
        wanted = [f"{package}[cpu]"]
    else:  # pip has no other way to leave out a dependency
        wanted = ["--no-deps", package, "numpy", "onnxruntime", "click"]
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*pip, "--no-compile", *pip_options, *wanted], check=True)  # noqa: S603
    (site_packages,) = folder.glob("lib/python*/site-packages")
    return site_packages


def leave_out(site_packages: Path, purpose: str) -> None:
    """Removes and strips what the list names; says how much each line of the list saved."""
    with Path(__file__).with_name("leave_out.toml").open("rb") as file:
        rules = tomllib.load(file)
    for action, apply in (("leave_out", _remove), ("strip", _strip)):
        for rule in rules[action]:
            if rule.get("only", purpose) != purpose:
                continue
            found = sorted(site_packages.glob(rule["path"]))
            if not found:
                print(f"         nothing matches {rule['path']} any more ({rule['reason']})")
                continue
            before = size(site_packages)
            apply(found)
            saved = (before - size(site_packages)) / MEGABYTE
            print(f"{-saved:8.1f} {rule['path']}: {rule['reason']}")


def _remove(paths: list[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)  # a folder that was removed may have had it


def _strip(paths: list[Path]) -> None:
    subprocess.run(["strip", "--strip-unneeded", *paths], check=True)  # noqa: S603, S607


def try_out(folder: Path, purpose: str) -> None:
    """Imports what the environment is for, and asks it to describe itself."""
    imports = _IMPORT_ALL if purpose == "video" else _IMPORT_FOR_FRAMES
    variables = {
        name: value
        for name, value in os.environ.items()
        if name not in {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH"}
    }
    python = str(folder / "bin" / "python")
    for arguments in (["-c", imports], ["-m", "timesformer_runtime", "doctor"]):
        done = subprocess.run(  # noqa: S603
            [python, *arguments],
            cwd=folder,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            last = (done.stderr or done.stdout).strip().splitlines()[-1]
            sys.exit(f"minimal_install: {last}; leave_out.toml names a file that is needed")


def size(folder: Path) -> int:
    """Adds up the bytes of all files in a folder; links count nothing."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files)


def main() -> None:
    """Makes the environment, and prints its size in MB, line by line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="the new environment")
    parser.add_argument(
        "--for", dest="purpose", choices=("video", "frames"), default="video", help="what it reads"
    )
    parser.add_argument("--package", default="timesformer-onnx", help="or the path of its wheel")
    parser.add_argument("--constraint", help="pip's file of versions")
    arguments = parser.parse_args()
    if shutil.which("strip") is None:
        parser.error("strip is not installed; on Debian: apt install binutils")
    if arguments.folder.exists():
        parser.error(f"{arguments.folder} exists; name a new folder")
    options = ["--constraint", arguments.constraint] if arguments.constraint else []
    site_packages = install(arguments.folder, arguments.purpose, arguments.package, options)
    installed = size(site_packages)
    print(f"{installed / MEGABYTE:8.1f} MB as pip installs it")
    leave_out(site_packages, arguments.purpose)
    left = size(site_packages)
    try_out(arguments.folder, arguments.purpose)
    total = size(arguments.folder)
    print(f"{(total - left) / MEGABYTE:+8.1f} bytecode of the modules that are imported, scripts")
    print(f"{total / MEGABYTE:8.1f} MB in {arguments.folder}")


if __name__ == "__main__":
    main()
