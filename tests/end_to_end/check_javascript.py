"""Runs the JavaScript examples in Node and in headless Chromium, and compares them with Python.

    python -m tests.end_to_end.check_javascript

The check copies the examples into build/javascript, installs the packages of their lock files
there, exports a bundled model with ``web``, writes reports of made-up evaluations, and runs the
tests of tests/javascript. It needs Node, npm, Chromium and npm's package registry; ``CHROMIUM``
names another program of that kind.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from timesformer_exporter import ExportOptions, export
from timesformer_exporter.options import Dtype
from timesformer_runtime import VideoClassifier, VideoDecoder

from tests import made_up_reports, video_files

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "runtime" / "timesformer_runtime" / "sample_clips"
WORK = ROOT / "build" / "javascript"
_EXAMPLES = ("examples/javascript", "examples/browser", "tests/javascript")
_DTYPES: tuple[Dtype, ...] = ("fp32", "int8", "fp16")
_RATE = 24  # of the sample clips
PATIENCE = 600  # seconds for a command


@click.command()
def main() -> None:
    """Exits with 1 where a test fails, with 2 where a program is missing."""
    found = programs()
    for name in _EXAMPLES:
        install(name)
    model, clips = WORK / "model", WORK / "clips"
    checkpoint = ROOT / "models" / "shot-transitions-divided"
    options = ExportOptions(checkpoint, output=model, web=True, dtypes=_DTYPES, force=True)
    if not export(options).passed:
        raise click.ClickException("the export did not pass its checks")
    shutil.rmtree(clips, ignore_errors=True)
    clips.mkdir()
    made_up_reports.write_all(WORK / "reports")
    (WORK / "expected.json").write_text(json.dumps(_expected(model, clips)))
    _run(["npm", "run", "site", "--", model, WORK / "site"], WORK / "examples/browser")
    tests = sorted((WORK / "tests/javascript").glob("*.test.js"))
    environment = {"WORK": str(WORK), "PYTHON": sys.executable, **found}
    done = subprocess.run(
        ["node", "--test", "--test-reporter", "spec", *map(str, tests)],
        env={**os.environ, **environment},
        timeout=PATIENCE,
        check=False,
    )
    sys.exit(1 if done.returncode else 0)


def programs() -> dict[str, str]:
    """Finds the programs that a check needs; exits with a line that names the missing ones."""
    chromium = os.environ.get("CHROMIUM") or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
    )
    found = {"node": shutil.which("node"), "npm": shutil.which("npm"), "chromium": chromium}
    missing = [name for name, path in found.items() if not path]
    if missing:
        click.echo(
            f"not installed: {', '.join(missing)}. On Debian: apt install nodejs npm chromium",
            err=True,
        )
        sys.exit(2)
    return {"CHROMIUM": chromium}


def install(name: str) -> None:
    """Copies an example and installs its packages, unless its lock file is that of last time."""
    source, copy = ROOT / name, WORK / name
    lock = (source / "package-lock.json").read_bytes()
    if b'"resolved"' in lock:
        raise click.ClickException(f"{name}/package-lock.json names a registry's address")
    installed = copy / "node_modules" / ".package-lock.json"
    is_current = installed.exists() and (copy / "package-lock.json").read_bytes() == lock
    shutil.copytree(source, copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules"))
    if not is_current:
        _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], copy)


def _expected(model: Path, folder: Path) -> dict[str, Any]:
    """Writes the videos and their raw frames; returns Python's answers to them."""
    classifiers = {
        dtype: VideoClassifier.from_pretrained(model, dtype=dtype, device="cpu")
        for dtype in _DTYPES
    }
    frames = {path: _frames(path) for path in sorted(SAMPLES.glob("*.mp4"))}
    clips = []
    for path, pixels in frames.items():
        raw = folder / f"{path.stem}.rgb"
        raw.write_bytes(pixels.tobytes())
        clips.append(
            {
                "file": str(path),
                "label": path.stem,
                "raw": str(raw),
                "height": pixels.shape[1],
                "width": pixels.shape[2],
                "logits": {dtype: _logits(given, path) for dtype, given in classifiers.items()},
            }
        )
    film = video_files.write_video(
        folder / "film.mp4", np.concatenate(list(frames.values())), rate=_RATE
    )
    others = _other_formats(folder, frames[SAMPLES / "wipe_left.mp4"])
    return {
        "clips": clips,
        "others": [
            {"file": str(path), "logits": _logits(classifiers["int8"], path)} for path in others
        ],
        "film": {
            "file": str(film),
            "windows": [
                {
                    "start": segment.start,
                    "end": segment.end,
                    "label": segment.predictions[0]["label"],
                    "score": segment.predictions[0]["score"],
                }
                for segment in classifiers["int8"].timeline(film)
            ],
        },
        "damaged": [str(path) for path in _damaged(folder, film)],
    }


def _other_formats(folder: Path, frames: npt.NDArray[np.uint8]) -> list[Path]:
    """Encodes frames in other ways that Chromium decodes."""
    write = video_files.write_video
    return [
        write(folder / "vp9.webm", frames, codec="libvpx-vp9", rate=_RATE),
        write(folder / "alpha.webm", frames, codec="libvpx-vp9", pixels="yuva420p", rate=_RATE),
        write(folder / "ten-bits.mkv", frames, pixels="yuv420p10le", rate=_RATE),
        write(folder / "full-chroma.mp4", frames, pixels="yuv444p", rate=_RATE),
    ]


def _damaged(folder: Path, film: Path) -> list[Path]:
    """Makes files that are not whole."""
    noisy, half, empty, text = (
        folder / name for name in ("noisy.mp4", "half.mp4", "empty.mp4", "text.mp4")
    )
    shutil.copy(film, noisy)
    video_files.damage(noisy)
    half.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    empty.write_bytes(b"")
    text.write_text("not a video\n" * 100)
    return [noisy, half, empty, text]


def _frames(path: Path) -> npt.NDArray[np.uint8]:
    """Decodes all frames of a video: uint8 [T, H, W, 3]."""
    with VideoDecoder(path) as video:
        return np.stack(video.frames(range(len(video))).pixels)


def _logits(classifier: VideoClassifier, path: Path) -> list[float]:
    return [float(value) for value in classifier.logits(path).ravel()]


def _run(command: list[str | Path], folder: Path) -> None:
    """Runs a command in a folder; what it prints is shown only where it fails."""
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    if done.returncode:
        raise click.ClickException(f"{' '.join(map(str, command))}: {done.stderr or done.stdout}")


if __name__ == "__main__":
    main()
