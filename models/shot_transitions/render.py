"""Renders a pool of clips: ``python -m models.shot_transitions.render --help``."""

from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path

import click
import numpy as np

from models.shot_transitions.clips import MakeScene, random_label, render_clip
from models.shot_transitions.footage import load_footage
from models.shot_transitions.labels import LABELS
from models.shot_transitions.pool import create_pool, open_pool
from models.shot_transitions.scenes import Scene

_CHUNK = 16  # clips that a process renders before it reports


@click.command()
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The pool.")
@click.option("--count", default=24_000, show_default=True, help="Number of clips.")
@click.option("--size", default=72, show_default=True, help="Side of the square clips, in pixels.")
@click.option("--seed", default=0, show_default=True, help="Same seed, same clips.")
@click.option("--balanced", is_flag=True, help="As many clips of each class, for an evaluation.")
@click.option(
    "--videos",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Take the scenes from the videos in this folder instead of drawing them.",
)
@click.option("--workers", default=2, show_default=True, help="Number of processes.")
def main(
    output: Path,
    count: int,
    size: int,
    seed: int,
    balanced: bool,
    videos: Path | None,
    workers: int,
) -> None:
    """Renders clips with known transitions; carries on where it was interrupted."""
    try:
        names = [] if videos is None else load_footage(videos).names
        create_pool(output, count, size)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    about = {
        "count": count,
        "size": size,
        "seed": seed,
        "balanced": balanced,
        "videos": names,
    }
    (output / "about.json").write_text(json.dumps(about) + "\n", encoding="utf-8")
    missing = np.setdiff1d(np.arange(count), open_pool(output).available())
    jobs = [
        (output, missing[i : i + _CHUNK].tolist(), size, seed, balanced, videos)
        for i in range(0, len(missing), _CHUNK)
    ]
    began, done = time.monotonic(), 0
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers) as processes:
        for number in processes.imap_unordered(_render, jobs):
            done += number
            if done % (_CHUNK * 20) == 0 or done == len(missing):
                rate = done / (time.monotonic() - began)
                click.echo(f"{done} of {len(missing)} clips, {rate:.1f} a second")


def _render(job: tuple[Path, list[int], int, int, bool, Path | None]) -> int:
    folder, indices, size, seed, balanced, videos = job
    pool = open_pool(folder, writable=True)
    make_scene: MakeScene = Scene if videos is None else load_footage(videos).random_scene
    for index in indices:
        # Each clip has its own generator, so the pool does not depend on the order of rendering.
        rng = np.random.default_rng([seed, index])
        label = LABELS[index % len(LABELS)] if balanced else random_label(rng)
        pool.clips[index] = render_clip(rng, label, size, make_scene)
        pool.labels[index] = LABELS.index(label)
    return len(indices)


if __name__ == "__main__":
    main()
