"""The forms of the results of ``timeline`` and ``stream``: JSON, CSV, subtitles, columns."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence

from rich.cells import cell_len

from timesformer_runtime.errors import harmless, printable
from timesformer_runtime.results import PartResult

_WORD_JOINER = "\u2060"
_WIDEST = 64  # columns; a longer label only shifts its own line


class JsonLines:
    """One JSON object per result."""

    def lines(self, part: PartResult) -> Iterator[str]:
        """Gives the line of the next result."""
        yield json.dumps(part.to_dict())


class CsvLines:
    """One line per label, after a header line."""

    def __init__(self) -> None:
        self._header: tuple[str, ...] | None = ("start", "end", "label", "score")

    def lines(self, part: PartResult) -> Iterator[str]:
        """Gives the lines of the next result."""
        if self._header:
            yield ",".join(self._header)
            self._header = None
        for prediction in part.predictions:
            line = io.StringIO()
            row = (f"{part.start:.3f}", f"{part.end:.3f}", harmless(prediction["label"]))
            csv.writer(line, lineterminator="").writerow([*row, f"{prediction['score']:.6f}"])
            yield line.getvalue()


class VttLines:
    """WebVTT subtitles: one cue per result, with a line for each label.

    The specification forbids ``-->`` in a cue, and gives ``&`` and ``<`` a meaning.
    """

    def __init__(self) -> None:
        self._has_header = False

    def lines(self, part: PartResult) -> Iterator[str]:
        """Gives the lines of the next cue."""
        if not self._has_header:
            yield from ("WEBVTT", "")
            self._has_header = True
        yield _cue_times(part, ".")
        for text in _cue_texts(part):
            yield text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        yield ""


class SrtLines:
    """SubRip subtitles: one numbered cue per result, with a line for each label.

    SubRip cannot escape anything. An invisible word joiner keeps players from taking ``<i>`` or
    ``{b}`` in a label for a format, and ``-->`` for times.
    """

    def __init__(self) -> None:
        self._cues = 0

    def lines(self, part: PartResult) -> Iterator[str]:
        """Gives the lines of the next cue."""
        self._cues += 1
        yield str(self._cues)
        yield _cue_times(part, ",")
        for text in _cue_texts(part):
            harmless_text = text.replace("-->", f"--{_WORD_JOINER}>")
            yield harmless_text.replace("<", f"<{_WORD_JOINER}").replace("{", f"{{{_WORD_JOINER}")
        yield ""


def _cue_texts(part: PartResult) -> Iterator[str]:
    """Gives a line for each label; a line with nothing but space would end the cue."""
    for prediction in part.predictions:
        label = " ".join(harmless(prediction["label"]).split())
        yield f"{label} {prediction['score']:.2f}".lstrip()


def _cue_times(part: PartResult, point: str) -> str:
    """Writes the times of a cue, which ends a millisecond after its start at the earliest."""
    start = round(part.start * 1000)
    end = max(round(part.end * 1000), start + 1)
    return f"{_timestamp(start, point)} --> {_timestamp(end, point)}"


def _timestamp(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}{point}{rest:03}"


def damage_of(part: PartResult) -> str:
    """The text of the column ``damaged``: the number of failed packets, else ``yes`` or empty."""
    if part.failed_packets:
        return str(part.failed_packets)
    return "yes" if part.damaged else ""


class Rows:
    """Aligned columns, for people to read.

    Args:
        labels: All labels that may come, for the width of their column.
        facts: Names of the columns after the score.
    """

    def __init__(self, labels: Sequence[str] | None, facts: Sequence[str] = ()) -> None:
        names = ["label", *map(printable, labels or ())]
        self._width = min(max(map(cell_len, names)), _WIDEST)
        self._facts = facts
        self._has_header = False

    def lines(self, part: PartResult, facts: Sequence[str] = ()) -> Iterator[str]:
        """Gives the rows of the next result: one for each label, the first with ``facts``."""
        if not self._has_header:
            yield self._row("start", "end", "label", "score", self._facts)
            self._has_header = True
        times = clock(part.start), clock(part.end)
        if not part.predictions:  # not classified, because nothing moves in it
            yield self._row(*times, "(static)", "", facts)
        for prediction in part.predictions:
            yield self._row(*times, prediction["label"], f"{prediction['score']:.4f}", facts)
            times, facts = ("", ""), ()

    def _row(self, start: str, end: str, label: str, score: str, facts: Sequence[str]) -> str:
        label = printable(label)
        label += " " * (self._width - cell_len(label))
        columns = [f"{start:>10}", f"{end:>10}", label, f"{score:>7}"]
        return "  ".join([*columns, *(f"{fact:>8}" for fact in facts)]).rstrip()


def clock(seconds: float) -> str:
    """Formats seconds as ``1:02.5``, and with hours as ``1:00:02.5``."""
    minutes, tenths = divmod(round(seconds * 10), 600)
    hours, minutes = divmod(minutes, 60)
    short = f"{minutes}:{tenths // 10:02}.{tenths % 10}"
    return f"{hours}:{short:0>7}" if hours else short


def lines_of(form: str, labels: Sequence[str] | None) -> Callable[[PartResult], Iterator[str]]:
    """Gives the function that turns each result of a timeline into lines of a form.

    Args:
        form: ``table``, ``csv``, ``json``, ``vtt`` or ``srt``.
        labels: All labels that may come, for the width of their column.
    """
    if form == "table":
        rows = Rows(labels, ("damaged",))
        return lambda part: rows.lines(part, (damage_of(part),))
    if form == "csv":
        return CsvLines().lines
    if form == "json":
        return JsonLines().lines
    return VttLines().lines if form == "vtt" else SrtLines().lines
