"""Builds the sdist and the wheel, and classifies the sample clips with each, as the demo does.

    python -m tests.end_to_end.check_wheel MODEL

The check installs each of them, with the extra "cpu", into an empty environment outside the
repository, and classifies the packaged sample clips there with an exported MODEL. It needs the
package index.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Iterable
from pathlib import Path

import click

ROOT = Path(__file__).parents[2]
CLIPS = 9
_IN_SDIST = ("LICENSE", "README.md", "pyproject.toml")
_IN_WHEEL = (
    "timesformer_exporter/py.typed",
    "timesformer_runtime/serve/pages/index.html",
    "timesformer_runtime/py.typed",
    "timesformer_runtime/sample_clips/cut.mp4",
    "timesformer_runtime/probe_models/opset23.onnx",
    "timesformer_runtime/evaluate/report/page.html",
    "timesformer_runtime/evaluate/report/page.css",
    "timesformer_runtime/evaluate/report/page.js",
)
# Runs in the new environment: prints the labels that the installed command gives to the clips.
CLASSIFY = """
import json, pathlib, subprocess, sys, timesformer_runtime
package = pathlib.Path(timesformer_runtime.__file__).parent
assert package.is_relative_to(sys.prefix), f"{package} is not the installed package"
clips = sorted(map(str, (package / "sample_clips").glob("*.mp4")))
command = str(pathlib.Path(sys.executable).parent / "timesformer")
done = subprocess.run(
    [command, "classify", sys.argv[1], *clips, "--top-k", "1", "--json"],
    capture_output=True, text=True, check=True,
)
rows = map(json.loads, done.stdout.splitlines())
print(json.dumps({pathlib.Path(r["video"]).stem: r["predictions"][0]["label"] for r in rows}))
"""


@click.command()
@click.argument("model", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(model: Path) -> None:
    """Exits with 1 where a package lacks something, or does not run where it is installed."""
    with tempfile.TemporaryDirectory(prefix="check-wheel-") as name:
        work = Path(name)
        shutil.copytree(model, work / "model")
        sdist, wheel = build(work / "dist", environment(work / "builder"))
        _check_contents(sdist, wheel)
        python = environment(work / "empty")
        for package in (wheel, sdist):
            run([python, "-m", "pip", "uninstall", "--quiet", "--yes", "timesformer-onnx"], work)
            run([python, "-m", "pip", "install", "--quiet", f"{package}[cpu]"], work)
            check_labels(run([python, "-c", CLASSIFY, "model"], work))
            click.echo(f"{package.name}: installed, all {CLIPS} sample clips named rightly")


def build(output: Path, python: Path) -> tuple[Path, Path]:
    """Builds the sdist from the repository, and the wheel from the sdist."""
    run([python, "-m", "pip", "install", "--quiet", "build"], ROOT)
    run([python, "-m", "build", "--outdir", output], ROOT)
    (sdist,), (wheel,) = output.glob("*.tar.gz"), output.glob("*.whl")
    return sdist, wheel


def _check_contents(sdist: Path, wheel: Path) -> None:
    with tarfile.open(sdist) as archive:
        _check_names(sdist, (name.partition("/")[2] for name in archive.getnames()), _IN_SDIST)
    with zipfile.ZipFile(wheel) as zipped:
        names = zipped.namelist()
    _check_names(wheel, names, _IN_WHEEL)
    folders = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    if folders != {"timesformer_exporter", "timesformer_runtime"}:
        raise click.ClickException(f"{wheel.name} has {', '.join(sorted(folders))}")
    if not any(name.endswith("LICENSE") for name in names):
        raise click.ClickException(f"{wheel.name} has no LICENSE")


def _check_names(package: Path, names: Iterable[str], wanted: Iterable[str]) -> None:
    missing = sorted({*wanted} - {*names})
    if missing:
        raise click.ClickException(f"{package.name} has no {', '.join(missing)}")


def check_labels(output: str) -> None:
    labels: dict[str, str] = json.loads(output)
    wrong = [f"{clip} is named {label}" for clip, label in labels.items() if clip != label]
    if wrong or len(labels) != CLIPS:
        raise click.ClickException("; ".join(wrong) or f"there are {len(labels)} sample clips")


def environment(folder: Path) -> Path:
    """Makes an empty environment; returns the path of its Python."""
    venv.create(folder, with_pip=True)
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def run(command: list[str | Path], folder: Path) -> str:
    """Runs a command in a folder, without PYTHONPATH; returns its output."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise click.ClickException(f"{' '.join(map(str, command))}: {done.stderr or done.stdout}")
    return done.stdout


if __name__ == "__main__":
    main()
