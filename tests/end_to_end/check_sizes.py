"""Makes the two minimal installations of the wheel, runs them, and compares their sizes.

    python -m tests.end_to_end.check_sizes MODEL [--constraint FILE]

``examples/containers/minimal_install.py`` makes them in an empty folder. The one with PyAV then
names the packaged sample clips and runs every command; the other one names the same frames, given
as arrays. The check needs the package index, and ``strip``.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import click

from examples.containers import minimal_install
from tests.end_to_end.check_wheel import ROOT, build, check_labels, environment, run

LIMITS = {"video": 175, "frames": 95}  # megabytes

# Runs in the installation with PyAV: writes the frames of each sample clip.
_DECODE = """
import pathlib, sys, numpy as np, timesformer_runtime
from timesformer_runtime import VideoDecoder
for clip in (pathlib.Path(timesformer_runtime.__file__).parent / "sample_clips").glob("*.mp4"):
    with VideoDecoder(clip) as video:
        np.save(f"{sys.argv[1]}/{clip.stem}.npy", video.frames(range(len(video))).array())
"""
# Runs in the installation without PyAV: prints the labels of these frames.
_CLASSIFY_FRAMES = """
import json, pathlib, sys, numpy as np
from timesformer_runtime import VideoClassifier
classifier = VideoClassifier.from_pretrained(sys.argv[1], dtype=sys.argv[3])
assert "av" not in sys.modules
clips = sorted(pathlib.Path(sys.argv[2]).glob("*.npy"))
print(json.dumps({c.stem: classifier(np.load(c), top_k=1)[0]["label"] for c in clips}))
"""
# Runs in the installation with PyAV: prints the labels of the sample clips.
_CLASSIFY_FILES = """
import json, pathlib, sys, timesformer_runtime
from timesformer_runtime import VideoClassifier
classifier = VideoClassifier.from_pretrained(sys.argv[1], dtype=sys.argv[2])
clips = sorted((pathlib.Path(timesformer_runtime.__file__).parent / "sample_clips").glob("*.mp4"))
print(json.dumps({c.stem: classifier(c, top_k=1)[0]["label"] for c in clips}))
"""
# Runs in the installation without PyAV: prints the error for a video file.
_OPEN_A_FILE = """
import json, timesformer_runtime
try:
    timesformer_runtime.VideoDecoder("clip.mp4")
except timesformer_runtime.MissingDependencyError as error:
    print(json.dumps(str(error)))
"""
_DTYPES = ("fp32", "int8")


@click.command()
@click.argument("model", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--constraint", type=click.Path(exists=True, path_type=Path), help="pip's versions.")
def main(model: Path, constraint: Path | None) -> None:
    """Exits with 1 where an installation is too large, or lacks something that it needs."""
    with tempfile.TemporaryDirectory(prefix="check-sizes-") as name:
        work = Path(name)
        shutil.copytree(model, work / "model")
        (work / "arrays").mkdir()
        _, wheel = build(work / "dist", environment(work / "builder"))
        sizes = {}
        for purpose, check in (("video", _check_video), ("frames", _check_frames)):
            click.echo(f"for {purpose}:")
            command: list[str | Path] = [sys.executable, minimal_install.__file__, work / purpose]
            command += ["--for", purpose, "--package", wheel]
            if constraint is not None:
                command += ["--constraint", constraint.absolute()]
            click.echo(run(command, ROOT))
            sizes[purpose] = minimal_install.size(work / purpose) / minimal_install.MEGABYTE
            check(work / purpose / "bin", work)
    too_large = [
        f"the installation for {purpose} has {size:.1f} MB, above {LIMITS[purpose]}"
        for purpose, size in sizes.items()
        if size > LIMITS[purpose]
    ]
    if too_large:
        raise click.ClickException("; ".join(too_large))
    shown = ", ".join(f"{size:.1f} MB for {purpose}" for purpose, size in sizes.items())
    click.echo(f"{shown}: all sample clips named rightly, the golden checks passed")


def _check_video(programs: Path, work: Path) -> None:
    """Runs every command, and decodes the clips for the other installation."""
    python, command = programs / "python", programs / "timesformer"
    for dtype in _DTYPES:
        check_labels(run([python, "-c", _CLASSIFY_FILES, "model", dtype], work))
        run([command, "verify", "model", "--dtype", dtype], work)
    run([python, "-c", _DECODE, "arrays"], work)
    (clip,) = programs.parent.glob("lib/*/site-packages/timesformer_runtime/sample_clips/cut.mp4")
    for arguments in (
        ["classify", "model", clip],
        ["classify", "model", clip, "--isolated", "--json"],
        ["timeline", "model", clip],
        ["stream", "model", clip],
        ["batch", "model", clip, "--output", "results.jsonl"],
        ["--help"],
        ["--version"],
    ):
        run([command, *arguments], work)


def _check_frames(programs: Path, work: Path) -> None:
    for dtype in _DTYPES:
        arguments: list[str | Path] = ["model", "arrays", dtype]
        check_labels(run([programs / "python", "-c", _CLASSIFY_FRAMES, *arguments], work))
        run([programs / "timesformer", "verify", "model", "--dtype", dtype], work)
    error = run([programs / "python", "-c", _OPEN_A_FILE], work)
    if not json.loads(error).startswith("PyAV, which reads videos, is not installed"):
        raise click.ClickException(f"without PyAV, a file gives the error {error}")


if __name__ == "__main__":
    main()
