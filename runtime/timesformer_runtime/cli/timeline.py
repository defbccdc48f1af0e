"""``timesformer timeline``."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from timesformer_runtime.cli.forms import ResultOptions, opened_lines, result_options
from timesformer_runtime.cli.limit_options import limit_options
from timesformer_runtime.cli.model_options import load_to_share, model_options, top_k_option
from timesformer_runtime.cli.output import INTERRUPTED, check_output, fail_at_once, say
from timesformer_runtime.cli.paths import PathType
from timesformer_runtime.cli.video_list import STDIN, source
from timesformer_runtime.cli.view_options import view_options, window_options
from timesformer_runtime.whole_file import check_outside_model

if TYPE_CHECKING:
    from timesformer_runtime.cli.picture import Picture
    from timesformer_runtime.cli.progress import ProgressBar
    from timesformer_runtime.explain.windows import ExplainedTimeline
    from timesformer_runtime.results import PartResult
    from timesformer_runtime.workloads.timeline import Timeline


@click.command()
@click.argument("model")
@click.argument("video")
@window_options
@click.option(
    "--merge", is_flag=True, help="Join neighbouring windows that have the same first label."
)
@top_k_option(1, "segment")
@result_options
@click.option(
    "--explain",
    type=PathType(),
    metavar="DIR",
    help="Also write the video under the heat of what reached the answers, the frames that the "
    "model saw of each window, and a page. For models exported with --explain.",
)
@view_options
@limit_options()
@model_options
def timeline(
    video: str,
    window: float,
    stride: float,
    merge: bool,
    top_k: int,
    wanted: ResultOptions,
    explain: Path | None,
    **options: Any,
) -> None:
    """Classify a long VIDEO, window after window.

    A window of a few seconds slides over the video, which is read once. The command prints each
    result as soon as it is known. Times count from the video's first frame. VIDEO "-" is standard
    input; all of it is copied to a temporary file before the first result.

    The column "damaged" tells how many packets failed to decode in a segment, or "yes" for other
    damage. Damage of the whole file, such as a missing end, marks the last segment. A line on
    standard error at the end, and --json, say in words what is wrong; --csv has no column for
    damage.
    """
    if wanted.output is None:
        check_output()
    if wanted.shots:
        from timesformer_runtime.cli.shots import list_shots  # noqa: PLC0415

        list_shots(video, wanted, **options)
        return
    from timesformer_runtime.cli.progress import ProgressBar  # noqa: PLC0415
    from timesformer_runtime.cli.segment_lines import lines_of  # noqa: PLC0415

    if explain is not None and (merge or video == STDIN):
        raise click.UsageError("--explain is for single windows of a file: leave out --merge and -")
    if explain is not None:
        check_outside_model(explain, options["model"])
    classifier, cores = load_to_share(**options)
    picture = None
    if wanted.picture is not None:
        from timesformer_runtime.cli.picture import Picture  # noqa: PLC0415

        picture = Picture(wanted.picture, classifier, video)
    labels = max(top_k, picture.top_k) if picture else top_k
    progress = ProgressBar(None, "seconds of video")
    segments: Timeline | ExplainedTimeline
    if explain is not None:
        from timesformer_runtime.explain.windows import ExplainedTimeline  # noqa: PLC0415
        from timesformer_runtime.results import Ranking  # noqa: PLC0415
        from timesformer_runtime.workloads.windows import WindowSettings  # noqa: PLC0415

        segments = ExplainedTimeline(
            classifier,
            video,
            WindowSettings(window, stride),
            Ranking(labels),
            explain,
            force=wanted.force,
            on_frame=functools.partial(progress.advance_to, doing="overlay"),
        )
    else:
        segments = classifier.timeline(
            source(video), window, stride, labels, merge=merge, workers=cores // classifier.threads
        )
    try:
        lines = lines_of(wanted.form, classifier.labels)
        _write(segments, lines, wanted, picture, top_k, progress)
    except KeyboardInterrupt:
        fail_at_once("interrupted", INTERRUPTED)  # a read of standard input may block
    finally:
        segments.close()
    if segments.problems:
        say(f"timesformer: {video}: damaged: {'; '.join(segments.problems)}")


def _write(
    segments: Timeline | ExplainedTimeline,
    lines: Callable[[PartResult], Iterator[str]],
    wanted: ResultOptions,
    picture: Picture | None,
    top_k: int,
    progress: ProgressBar,
) -> None:
    """Writes the lines of each segment when it is known, and the picture at the end."""
    with (
        progress,
        opened_lines(wanted.output, progress.echo) as write,
    ):
        for segment in segments:
            if picture:
                picture.add(segment)
            best = segment.predictions[:top_k]
            for line in lines(dataclasses.replace(segment, predictions=best)):
                write(line)
            progress.advance_to(segment.end, segments.duration)
        if picture:
            picture.write()
