"""Drawing: contact sheets and bars of time, on a dark ground on which heat is seen best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from timesformer_runtime.extras import evaluate_extra
from timesformer_runtime.pictures.encoding import resized
from timesformer_runtime.pictures.heat import Rgb, heat_colours

with evaluate_extra():
    from PIL import Image, ImageDraw, ImageFont

_GROUND, _TEXT, _FAINT, _LINE = (22, 24, 29), (236, 237, 240), (152, 157, 168), (62, 67, 77)
_GAP = 12  # pixels
_FEW, _FEW_COLUMNS, _FEW_SIDE = 8, 4, 280  # up to so many pictures are shown large
_MANY_COLUMNS, _MANY_SIDE = 8, 180  # pixels
_BAR_SIZE = 1200, 220  # width, height
_LONGEST_TITLE = 110  # characters


class Cell(NamedTuple):
    """A picture of a contact sheet, and the line below it.

    Attributes:
        picture: uint8 [height, width, 3].
        caption: A short line.
    """

    picture: Rgb
    caption: str


class Scale(NamedTuple):
    """The numbers that the coldest and the hottest colour stand for, in words."""

    coldest: str
    hottest: str


def contact_sheet(title: str, rows: Sequence[tuple[str, Sequence[Cell]]], scale: Scale) -> Rgb:
    """Draws pictures in rows, with captions, a title and the scale of the heat.

    Args:
        title: A line above all rows.
        rows: For each group of pictures its name, or "", and its pictures. Long groups take
            several rows of the sheet.
        scale: The scale of the heat.
    """
    longest = max(len(cells) for _, cells in rows)
    columns, side = min(longest, _MANY_COLUMNS), _MANY_SIDE
    if longest <= _FEW:
        columns, side = min(longest, _FEW_COLUMNS), _FEW_SIDE
    scaled = [(name, [_fitted(cell, side) for cell in cells]) for name, cells in rows]
    width = max(cell.picture.shape[1] for _, cells in scaled for cell in cells)
    height = max(cell.picture.shape[0] for _, cells in scaled for cell in cells)
    step_x, step_y = width + _GAP, height + 18 + _GAP
    lines = sum(math.ceil(len(cells) / columns) for _, cells in scaled)
    named = sum(bool(name) for name, _ in scaled)
    size = (max(columns * step_x + _GAP, 560), 84 + lines * step_y + named * 24)
    image = Image.new("RGB", size, _GROUND)
    draw = ImageDraw.Draw(image)
    _head(image, draw, title, scale)
    y = 78
    for name, cells in scaled:
        if name:
            draw.text((_GAP, y), name, _FAINT, _font(14))
            y += 24
        for number, cell in enumerate(cells):
            x = _GAP + number % columns * step_x
            top = y + number // columns * step_y
            image.paste(Image.fromarray(cell.picture), (x, top))
            draw.text((x, top + cell.picture.shape[0] + 3), cell.caption, _FAINT, _font(13))
        y += math.ceil(len(cells) / columns) * step_y
    return np.asarray(image)


def time_bar(
    title: str,
    times: Sequence[float],
    shares: npt.NDArray[np.float32],
    duration: float,
    note: str,
) -> Rgb:
    """Draws a bar for each moment, whose height is its share.

    Args:
        title: A line above the bars.
        times: The moments in seconds, in any order.
        shares: Their shares, as multiples of an even share; a line marks 1.
        duration: Where the axis ends, in seconds.
        note: A line below the title.
    """
    width, height = _BAR_SIZE
    image = Image.new("RGB", (width, height), _GROUND)
    draw = ImageDraw.Draw(image)
    draw.text((_GAP, 10), _cut(title), _TEXT, _font(18))
    draw.text((_GAP, 36), note, _FAINT, _font(13))
    left, right, top, bottom = 52, width - 24, 66, height - 36
    end = max(duration, max(times, default=0.0), 1e-3)
    tallest = max(float(shares.max()), 1.0) * 1.1

    def x_of(seconds: float) -> float:
        return left + (right - left) * seconds / end

    def y_of(share: float) -> float:
        return bottom - (bottom - top) * share / tallest

    order = np.argsort(times, kind="stable")
    moments = np.asarray(times)[order]
    edges = [0.0, *((moments[1:] + moments[:-1]) / 2).tolist(), end]
    bars = zip(shares[order].tolist(), edges[:-1], edges[1:], strict=True)
    for share, start, stop in sorted(bars):  # the tallest last: bars may be narrower than a pixel
        colour = tuple(heat_colours(np.array(share / tallest, dtype=np.float32)).tolist())
        box = [x_of(start) + 1, y_of(share), max(x_of(stop) - 1, x_of(start) + 2), bottom]
        draw.rectangle(box, colour)
    draw.line([left, y_of(1), right, y_of(1)], _FAINT)
    draw.text((left - 6, y_of(1)), "even", _FAINT, _font(13), anchor="rm")
    draw.line([left, bottom, right, bottom], _LINE)
    for seconds in _ticks(end):
        draw.line([x_of(seconds), bottom, x_of(seconds), bottom + 5], _FAINT)
        draw.text((x_of(seconds), bottom + 8), clock(seconds), _FAINT, _font(13), anchor="ma")
    return np.asarray(image)


def clock(seconds: float) -> str:
    """Writes a time: ``3.20 s``, ``1:03.2``, ``1:02:03``."""
    if round(seconds, 2) < 60:
        return f"{seconds:.2f} s"
    tenths = round(10 * seconds)
    if tenths < 36_000:
        return f"{tenths // 600}:{tenths % 600 / 10:04.1f}"
    minutes, rest = divmod(round(seconds), 60)  # rounded first, so that no minute has 60 seconds
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def labelled(picture: Rgb, text: str) -> Rgb:
    """Writes a line into the upper left corner of a picture."""
    size = max(11, min(picture.shape[:2]) // 24)
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image, "RGBA")
    box = draw.textbbox((size // 2 + size // 3, size // 2), text, _font(size))
    margin = size // 3
    edges = [box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin]
    draw.rounded_rectangle(edges, margin, (*_GROUND, 190))
    draw.text((size // 2 + size // 3, size // 2), text, _TEXT, _font(size))
    return np.asarray(image)


def _head(image: Image.Image, draw: ImageDraw.ImageDraw, title: str, scale: Scale) -> None:
    draw.text((_GAP, 10), _cut(title), _TEXT, _font(18))
    ramp = heat_colours(np.tile(np.linspace(0, 1, 160, dtype=np.float32), (10, 1)))
    draw.text((_GAP, 42), scale.coldest, _FAINT, _font(13))
    x = _GAP + round(draw.textlength(scale.coldest, _font(13))) + 8
    image.paste(Image.fromarray(ramp), (x, 46))
    draw.text((x + 168, 42), scale.hottest, _FAINT, _font(13))


def _fitted(cell: Cell, side: int) -> Cell:
    """Scales a picture to the longer side."""
    return Cell(resized(cell.picture, side / max(cell.picture.shape[:2])), cell.caption)


def _ticks(end: float) -> list[float]:
    """About eight round times from 0 to the end."""
    raw = end / 8
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw)
    if step > 5:  # whole parts of minutes
        step = next((s for s in (10, 15, 30, 60, 120, 300, 600, 1800) if s >= raw), step)
    return [number * step for number in range(int(end / step + 1e-9) + 1)]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TITLE else f"{text[: _LONGEST_TITLE - 1]}…"


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
