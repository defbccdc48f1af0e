"""The forms in which ``timeline`` and ``stream`` print results: JSON, CSV, columns."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence

from rich.cells import cell_len

from timesformer_runtime.errors import harmless, printable
from timesformer_runtime.results import PartResult

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
        times = _clock(part.start), _clock(part.end)
        for prediction in part.predictions:
            yield self._row(*times, prediction["label"], f"{prediction['score']:.4f}", facts)
            times, facts = ("", ""), ()

    def _row(self, start: str, end: str, label: str, score: str, facts: Sequence[str]) -> str:
        label = printable(label)
        label += " " * (self._width - cell_len(label))
        columns = [f"{start:>10}", f"{end:>10}", label, f"{score:>7}"]
        return "  ".join([*columns, *(f"{fact:>8}" for fact in facts)]).rstrip()


def _clock(seconds: float) -> str:
    """Formats seconds as ``1:02.5``, and with hours as ``1:00:02.5``."""
    minutes, tenths = divmod(round(seconds * 10), 600)
    hours, minutes = divmod(minutes, 60)
    short = f"{minutes}:{tenths // 10:02}.{tenths % 10}"
    return f"{hours}:{short:0>7}" if hours else short
