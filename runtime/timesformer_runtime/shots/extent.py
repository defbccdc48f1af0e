"""Finds the first and the last frame of a gradual transition: fits lines to how frames change."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

Span = tuple[int, int]  # the first frame and the last

STILL = 6  # frames before or after a transition that stand for the scene alone
_MOST_ENDS = 150  # frames that are tried as the first and the last of a transition
_SHORTEST_RISE = 6  # frames, at least, over which the beginning of a transition is fitted


def bend(frames: npt.NDArray[np.float64]) -> int:
    """Finds the last frame [values] before the frames change towards the middle one."""
    count = len(frames)
    before = frames[: min(STILL, count)].mean(axis=0)
    middle = min(count - 1, max(_SHORTEST_RISE, round((count - 1) / 2)))
    towards = frames[max(0, middle - 1) : middle + 2].mean(axis=0) - before
    share = (frames[: middle + 1] - before) @ towards / max(float(towards @ towards), 1e-9)
    positions = np.arange(len(share))
    best, least = 0, np.inf
    for bend in range(1, len(share) - 2):
        rising = np.maximum(0, positions - bend)
        terms = np.stack([np.ones(len(share)), rising], axis=1)
        (_, slope), *_ = solution = np.linalg.lstsq(terms, share, rcond=None)
        error = float(((terms @ solution[0] - share) ** 2).sum())
        if slope > 0 and error < least:
            best, least = bend, error
    return best


def ramp(frames: npt.NDArray[np.float64]) -> Span:
    """Finds the frames [values] that lead from the first ones to the last ones.

    The share of the last frames in each frame is level at first, rises, and is level again.
    """
    count = len(frames)
    still = min(STILL, count)
    before, after = frames[:still].mean(axis=0), frames[-still:].mean(axis=0)
    towards = after - before
    share = (frames - before) @ towards / max(float(towards @ towards), 1e-9)
    step = -(-count // _MOST_ENDS)  # all pairs of a very long part would take minutes
    ends = range(1, count - 1, step)
    positions = np.arange(count)
    best, least = (0, count - 1), np.inf
    for first, last in itertools.combinations_with_replacement(ends, 2):
        rise = np.clip((positions - first + 1) / (last - first + 2), 0, 1)
        error = float(((rise - share) ** 2).sum())
        if error < least:
            best, least = (first, last), error
    return best
