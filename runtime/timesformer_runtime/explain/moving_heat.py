"""Heat at any time of a video: between the frames that the model saw, and from all its views."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from timesformer_runtime.explain.explanation import HeatScale, Shares, ViewHeat
from timesformer_runtime.explain.regions import Geometry
from timesformer_runtime.pictures.heat import Heat, Rgb, stretched, under_heat

_RAMP = 0.25  # of a view's side, over which its weight falls
_UNSEEN = 110  # of 256: the brightness of what no view covers


class MovingHeat:
    """Lays the heat of a video's views over its frames.

    The heat of a view changes evenly from one of its frames to the next. Before its first frame and
    after its last, a clip counts only where no other clip does. Where views overlap, the heat is
    the mean of theirs; towards the edges of a view its weight falls, so that no edge is seen.

    Args:
        views: The views, with times. They may come from a file: each is asked for again for each
            frame of the video.
        scale: Turns shares into heat.
        geometry: Tells where the views lie.
    """

    def __init__(self, views: Sequence[ViewHeat], scale: HeatScale, geometry: Geometry) -> None:
        self._views = views
        self._scale = scale
        spans = [(min(view.times), max(view.times)) for view in views]
        self._starts, self._ends = np.array(spans).T
        self._geometry = geometry

    def over(self, frame: Rgb, seconds: float, size: tuple[int, int]) -> Rgb:
        """Lays the heat over a frame, and darkens what no view covers.

        Args:
            frame: The frame as it is shown, uint8 [h, w, 3].
            seconds: When it is shown.
            size: Height and width of the frame as the model's preprocessing got it.
        """
        height, width = frame.shape[:2]
        total = np.zeros((height, width), dtype=np.float32)
        weights = np.zeros((height, width), dtype=np.float32)
        for number in self._views_at(seconds):
            view = self._views[number]
            region = self._geometry.region(*size, view.view.crop, view.grid)
            top, left, bottom, right = region.pixels(height, width)
            y, x = slice(max(top, 0), max(bottom, 0)), slice(max(left, 0), max(right, 0))
            heat = stretched(self._heat_of(view, seconds), (bottom - top, right - left))
            weight = _weights(*heat.shape)
            rows, columns = total[y, x].shape
            inner = (
                slice(max(-top, 0), max(-top, 0) + rows),
                slice(max(-left, 0), max(-left, 0) + columns),
            )
            total[y, x] += (heat * weight)[inner]
            weights[y, x] += weight[inner]
        seen = weights > 0
        mean: Heat = np.divide(total, weights, out=total, where=seen)
        result = under_heat(frame, mean)
        result[~seen] = (result[~seen].astype(np.uint16) * _UNSEEN >> 8).astype(np.uint8)
        return result

    def _views_at(self, seconds: float) -> list[int]:
        """The views whose clip has this time; else those of the clip that is nearest in time."""
        distances = np.maximum(np.maximum(self._starts - seconds, seconds - self._ends), 0.0)
        found: list[int] = np.flatnonzero(distances <= distances.min()).tolist()
        return found

    def _heat_of(self, view: ViewHeat, seconds: float) -> Shares:
        """The heat of a view between the two frames around a time."""
        order = np.argsort(view.times, kind="stable")  # a clip may wrap around a short video
        times = np.array(view.times)[order]
        after = int(np.searchsorted(times, seconds))
        if after in (0, len(times)):
            return self._scale.heat(view.shares[order[min(after, len(times) - 1)]])
        length = times[after] - times[after - 1]
        weight = np.float32((seconds - times[after - 1]) / length if length else 1.0)
        earlier, later = view.shares[order[after - 1]], view.shares[order[after]]
        return self._scale.heat(earlier * (1 - weight) + later * weight)


@functools.lru_cache(maxsize=8)
def _weights(height: int, width: int) -> Heat:
    """Weights of the pixels of a view: 1 in its middle, near 0 at its edges."""
    rows, columns = (
        np.minimum(1, (0.5 + np.minimum(np.arange(side), np.arange(side)[::-1])) / (_RAMP * side))
        for side in (height, width)
    )
    return np.asarray(np.outer(rows, columns), dtype=np.float32)
