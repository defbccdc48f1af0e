"""Installs the runtime into a new virtual environment, without the files that it never uses.

    python3 minimal_install.py /opt/timesformer
    python3 minimal_install.py /opt/timesformer --for frames
    python3 minimal_install.py /opt/timesformer --for serve

The second line is for programs that bring their frames as arrays: it installs no PyAV. The third
one is for ``timesformer serve``. The files
that are left out, each with its reason, are listed in leave_out.toml beside this script. The script
needs pip 22.3 or newer, and ``strip`` (Debian: binutils).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

MEGABYTE = 1_000_000
# A service reads video files, so it has what the installation for video has, too.
_PARTS = {"video": ("video",), "frames": ("frames",), "serve": ("video", "serve")}
_BLOCK = 512  # bytes; the unit of st_blocks

# Imports every module of the runtime, and prints those that cannot be imported with their errors:
# some need extras that are not installed. The imports also write the bytecode of all that is
# imported: a container with a read-only root cannot write it later.
_IMPORT_ALL = """
import importlib, json, pkgutil, timesformer_runtime
errors = {}
for module in pkgutil.walk_packages(timesformer_runtime.__path__, "timesformer_runtime."):
    try:
        importlib.import_module(module.name)
    except ImportError as error:
        errors[module.name] = str(error)
print(json.dumps(errors))
"""


def install(folder: Path, purpose: str, package: str, pip_options: list[str]) -> Path:
    """Makes the environment; returns its site-packages.

    Args:
        folder: The new environment.
        purpose: ``video``, ``frames`` or ``serve``.
        package: ``timesformer-onnx``, or the path of its wheel.
        pip_options: Options for ``pip install``, such as a constraints file.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    if purpose != "frames":
        wanted = [f"{package}[{'cpu,serve' if purpose == 'serve' else 'cpu'}]"]
    else:  # pip has no other way to leave out a dependency
        wanted = ["--no-deps", package, "numpy", "onnxruntime", "click"]
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    _run([*pip, "--no-compile", *pip_options, *wanted])
    (site_packages,) = folder.glob("lib/python*/site-packages")
    return site_packages


def leave_out(site_packages: Path, purpose: str) -> None:
    """Applies the lines of the list, and says how much each of them saved."""
    with Path(__file__).with_name("leave_out.toml").open("rb") as file:
        rules = tomllib.load(file)
    for action, apply in (("leave_out", _remove), ("strip", _strip), ("holes", _dig)):
        for rule in rules[action]:
            if rule.get("only", purpose) not in _PARTS[purpose]:
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
    _run(["strip", "--strip-unneeded", *map(str, paths)])


def _dig(paths: list[Path]) -> None:
    """Makes holes of the blocks that hold only zeros; the content stays."""
    for path in paths:
        copy = path.with_name(f"{path.name}.copy")
        _run(["cp", "--sparse=always", "--preserve=all", str(path), str(copy)])
        copy.replace(path)


def _run(command: list[str]) -> None:
    """Runs a command, which prints its own errors."""
    code = subprocess.run(command, env=_environment(), check=False).returncode  # noqa: S603
    if code:
        sys.exit(f"minimal_install: {' '.join(command)}: exit code {code}")


def _environment() -> dict[str, str]:
    """Gives the variables of this process, without those that lead Python to other packages."""
    hidden = {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH"}
    return {name: value for name, value in os.environ.items() if name not in hidden}


def import_errors(folder: Path, *options: str) -> dict[str, str]:
    """Imports the runtime's modules in an environment.

    Args:
        folder: The environment.
        options: Options for Python.

    Returns:
        For each module that cannot be imported, the error.
    """
    errors: dict[str, str] = json.loads(_output(folder, *options, "-c", _IMPORT_ALL))
    return errors


def _output(folder: Path, *arguments: str) -> str:
    done = subprocess.run(  # noqa: S603
        [str(folder / "bin" / "python"), *arguments],
        cwd=folder,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1]
        sys.exit(f"minimal_install: {last}; leave_out.toml may name a file that is needed")
    return done.stdout


def check_imports(before: dict[str, str], after: dict[str, str]) -> None:
    """Ends the program where a module could be imported before the leaving out, and not after."""
    for name in sorted(after.keys() - before.keys()):
        sys.exit(f"minimal_install: {name}: {after[name]}; leave_out.toml names what it needs")


def size(folder: Path) -> int:
    """Adds up the bytes that the files of a folder take on the disk, in whole blocks."""
    return sum(path.lstat().st_blocks * _BLOCK for path in folder.rglob("*"))


def _new_folder(path: str) -> Path:
    folder = Path(path).absolute()  # commands run in other folders, too
    if folder.exists():
        raise argparse.ArgumentTypeError(f"{folder} exists; name a new folder")
    return folder


def main() -> None:
    """Makes the environment, and prints its size on the disk in MB, line by line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=_new_folder, help="the new environment")
    parser.add_argument(
        "--for", dest="purpose", choices=tuple(_PARTS), default="video", help="what it reads"
    )
    parser.add_argument("--package", default="timesformer-onnx", help="or the path of its wheel")
    parser.add_argument("--constraint", help="pip's file of versions")
    arguments = parser.parse_args()
    if shutil.which("strip") is None:
        parser.error("strip is not installed; on Debian: apt install binutils")
    options = ["--constraint", arguments.constraint] if arguments.constraint else []
    for option, path in (("--package", arguments.package), ("--constraint", arguments.constraint)):
        is_path = option == "--constraint" or "/" in str(path) or str(path).endswith(".whl")
        if path and is_path and not Path(path).exists():
            parser.error(f"{option} {path}: there is no such file")
    try:
        arguments.folder.mkdir(parents=True)
    except OSError as error:
        parser.error(f"{arguments.folder} cannot be made: {error.strerror}; name another folder")
    try:
        make(arguments.folder, arguments.purpose, arguments.package, options)
    except BaseException:
        shutil.rmtree(arguments.folder, ignore_errors=True)  # rather none than half of it
        raise


def make(folder: Path, purpose: str, package: str, pip_options: list[str]) -> None:
    """Makes the environment, and prints what makes its size; arguments as for ``install``."""
    site_packages = install(folder, purpose, package, pip_options)
    print(f"{size(site_packages) / MEGABYTE:8.1f} MB as pip installs it", flush=True)
    before = import_errors(folder, "-B")
    leave_out(site_packages, purpose)
    left = size(site_packages)
    check_imports(before, import_errors(folder))
    _output(folder, "-m", "timesformer_runtime", "doctor")  # which imports ONNX Runtime
    total = size(folder)
    print(f"{(total - left) / MEGABYTE:+8.1f} bytecode of the modules that are imported, scripts")
    print(f"{total / MEGABYTE:8.1f} MB in {folder}")


if __name__ == "__main__":
    main()
