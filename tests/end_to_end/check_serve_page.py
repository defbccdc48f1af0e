"""Drops videos on the page of a running service in headless Chromium.

    python -m tests.end_to_end.check_serve_page MODEL

MODEL is an exported shot-transitions model. The check needs Node, npm, Chromium and npm's package
registry, as check_javascript does. It leaves screenshots in build/serve, light and dark.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
from timesformer_runtime import VideoClassifier, VideoDecoder

from tests import video_files
from tests.end_to_end.check_javascript import PATIENCE, ROOT, SAMPLES, WORK, install, programs
from tests.service import served

_RESULTS = ROOT / "build" / "serve"
_TOKEN = "a-token-for-the-check"
_SHOWN = ("cut", "wipe_left", "fade_out", "dissolve")


@click.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
def main(model: Path) -> None:
    """Exits with 1 where a test fails, with 2 where a program is missing."""
    found = programs()
    install("tests/javascript")
    shutil.rmtree(_RESULTS, ignore_errors=True)
    _RESULTS.mkdir(parents=True)
    with VideoClassifier.from_pretrained(model, device="cpu", threads=1) as classifier:
        expected = _expected(classifier)
    (_RESULTS / "expected.json").write_text(json.dumps(expected))
    options = ("--device", "cpu", "--threads", "2")
    token = {"TIMESFORMER_SERVE_TOKEN": _TOKEN}
    with served(model, *options) as open_one, served(model, *options, environment=token) as closed:
        environment = {
            "OPEN": open_one.address,
            "CLOSED": closed.address,
            "TOKEN": _TOKEN,
            "RESULTS": str(_RESULTS),
            **found,
        }
        test = WORK / "tests" / "javascript" / "served_page.js"
        done = subprocess.run(
            ["node", "--test", "--test-reporter", "spec", str(test)],
            env={**os.environ, **environment},
            timeout=PATIENCE,
            check=False,
        )
    click.echo(f"screenshots: {_RESULTS}")
    sys.exit(1 if done.returncode else 0)


def _expected(classifier: VideoClassifier) -> dict[str, object]:
    """Writes the videos; returns Python's answers to them."""
    frames = []
    for name in _SHOWN:
        with VideoDecoder(SAMPLES / f"{name}.mp4") as video:
            frames += list(video.frames(range(len(video))).pixels)
    # Browsers on Linux do not play this codec: the server's pictures show it all the same.
    film = video_files.write_video(_RESULTS / "film.mkv", np.stack(frames), codec="mpeg4", rate=24)
    cut_short = _RESULTS / "half.mkv"
    cut_short.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    text = _RESULTS / "text.mp4"
    text.write_text("not a video\n" * 100)
    clip = SAMPLES / "cut.mp4"
    result = classifier.classify(clip)
    return {
        "clip": {"file": str(clip), "label": "cut", "frames": len(set(result.indices))},
        "film": {
            "file": str(film),
            "segments": [
                [segment.start, segment.end, segment.predictions[0]["label"]]
                for segment in classifier.timeline(film, 2.0, 1.0)
            ],
        },
        "damaged": str(cut_short),
        "text": str(text),
    }


if __name__ == "__main__":
    main()
