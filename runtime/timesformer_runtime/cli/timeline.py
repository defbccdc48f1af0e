"""``timesformer timeline``."""

from __future__ import annotations

from typing import Any

import click

from timesformer_runtime.cli.limit_options import limit_options
from timesformer_runtime.cli.model_options import load_to_share, model_options, top_k_option
from timesformer_runtime.cli.output import INTERRUPTED, check_output, fail_at_once, say
from timesformer_runtime.cli.video_list import source
from timesformer_runtime.cli.view_options import view_options, window_options


@click.command()
@click.argument("model")
@click.argument("video")
@window_options
@click.option("--merge", is_flag=True, help="Join neighbours with the same first label.")
@top_k_option(1, "segment")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per segment and line.")
@click.option("--csv", "as_csv", is_flag=True, help="One line per label: start,end,label,score.")
@view_options
@limit_options()
@model_options
def timeline(
    video: str,
    window: float,
    stride: float,
    merge: bool,
    top_k: int,
    as_json: bool,
    as_csv: bool,
    **options: Any,
) -> None:
    """Name what each part of a long VIDEO shows.

    Windows slide over the video, which is read once; each result is printed as soon as it is
    known. Times count from the video's first frame. VIDEO "-" is standard input, all of which is
    copied to a temporary file before the first result.

    Damage is marked where it is: how many packets failed, or "yes". The last segment is marked for
    whatever is wrong with the whole file, as that its end is missing. What it is, is told on
    standard error at the end, and in --json; --csv has no column for it.
    """
    check_output()
    if as_json and as_csv:
        raise click.UsageError("--json and --csv contradict each other: give one")
    from timesformer_runtime.cli.progress import ProgressBar  # noqa: PLC0415
    from timesformer_runtime.cli.segment_lines import (  # noqa: PLC0415
        CsvLines,
        JsonLines,
        Rows,
        damage_of,
    )

    classifier, cores = load_to_share(**options)
    segments = classifier.timeline(
        source(video), window, stride, top_k, merge=merge, workers=cores // classifier.threads
    )
    form = JsonLines() if as_json else CsvLines() if as_csv else None
    rows = Rows(classifier.labels, ("damaged",))
    try:
        with ProgressBar(None, "seconds of video") as progress:
            for segment in segments:
                for line in (
                    form.lines(segment) if form else rows.lines(segment, (damage_of(segment),))
                ):
                    progress.echo(line)
                progress.advance_to(segment.end, segments.duration)
    except KeyboardInterrupt:
        fail_at_once("interrupted", INTERRUPTED)  # standard input may not end for long
    finally:
        segments.close()
    if segments.problems:
        say(f"timesformer: {video}: damaged: {'; '.join(segments.problems)}")
