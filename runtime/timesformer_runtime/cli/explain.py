"""``timesformer explain``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from timesformer_runtime.cli.limit_options import limit_options
from timesformer_runtime.cli.model_options import load, model_options, top_k_option
from timesformer_runtime.cli.output import BAD_INPUT, about, check_output, failure_of, say
from timesformer_runtime.cli.paths import PathType
from timesformer_runtime.cli.video_list import STDIN
from timesformer_runtime.cli.view_options import view_options
from timesformer_runtime.source_names import shown
from timesformer_runtime.whole_file import check_outside_model


@click.command()
@click.argument("model")
@click.argument("videos", metavar="VIDEO...", nargs=-1, required=True)
@click.option(
    "--output",
    type=PathType(),
    required=True,
    metavar="DIR",
    help="Folder for the results; it gets a page index.html, and a folder for each video.",
)
@click.option("--force", is_flag=True, help="Replace the results of videos that DIR already has.")
@top_k_option(5, "video")
@view_options
@limit_options()
@model_options
def explain(videos: tuple[str, ...], output: Path, force: bool, top_k: int, **options: Any) -> None:
    """Show which parts of each VIDEO reached MODEL's answer.

    MODEL must have been exported with timesformer-export --explain. For each VIDEO the command
    writes the whole video under heat (overlay.mp4), the frames that the model saw (sheet.png), the
    share of each frame (time.png), and the numbers (rollout.npy, explanation.json). The page
    index.html shows them all, and opens from disk. A VIDEO that fails does not stop the others.

    Start an interrupted command again with the same arguments: a VIDEO that it has explained, and
    that has not changed, is not done again.

    The heat is attention rollout. Attention is not causation: it says where the model looked, not
    what it would have answered without that part.
    """
    from timesformer_runtime.cli.progress import ProgressBar  # noqa: PLC0415
    from timesformer_runtime.explain import explain as explain_videos  # noqa: PLC0415
    from timesformer_runtime.explain.sheets import in_words  # noqa: PLC0415

    check_output()
    if STDIN in videos:
        raise click.UsageError("a video is read twice, so it cannot come from standard input")
    check_outside_model(output, options["model"])
    classifier = load(**options)
    failed = 0
    with ProgressBar(None, "seconds of video") as progress:
        outcomes = explain_videos(
            classifier, videos, output, top_k=top_k, force=force, on_frame=progress.advance_to
        )
        for one in outcomes:
            if one.error is not None:
                failed += 1
                progress.say(f"timesformer: {about(one.video, failure_of(one.video, one.error))}")
                continue
            if one.explanation is None:
                progress.echo(f"{shown(one.video)}: was explained before  ->  {one.folder}")
                continue
            result = one.explanation.result
            answer = in_words(result.predictions) or "explained"
            progress.echo(f"{shown(one.video)}: {answer}  ->  {one.folder}")
            if result.damaged:
                progress.say(f"timesformer: {one.video}: damaged: {'; '.join(result.problems)}")
    if failed < len(videos):
        say(f"{output / 'index.html'}: open it in a browser")
    if failed:
        sys.exit(BAD_INPUT)
