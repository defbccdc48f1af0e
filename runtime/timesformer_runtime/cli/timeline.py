"""``timesformer timeline``."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from timesformer_runtime.cli.forms import Wanted, opened_lines, result_options
from timesformer_runtime.cli.limit_options import limit_options
from timesformer_runtime.cli.model_options import load_to_share, model_options, top_k_option
from timesformer_runtime.cli.output import INTERRUPTED, check_output, fail_at_once, say
from timesformer_runtime.cli.video_list import source
from timesformer_runtime.cli.view_options import view_options, window_options


@click.command()
@click.argument("model")
@click.argument("video")
@window_options
@click.option(
    "--merge", is_flag=True, help="Join neighbouring windows that have the same first label."
)
@top_k_option(1, "segment")
@result_options
@view_options
@limit_options()
@model_options
def timeline(
    video: str,
    window: float,
    stride: float,
    merge: bool,
    top_k: int,
    wanted: Wanted,
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

    classifier, cores = load_to_share(**options)
    picture = None
    if wanted.picture is not None:
        from timesformer_runtime.cli.picture import Picture  # noqa: PLC0415

        picture = Picture(wanted.picture, classifier, video)
    segments = classifier.timeline(
        source(video),
        window,
        stride,
        max(top_k, picture.top_k) if picture else top_k,
        merge=merge,
        workers=cores // classifier.threads,
    )
    lines = lines_of(wanted.form, classifier.labels)
    try:
        with (
            ProgressBar(None, "seconds of video") as progress,
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
    except KeyboardInterrupt:
        fail_at_once("interrupted", INTERRUPTED)  # a read of standard input may block
    finally:
        segments.close()
    if segments.problems:
        say(f"timesformer: {video}: damaged: {'; '.join(segments.problems)}")
