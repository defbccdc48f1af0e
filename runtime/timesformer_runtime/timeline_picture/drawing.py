"""Drawing: what the picture of a timeline consists of, for SVG and PNG alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from timesformer_runtime.errors import printable
from timesformer_runtime.timeline_picture.bands import Bands
from timesformer_runtime.timeline_picture.fonts import shortened, text_width

Ink = Literal["paper", "ink", "soft", "track", "grid"]  # colours that differ on light and dark

WIDTH = 1200
COLUMNS = 900  # of a chart, at most
_MARGIN = 24
_TITLE, _TEXT, _SMALL = 18, 13, 12  # sizes of letters
_GUTTER = (70, 250)  # the narrowest and widest room for labels
_SHARES = 52  # room for the shares at the right
_ROW, _GAP = 24, 8
_THUMBNAIL = 72  # height
_LEVELS = 8  # of opacity
_LEAST_OPACITY = 0.06
_SECOND = 0.55  # opacity of a score that is not the best, compared with one that is
_TICK_ROOM = 90  # pixels from one time to the next, at least
_STEPS = (
    0.1,
    0.2,
    0.5,
    1,
    2,
    5,
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    900,
    1800,
    3600,
    7200,
    10800,
    21600,
)

# Twelve colours of middle lightness, to be seen on white and on black; neighbours differ most.
COLOURS = (
    "#3b7dd8", "#e0762c", "#2f9e6e", "#c84a7e", "#8a63d2", "#b08a1e",
    "#2aa5b8", "#d6504a", "#6c9a2d", "#a8729c", "#4f6bb0", "#94735a",
)  # fmt: skip


class Rectangle(NamedTuple):
    """A filled rectangle, in pixels; ``colour`` is an ``Ink`` or a hexadecimal number."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    opacity: float = 1.0


class Text(NamedTuple):
    """A line of text; ``y`` is its baseline. ``full`` is the text before it was shortened."""

    x: float
    y: float
    text: str
    size: int
    colour: Ink = "ink"
    anchor: Literal["start", "middle", "end"] = "start"
    full: str = ""

    @property
    def is_bold(self) -> bool:
        """True for the title."""
        return self.size == _TITLE


