"""``timesformer timeline --shots``, and its edit lists."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from timesformer_runtime.cli.forms import EDIT_LISTS, ResultOptions, opened_lines
from timesformer_runtime.cli.model_options import load_to_share
from timesformer_runtime.cli.output import INTERRUPTED, fail_at_once, say
from timesformer_runtime.cli.video_list import STDIN, source

if TYPE_CHECKING:
    from timesformer_runtime.shots import EditList, Transition

_OF_WINDOWS = ("window", "stride", "merge", "top_k", "explain")


def list_shots(video: str, wanted: ResultOptions, **options: Any) -> None:
    """Lists the shots of a video.

    Raises:
        click.UsageError: An option does not apply to shots.
        TimesformerError: As for ``find_shots``.
    """
    _refuse_window_options(wanted.form)
    writer, check_rate = _edit_list_writer(wanted.form)
    from timesformer_runtime.cli.progress import ProgressBar  # noqa: PLC0415
    from timesformer_runtime.shots import find_shots  # noqa: PLC0415

    classifier, cores = load_to_share(**options)
    try:
        with (
            ProgressBar(None, "seconds of video") as progress,
            opened_lines(wanted.output, progress.echo) as write,
        ):
            found = find_shots(
                classifier,
                source(video),
                workers=cores // classifier.threads,
                progress=progress.advance_to,
                check_rate=check_rate,
            )
            for line in writer(found, None if video == STDIN else video):
                write(line)
    except KeyboardInterrupt:
        fail_at_once("interrupted", INTERRUPTED)  # a read of standard input may block
    if found.problems:
        say(f"timesformer: {video}: damaged: {'; '.join(found.problems)}")


def _refuse_window_options(form: str) -> None:
    context = click.get_current_context()
    for parameter in context.command.params:
        is_given = context.get_parameter_source(parameter.name or "") not in {
            click.core.ParameterSource.DEFAULT,
            click.core.ParameterSource.DEFAULT_MAP,
        }
        if parameter.name in _OF_WINDOWS and is_given:
            asked = f"--format {form}" if form in EDIT_LISTS else "--shots"
            raise click.UsageError(
                f"{parameter.opts[0]} is for windows, and {asked} lists shots: leave one out"
            )


Writer = Callable[["EditList", str | None], Iterator[str]]


def _edit_list_writer(form: str) -> tuple[Writer, Callable[[float], None] | None]:
    """Gives the function that writes a form, and the check of the video's rate.

    Raises:
        MissingDependencyError: The libraries of the form are not installed.
    """
    if form not in EDIT_LISTS:
        return {"table": _table, "csv": _csv, "json": _json}[form], None
    from timesformer_runtime.shots import exchange  # noqa: PLC0415

    def say_if_by_time(found: EditList, video: str | None) -> None:
        if exchange.counts_by_time(found):
            say(
                f"timesformer: {video or 'the video'}: its frames do not keep to the stated "
                f"{found.rate:.5g} a second; the edit list counts them by their times at that rate"
            )

    def otio(found: EditList, video: str | None) -> Iterator[str]:
        say_if_by_time(found, video)
        yield exchange.opentimelineio(found, video).rstrip()

    def edl(found: EditList, video: str | None) -> Iterator[str]:
        events = len(found.shots)
        if events > exchange.MOST_EVENTS:
            say(
                f"timesformer: {events} shots are more than the {exchange.MOST_EVENTS} events that "
                "CMX 3600 can number, and some programs read no more; --format otio has no limit"
            )
        say_if_by_time(found, video)
        yield exchange.edl(found, video).rstrip()

    return (otio, None) if form == "otio" else (edl, exchange.check_timecode_rate)


def _json(found: EditList, video: str | None) -> Iterator[str]:
    yield json.dumps({"video": video, **found.to_dict()})


def _csv(found: EditList, video: str | None) -> Iterator[str]:
    del video
    names = ("shot", "first", "last", "start", "end", "opening", "opening_first", "opening_last")
    yield ",".join((*names, "score"))
    for number, shot in enumerate(found.shots, start=1):
        opening = shot.opening
        row = [number, shot.first, shot.last, f"{shot.start:.3f}", f"{shot.end:.3f}"]
        if opening:
            row += [opening.kind, opening.first, opening.last, f"{opening.score:.6f}"]
        else:
            row += [""] * 4
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(row)
        yield line.getvalue()


def _table(found: EditList, video: str | None) -> Iterator[str]:
    del video
    from timesformer_runtime.cli.segment_lines import clock  # noqa: PLC0415
    from timesformer_runtime.cli.tables import aligned  # noqa: PLC0415

    rows = [("opening", "shot", "start", "end", "first", "last", "score")]
    for number, shot in enumerate(found.shots, start=1):
        times = clock(shot.start), clock(shot.end)
        score = f"{shot.opening.score:.4f}" if shot.opening else ""
        frames = str(shot.first), str(shot.last)
        rows.append((_words(shot.opening), str(number), *times, *frames, score))
    yield from aligned(rows)


def _words(opening: Transition | None) -> str:
    """Names a transition, and its frames where it has several."""
    if opening is None:
        return ""
    return opening.kind if opening.is_cut else f"{opening.kind} {opening.first}-{opening.last}"
