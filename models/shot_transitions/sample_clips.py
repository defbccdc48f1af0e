"""Renders the clips that come with the runtime.

``python -m models.shot_transitions.sample_clips --help``
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from models.shot_transitions.clips import Plan, encode, joined_frames
from models.shot_transitions.labels import LABELS

_SEED = 2  # the pools for training and evaluation have the seeds 0 and 1
# The number of the draw for each label, chosen by eye: draws whose scenes a person can recognize.
_DRAWS = dict(zip(LABELS, (0, 2, 0, 5, 5, 1, 6, 0, 7), strict=True))
_KINDS = {"none": "crossing"}


def sample_clip(label: str, draw: int) -> bytes:
    """A clip of 2 seconds at 320 x 180 as an H.264 MP4 file."""
    rng = np.random.default_rng([_SEED, LABELS.index(label), draw])
    plan = Plan(
        label=label,
        kind=_KINDS.get(label, "shot"),
        height=180,
        width=320,
        frames=48,
        rate=24,
        crf=25,
        preset="slow",
        bars=0,
    )
    frames, _ = joined_frames(rng, plan)
    return encode(frames, plan.rate, plan.crf, plan.preset)


@click.command()
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runtime/timesformer_runtime/sample_clips"),
    show_default=True,
    help="Folder of the clips.",
)
def main(output: Path) -> None:
    """Writes one clip for each class, named after it."""
    output.mkdir(parents=True, exist_ok=True)
    for label, draw in _DRAWS.items():
        video = sample_clip(label, draw)
        (output / f"{label}.mp4").write_bytes(video)
        click.echo(f"{output / label}.mp4: {len(video):,} bytes")


if __name__ == "__main__":
    main()