class Thumbnail(NamedTuple):
    """A JPEG picture."""

    x: float
    y: float
    width: float
    height: float
    jpeg: bytes


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A picture of a timeline.

    Attributes:
        height: Pixels; the width is ``WIDTH``.
        rectangles: Drawn first, in order.
        thumbnails: Drawn on the rectangles.
        texts: Drawn last.
        chart: The part with the bands: left, top, width, height.
        title: The title, for readers that do not see.
    """

    height: int
    rectangles: tuple[Rectangle, ...]
    thumbnails: tuple[Thumbnail, ...]
    texts: tuple[Text, ...]
    chart: tuple[float, float, float, float]
    title: str


def thumbnail_times(bands: Bands, aspect: float) -> tuple[float, ...]:
    """Computes at which times frames are shown.

    Args:
        bands: The bands.
        aspect: Width of the frames, divided by their height.
    """
    _, width = _chart_sides(bands)
    count = max(1, int((width + 4) / (_THUMBNAIL * min(max(aspect, 0.4), 4.0) + 4)))
    seconds = bands.end - bands.start
    return tuple(bands.start + seconds * (index + 0.5) / count for index in range(count))


def draw(bands: Bands, title: str, subtitle: str, frames: Sequence[bytes] = ()) -> Drawing:
    """Lays out a picture.

    Args:
        bands: The bands.
        title: The first line, such as the video's name.
        subtitle: The second line.
        frames: JPEG pictures at ``thumbnail_times``; empty for none.
    """
    left, width = _chart_sides(bands)
    y = _MARGIN + _TITLE
    texts = [
        _fitting(_MARGIN, y, printable(title), _TITLE, WIDTH - 2 * _MARGIN),
        _fitting(_MARGIN, y + 22, printable(subtitle), _SMALL, WIDTH - 2 * _MARGIN, "soft"),
    ]
    top = y + 44
    thumbnails = _thumbnails(frames, left, top, width)
    if thumbnails:
        top += _THUMBNAIL + 14
    tops = [top + row * (_ROW + _GAP) for row in range(len(bands.labels))]
    height = tops[-1] + _ROW - top
    rectangles = [Rectangle(left, band_top, width, _ROW, "track") for band_top in tops]
    for x, time in _ticks(bands, left, width):
        rectangles.append(Rectangle(x - 0.5, top - 4, 1, height + 12, "grid"))
        texts.append(Text(x, top + height + 26, time, _SMALL, "soft", "middle"))
    for row, band_top in enumerate(tops):
        rectangles += _band(bands, row, left, band_top, width)
        texts += _captions(bands, row, left, band_top)
    texts.append(Text(WIDTH - _MARGIN, top - 9, "of time", _SMALL, "soft", "end"))
    bottom = top + height + 26 + _MARGIN
    if bands.others:
        plural = "label is" if bands.others == 1 else "labels are"
        note = f"{bands.others} more {plural} first for a shorter time."
        texts.append(Text(left, bottom, note, _SMALL, "soft"))
        bottom += 20
    return Drawing(
        round(bottom),
        (Rectangle(0, 0, WIDTH, bottom, "paper"), *rectangles),
        thumbnails,
        tuple(texts),
        (left, top, width, height),
        printable(title),
    )


def _thumbnails(
    frames: Sequence[bytes], left: float, top: float, width: float
) -> tuple[Thumbnail, ...]:
    """Lays out frames side by side over the width of the chart."""
    each = (width + 4) / max(1, len(frames))
    return tuple(
        Thumbnail(left + index * each, top, each - 4, _THUMBNAIL, frame)
        for index, frame in enumerate(frames)
    )


def _captions(bands: Bands, row: int, left: float, top: float) -> tuple[Text, Text]:
    """Gives the label at the left of a band, and its share of the time at the right."""
    baseline = top + _ROW / 2 + 4.5
    label, room = printable(bands.labels[row]), left - _MARGIN - 12
    share = f"{bands.shares[row]:.0%}" if bands.shares[row] >= 0.005 else ""
    share = "<1%" if not share and bands.shares[row] > 0 else share
    return (
        _fitting(left - 12, baseline, label, _TEXT, room, "ink", "end"),
        Text(WIDTH - _MARGIN, baseline, share, _SMALL, "soft", "end"),
    )


def _chart_sides(bands: Bands) -> tuple[float, float]:
    """Gives the left side of the chart, and its width."""
    widest = max(text_width(printable(label), _TEXT) for label in bands.labels)
    left = _MARGIN + 12 + min(max(widest, _GUTTER[0]), _GUTTER[1])
    return left, WIDTH - _MARGIN - _SHARES - left


def _fitting(
    x: float,
    y: float,
    text: str,
    size: int,
    room: float,
    colour: Ink = "ink",
    anchor: Literal["start", "middle", "end"] = "start",
) -> Text:
    short = shortened(text, size, room)
    return Text(x, y, short, size, colour, anchor, text if short != text else "")


def _band(bands: Bands, row: int, left: float, top: float, width: float) -> Iterator[Rectangle]:
    """Gives the rectangles of a label; neighbouring columns of about equal scores are one."""
    scores = np.clip(np.nan_to_num(bands.scores[row]), 0, 1)
    opacity = np.where(bands.is_first[row], scores * 0.7 + 0.3, scores**1.5 * _SECOND)
    levels = np.round(opacity * _LEVELS).astype(int)
    changes = np.flatnonzero(np.diff(levels)) + 1
    columns = len(levels)
    for begin, end in zip([0, *changes], [*changes, columns], strict=True):
        value = levels[begin] / _LEVELS
        if value > _LEAST_OPACITY:
            x = left + width * begin / columns
            yield Rectangle(
                x, top, width * (end - begin) / columns, _ROW, COLOURS[row], round(value, 3)
            )


def _ticks(bands: Bands, left: float, width: float) -> Iterator[tuple[float, str]]:
    """Gives the position and text of each time on the axis."""
    seconds = bands.end - bands.start
    room = seconds * _TICK_ROOM / width
    step = next((step for step in _STEPS if step >= room), None)
    if step is None:
        step = -(-room // 86400) * 86400
    number = -(-bands.start // step)
    while number * step <= bands.end + 1e-9:
        time = number * step
        yield left + width * (time - bands.start) / seconds, clock(time, step, bands.end)
        number += 1


def clock(time: float, step: float, last: float) -> str:
    """Writes a time as ``1:05``, as ``0:01:05`` where hours come, with tenths for short steps."""
    tenths = round(time * 10)
    seconds, tenth = divmod(tenths, 10)
    minutes, seconds = divmod(seconds, 60)
    text = f"{minutes}:{seconds:02}"
    if last >= 3600:
        text = f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
    return f"{text}.{tenth}" if step < 1 else text
