"""``timesformer batch``."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from timesformer_runtime.cli.limit_options import limit_options
from timesformer_runtime.cli.model_options import load_to_share, model_options, top_k_option
from timesformer_runtime.cli.output import (
    BAD_INPUT,
    INTERRUPTED,
    about,
    fail_at_once,
    one_line,
    say,
)
from timesformer_runtime.cli.view_options import view_options
from timesformer_runtime.errors import reason_of

if TYPE_CHECKING:
    from timesformer_runtime.batch import Outcome
    from timesformer_runtime.cli.progress import ProgressBar
    from timesformer_runtime.results_file import ResultsFile


@click.command()
@click.argument("model")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE.jsonl",
    help="Where results go. Videos that are there already are not done again.",
)
@top_k_option(5, "video")
@click.option(
    "--retry-failed",
    is_flag=True,
    help="Do those again that failed in an earlier run; their last line counts.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Videos that are worked on at a time.  [default: one more than threads]",
)
@view_options
@limit_options()
@model_options
def batch(
    paths: tuple[str, ...],
    output: Path,
    top_k: int,
    retry_failed: bool,
    workers: int | None,
    **options: Any,
) -> None:
    """Name what many videos show: one JSON object per video and line.

    A PATH is a file, a folder, which is searched with all that is in it and behind links, a
    pattern such as 'clips/**/*.mp4', or "-" for a list of files on standard input. A pipe counts
    only where it is named, and is waited for no longer than --max-seconds. A line is written as
    soon as its video is done; that of a video that failed has an "error". A run that was broken
    off goes on where it stopped when it is started again with the same output.
    """
    from timesformer_runtime.cli.progress import ProgressBar  # noqa: PLC0415
    from timesformer_runtime.results_file import ResultsFile  # noqa: PLC0415
    from timesformer_runtime.video_list import find_videos  # noqa: PLC0415
    from timesformer_runtime.workers import usual_workers  # noqa: PLC0415

    if str(output) == "-":
        raise click.UsageError("results cannot go to standard output; give --output a file")
    videos = find_videos(paths, sys.stdin.buffer if sys.stdin else None)
    classifier, cores = load_to_share(**options)
    run = {
        "model": classifier.name,
        "fingerprint": classifier.fingerprint(),
        "dtype": classifier.dtype,
        "top_k": top_k,
        **classifier.views.to_dict(),
    }
    with ResultsFile(output, run) as results:
        left = [video for video in videos if not results.has(video, or_failed=not retry_failed)]
        start = time.perf_counter()
        outcomes = classifier.batch(left, top_k, workers=workers or usual_workers(cores))
        try:
            with ProgressBar(len(left), "videos") as progress:
                for count, outcome in enumerate(outcomes, start=1):
                    _keep(outcome, results, progress)
                    progress.advance_to(count, len(left))
        except KeyboardInterrupt:
            fail_at_once("interrupted", INTERRUPTED)  # a line is there in whole, or not at all
        finally:
            outcomes.close()
        _tell_sum(results, videos, left, time.perf_counter() - start)
    if not all(results.has(video, or_failed=False) for video in videos):
        sys.exit(BAD_INPUT)


def _keep(outcome: Outcome, results: ResultsFile, progress: ProgressBar) -> None:
    video = str(outcome.video)
    if outcome.error is not None:
        message = reason_of(outcome.error)
        results.append(video, {"error": one_line(message)})
        progress.say(f"timesformer: {about(video, message)}")
    if outcome.result is not None:
        results.append(video, outcome.result.to_dict())
        if outcome.result.damaged:
            problems = "; ".join(outcome.result.problems)
            progress.say(f"timesformer: {video}: damaged: {problems}")


def _tell_sum(
    results: ResultsFile, videos: Sequence[str], left: Sequence[str], seconds: float
) -> None:
    facts = [f"{len(left)} video{'' if len(left) == 1 else 's'} in {seconds:.1f} s"]
    if left:
        facts.append(f"{len(left) / seconds:.2f} a second")
    if len(left) < len(videos):
        facts.append(f"{len(videos) - len(left)} were done before")
    failed = sum(not results.has(video, or_failed=False) for video in videos)
    if failed:
        facts.append(f"{failed} failed")
    say(f"{results.path}: {', '.join(facts)}")
