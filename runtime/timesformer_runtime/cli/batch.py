"""``timesformer batch``."""

from __future__ import annotations

import sys
import time
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
from timesformer_runtime.errors import OutputError, reason_of
from timesformer_runtime.source_names import hide_secrets

if TYPE_CHECKING:
    from timesformer_runtime.cli.progress import ProgressBar
    from timesformer_runtime.cli.results_file import ResultsFile
    from timesformer_runtime.workloads.batch import Outcome


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

    A video is not done again where a line has its absolute path, its size and its time of change:
    one that was replaced is done again, and so is another one of the same name in another folder.
    Folders may be moved between runs: start the next one where the same names lead to the videos,
    and keep their times (as mv, cp -p and rsync -a do). Leave the output alone while it is
    written; one that holds anything else is not touched.
    """
    from timesformer_runtime.cli.progress import ProgressBar  # noqa: PLC0415
    from timesformer_runtime.cli.results_file import ResultsFile  # noqa: PLC0415
    from timesformer_runtime.cli.video_list import find_videos  # noqa: PLC0415
    from timesformer_runtime.workloads.workers import check_workers, usual_workers  # noqa: PLC0415

    if str(output) == "-":
        raise click.UsageError("results cannot go to standard output; give --output a file")
    if workers is not None:
        check_workers(workers)  # before the output is made
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
        if results.without_folder:
            say(
                f"{output}: {results.without_folder} of its lines, of an earlier version, have "
                "names without a folder; they count from the current folder"
            )
        earlier = {video: results.succeeded(video) for video in videos}
        left = [
            video
            for video, succeeded in earlier.items()
            if succeeded is None or (retry_failed and not succeeded)
        ]
        failed = sum(earlier[video] is False for video in earlier.keys() - set(left))
        start = time.perf_counter()
        outcomes = classifier.batch(
            results.noted(left), top_k, workers=workers or usual_workers(cores)
        )
        try:
            with ProgressBar(len(left), "videos") as progress:
                for count, outcome in enumerate(outcomes, start=1):
                    _keep(outcome, results, progress)
                    failed += outcome.error is not None
                    progress.advance_to(count, len(left))
            results.check()
        except KeyboardInterrupt:
            fail_at_once("interrupted", INTERRUPTED)  # a line is there in whole, or not at all
        except OutputError as error:
            fail_at_once(str(error), BAD_INPUT)  # nobody waits for results that would be lost
        finally:
            outcomes.close()
        _tell_sum(output, len(videos), len(left), failed, time.perf_counter() - start)
    if failed:
        sys.exit(BAD_INPUT)


def _keep(outcome: Outcome, results: ResultsFile, progress: ProgressBar) -> None:
    video = str(outcome.video)
    if outcome.error is not None:
        message = hide_secrets(reason_of(outcome.error), video)
        results.append(video, {"error": one_line(message)})
        progress.say(f"timesformer: {about(video, message)}")
    if outcome.result is not None:
        results.append(video, outcome.result.to_dict())
        if outcome.result.damaged:
            problems = "; ".join(outcome.result.problems)
            progress.say(f"timesformer: {video}: damaged: {problems}")


def _tell_sum(output: Path, videos: int, done: int, failed: int, seconds: float) -> None:
    facts = [f"{done} video{'' if done == 1 else 's'} in {seconds:.1f} s"]
    if done:
        facts.append(f"{done / seconds:.2f} a second")
    if done < videos:
        facts.append(f"{videos - done} were done before")
    if failed:
        facts.append(f"{failed} failed")
    say(f"{output}: {', '.join(facts)}")
