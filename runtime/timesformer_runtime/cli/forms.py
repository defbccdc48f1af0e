"""The forms in which ``timeline`` gives its results, and the file that they go to."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from timesformer_runtime.cli.whole_file import check_new_file, whole_file

TABLE, EDIT_LISTS = "table", ("edl", "otio")
FORMS = (TABLE, "csv", "json", "vtt", "srt", *EDIT_LISTS)


def form_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of the output; the command gets ``form``, ``output`` and ``force``.

    ``form`` is one of ``FORMS``. The file ``output`` can be written.
    """

    @functools.wraps(function)
    def with_form(
        form: str | None,
        as_json: bool,
        as_csv: bool,
        output: Path | None,
        force: bool,
        **options: Any,
    ) -> Any:
        names = {"--json": as_json, "--csv": as_csv, f"--format {form}": form is not None}
        given = [name for name, is_given in names.items() if is_given]
        if len(given) > 1:
            raise click.UsageError(f"{' and '.join(given)} contradict each other: give one")
        form = "json" if as_json else "csv" if as_csv else form
        if output is not None:
            form = form or _form_of(output)
            check_new_file(output, force=force)
        return function(form=form or TABLE, output=output, force=force, **options)

    for decorate in (
        click.option(
            "--force", is_flag=True, help="Replace files that exist already with the new ones."
        ),
        click.option(
            "--output",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Write to a new file, which is complete or does not exist. Without --format, "
            "its ending chooses the form.",
        ),
        click.option("--csv", "as_csv", is_flag=True, help="Short for --format csv."),
        click.option("--json", "as_json", is_flag=True, help="Short for --format json."),
        click.option(
            "--format",
            "form",
            type=click.Choice(FORMS),
            help="table: columns to read; csv: one line per label (start,end,label,score); json: "
            "one object per segment and line; vtt, srt: subtitles for players; edl, otio: an edit "
            "list for editing programs, as with --shots.  [default: table]",
        ),
    ):
        with_form = decorate(with_form)
    return with_form


def _form_of(output: Path) -> str:
    """Finds the form of a file by its ending."""
    form = output.suffix.lower().removeprefix(".")
    if form == "txt":
        return TABLE
    if form == "jsonl":
        return "json"
    if form not in FORMS[1:]:
        raise click.UsageError(
            f"{output}: its ending names no form; end it in .txt or .{', .'.join(FORMS[1:])}, or "
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
        yield lambda line: _write_line(file, line)


def _write_line(file: Any, line: str) -> None:
    file.write(f"{line}\n".encode("utf-8", "backslashreplace"))
