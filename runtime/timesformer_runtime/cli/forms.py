"""The forms in which ``timeline`` gives its results, and the files that they go to."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import click

from timesformer_runtime.cli.paths import PathType
from timesformer_runtime.whole_file import check_new_file, whole_file

EDIT_LISTS = ("edl", "otio")
_SUBTITLES = ("vtt", "srt")
_FORMS = ("table", "csv", "json", *_SUBTITLES, *EDIT_LISTS)
_ENDINGS = {"txt": "table", "jsonl": "json"} | {form: form for form in _FORMS[1:]}
_PICTURES = (".png", ".svg", ".html")


@dataclasses.dataclass(frozen=True)
class ResultOptions:
    """The form of the results of a timeline, and the files that they go to.

    Attributes:
        form: ``table``, ``csv``, ``json``, ``vtt``, ``srt``, ``edl`` or ``otio``.
        shots: True for shots in place of windows, as always for ``edl`` and ``otio``.
        output: The file for the results; None for standard output.
        picture: The file for a picture of the results; None for no picture.
        force: True to replace what earlier runs wrote.
    """

    form: str
    shots: bool
    output: Path | None
    picture: Path | None
    force: bool


def result_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of the results; the command gets them as one argument ``wanted``.

    The files that they name are checked before the command runs.
    """

    @functools.wraps(function)
    def with_wanted(**options: Any) -> Any:
        given = {option: options.pop(option) for option in _OPTION_NAMES}
        wanted = _wanted(**given, explain=options["explain"])
        for file in (wanted.output, wanted.picture):
            if file is not None:
                inputs: dict[str, Any] = {"videos": [options["video"]], "model": options["model"]}
                check_new_file(file, force=wanted.force, **inputs)
        return function(wanted=wanted, **options)

    for decorate in (
        click.option(
            "--force",
            is_flag=True,
            help="Replace an --output or --picture that exists already, and what the folder of "
            "--explain has of the video.",
        ),
        click.option(
            "--picture",
            type=PathType(),
            metavar="FILE",
            help="Also draw the labels over time, with frames of the video: a new file that ends "
            "in .png, .svg or .html.",
        ),
        click.option(
            "--output",
            type=PathType(),
            metavar="FILE",
            help="Write the results to a new file, which is there when it is complete. Without "
            "--format, its ending chooses the form: .txt, .csv, .json, .jsonl, .vtt, .srt, .edl "
            "or .otio.",
        ),
        click.option(
            "--shots",
            is_flag=True,
            help="List the shots, and the transitions between them, at exact frames in place of "
            "windows. Needs a model for shot transitions, such as the bundled ones.",
        ),
        click.option("--csv", "as_csv", is_flag=True, help="Short for --format csv."),
        click.option("--json", "as_json", is_flag=True, help="Short for --format json."),
        click.option(
            "--format",
            "form",
            type=click.Choice(_FORMS),
            help="table: columns to read; csv: one line per label (start,end,label,score); json: "
            "one object per segment and line; vtt, srt: subtitles for players; edl, otio: the "
            "edit list of --shots for editing programs.  [default: table]",
        ),
    ):
        with_wanted = decorate(with_wanted)
    return with_wanted


_OPTION_NAMES = ("form", "as_json", "as_csv", "shots", "output", "picture", "force")


def _wanted(  # one argument for each option
    *,
    form: str | None,
    as_json: bool,
    as_csv: bool,
    shots: bool,
    output: Path | None,
    picture: Path | None,
    force: bool,
    explain: Path | None,
) -> ResultOptions:
    """Checks the options against each other."""
    names = {"--json": as_json, "--csv": as_csv, f"--format {form}": form is not None}
    given = [name for name, is_given in names.items() if is_given]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} contradict each other: give one")
    if picture is not None and picture.suffix.lower() not in _PICTURES:
        raise click.UsageError(f"--picture {picture} must end in {' or '.join(_PICTURES)}")
    if picture is not None and picture == output:
        raise click.UsageError(f"--picture and --output are both {output}: give two names")
    if force and output is None and picture is None and explain is None:
        raise click.UsageError("--force replaces an --output, --picture or --explain: give one")
    form = "json" if as_json else "csv" if as_csv else form
    if form is None:
        form = "table" if output is None else _form_of(output)
    is_edit_list = form in EDIT_LISTS
    if shots and form in _SUBTITLES:
        raise click.UsageError(f"--shots has no form {form}: give table, csv, json, edl or otio")
    if (shots or is_edit_list) and picture is not None:
        asked = f"--format {form}" if is_edit_list else "--shots"
        raise click.UsageError(f"--picture shows windows, and {asked} lists shots: leave one out")
    return ResultOptions(form, shots or is_edit_list, output, picture, force)


def _form_of(output: Path) -> str:
    """Finds the form of a file by its ending."""
    form = _ENDINGS.get(output.suffix.lower().removeprefix("."))
    if form is None:
        raise click.UsageError(
            f"the ending of --output {output} names no form; end it in .{', .'.join(_ENDINGS)}, or "
            "give --format"
        )
    return form


@contextlib.contextmanager
def opened_lines(
    output: Path | None, to_terminal: Callable[[str], None]
) -> Iterator[Callable[[str], None]]:
    """Gives a function that writes one line: to the file, or to the terminal where it is None.

    Raises:
        OutputError: The file cannot be written.
    """
    if output is None:
        yield to_terminal
        return
    with whole_file(output) as file:
        yield functools.partial(_write_line, file)


def _write_line(file: BinaryIO, line: str) -> None:
    file.write(f"{line}\n".encode("utf-8", "backslashreplace"))
