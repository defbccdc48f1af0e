"""Draws what the model saw: contact sheets under heat, and the share of each moment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from timesformer_runtime.explain.explanation import HeatScale, Shares, ViewHeat
from timesformer_runtime.pictures.drawing import Cell, Scale, clock, contact_sheet
from timesformer_runtime.pictures.encoding import resized
from timesformer_runtime.pictures.heat import Rgb, stretched, under_heat
from timesformer_runtime.results import Prediction

SHEET_TEXT = "The frames that the model saw, with their times and shares"
BAR_TEXT = "How much of each frame reached the answer, beside an even share"

_CROPS = {"start": "left or top", "center": "middle", "end": "right or bottom"}
_LEAST_SIDE = 200  # pixels; smaller frames are enlarged before the heat, so that it stays smooth


def sheet(
    title: str,
    views: Sequence[ViewHeat],
    pictures: Sequence[Sequence[Rgb]],
    scale: HeatScale,
) -> Rgb:
    """Draws the frames of all views under heat, with their times and shares.

    Args:
        title: A line above the frames.
        views: The views.
        pictures: For each view the pixels that it saw.
        scale: Turns shares into heat.
    """
    rows = []
    for view, frames in zip(views, pictures, strict=True):
        name = f"Crop: {_CROPS[view.view.crop]}" if len(views) > 1 else ""
        rows.append((name, _cells(view, frames, scale)))
    ends = Scale(f"{scale.coldest:.2g} of an even share", f"{scale.hottest:.2g} and more")
    return contact_sheet(title, rows, ends)


def moments(views: Sequence[ViewHeat]) -> tuple[list[float], Shares]:
    """The times at which views saw frames, and the mean share of the views at each of them."""
    found: dict[float, list[float]] = {}
    for view in views:
        for seconds, share in zip(view.times, view.of_frames.tolist(), strict=True):
            found.setdefault(seconds, []).append(share)
    times = sorted(found)
    shares = [sum(found[seconds]) / len(found[seconds]) for seconds in times]
    return times, np.array(shares, dtype=np.float32)


def in_words(predictions: Iterable[Prediction]) -> str:
    """Labels with their scores; "" for a model without labels."""
    return ", ".join(f"{one['label']} {one['score']:.2f}" for one in predictions)


def _cells(view: ViewHeat, frames: Sequence[Rgb], scale: HeatScale) -> list[Cell]:
    heat = scale.heat(view.shares)
    shares = view.of_frames.tolist()
    cells = []
    for frame, one, seconds, share in zip(frames, heat, view.times, shares, strict=True):
        large = resized(frame, max(1.0, _LEAST_SIDE / max(frame.shape[:2])))
        picture = under_heat(large, stretched(one, large.shape[:2]))
        cells.append(Cell(picture, f"{clock(seconds)}   {share:.2f} x"))
    return cells
