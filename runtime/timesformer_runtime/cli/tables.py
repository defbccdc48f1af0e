"""Tables of aligned columns: one that grows, for ``timesformer classify``, and whole ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from timesformer_runtime.errors import printable

if TYPE_CHECKING:
    from timesformer_runtime.classifier import VideoClassifier
    from timesformer_runtime.results import VideoResult

_WIDEST = 64  # columns; longer names are written out and only shift their own line
_GAP = "  "


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # the command handles closed pipes; rich would exit with 1


class PredictionTable:
    """A table that grows: rows are printed as soon as a video is done.

    Args:
        videos: The names of all videos that may come, for the width of their column.
        classifier: The model, for its labels.
    """

    def __init__(self, videos: Sequence[str], classifier: VideoClassifier) -> None:
        self._console = _Console(highlight=False, markup=False, soft_wrap=True)
        self._video_width = _width(["video", *videos])
        self._label_width = _width(["label", *(classifier.labels or ())])
        self._has_labels = "logits" in classifier.outputs
        self._header_printed = False

    def add(self, video: str, result: VideoResult) -> None:
        """Prints the rows of one video: labels, best first, the seconds, and marks of damage."""
        if not self._header_printed:
            self._print("video", "label", "score", "seconds", style="bold")
            self._header_printed = True
        seconds = result.seconds
        total = f"{seconds.decode + seconds.preprocess + seconds.inference:7.2f}"
        for mark in ("damaged", "interlaced"):
            if getattr(result, mark):
                total += f"{_GAP}{mark}"
        if not result.predictions:
            self._print(video, "(features only)", "", total)
        for rank, prediction in enumerate(result.predictions):
            first = rank == 0
            self._print(
                video if first else "",
                prediction["label"],
                f"{prediction['score']:.4f}",
                total if first else "",
                style="green" if first else "dim",
            )

    def _print(self, video: str, label: str, score: str, seconds: str, style: str = "") -> None:
        line = Text(_pad(video, self._video_width) + _GAP)
        line.append(_pad(label, self._label_width) + _GAP + f"{score:>9}", style=style)
        line.append(f"{_GAP}{seconds:>7}", style="dim" if style != "bold" else style)
        line.rstrip()
        self._console.print(line)


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Lays out a table whose rows are all known; returns its lines.

    Args:
        rows: The cells of each row, as many in each.
        left: How many columns stand at the left of their width; the others stand at the right.
    """
    widths = [_width(column) for column in zip(*rows, strict=True)]
    return [
        _GAP.join(
            _pad(cell, width) if column < left else " " * (width - cell_len(cell)) + cell
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _width(texts: Sequence[str]) -> int:
    return min(max(cell_len(printable(text)) for text in texts), _WIDEST)


def _pad(text: str, width: int) -> str:
    text = printable(text)
    return set_cell_size(text, width) if cell_len(text) < width else text
