"""Finds the transitions in consecutive frames with a model that names shot transitions.

Windows over many frames, some frames apart, find where something changes. Only there the model
looks again, at frame rate: windows of consecutive frames find cuts; two spacings of wider windows,
of which the mean counts, find gradual transitions. The frames' values then tell the exact frame of
a cut, and where a gradual transition begins and ends.

All lengths are in frames of a video of ``_RATE`` frames a second; other rates scale them. The
numbers were chosen on the half "tuning" of ``tests/benchmarks/shots.py``.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from timesformer_runtime.shots.edit_list import Transition

Values = npt.NDArray[np.floating[Any]]
Span = tuple[int, int]  # the first frame and the last
Scores = Callable[[Sequence[npt.NDArray[np.int64]]], npt.NDArray[np.float64]]
"""Gives the probabilities [n, labels] of n clips, each of which is a list of frames' indices."""

_RATE = 27.5  # the rates of the tuning films are 25 and 30
_SPANS = (21, 35)  # frames from the first to the last frame of the wider windows
_COARSE_STEP = 6  # frames from one coarse window to the next
_FINE_STEP = 2  # frames from one wider window to the next
_MARGIN = 8  # frames around a coarse window that are searched, too
_LONGEST_GAP = 15  # frames between two parts of one gradual transition
_SHORTEST_RUN = 3  # frames; a shorter run is a trace of something else
_CHANGE = 0.5  # least probability of a change, for a second look
_CUT = 0.5  # least probability of a cut, the mean over windows
_GRADUAL = 0.5  # least probability of a gradual transition, the mean over two spacings
_AROUND = 8  # frames before and after a run in which a gradual transition may begin and end
_STILL = 6  # frames before or after a transition that stand for the scene alone
_FLAT = 0.15  # contrast of one flat colour, compared with that of the scenes around it
_SHORTEST_RISE = 6  # frames, at least, over which the beginning of a transition is fitted

CONTEXT = 75  # frames before and after a transition that its search needs


@dataclasses.dataclass(frozen=True)
class Labels:
    """The labels of a model for shot transitions."""

    names: tuple[str, ...]

    @property
    def none(self) -> int:
        """The index of ``none``."""
        return self.names.index("none")

    @property
    def cut(self) -> int:
        """The index of ``cut``."""
        return self.names.index("cut")


def find_transitions(
    pixels: Values, rate: float, clip_length: int, labels: Labels, scores: Scores
) -> list[Transition]:
    """Finds the transitions in consecutive frames.

    Args:
        pixels: Some values of each frame [frames, values], alike for all frames.
        rate: Frames per second.
        clip_length: Number of frames of a clip, T.
        labels: The model's labels.
        scores: Runs the model.

    Returns:
        The transitions in order, without overlaps.
    """
    search = _Search(pixels, rate / _RATE, clip_length, labels, scores)
    return [found for span in search.changing_spans() for found in search.transitions(span)]


class _Search:
    """The search in one part of a video; see ``find_transitions``."""

    def __init__(
        self, pixels: Values, scale: float, clip_length: int, labels: Labels, scores: Scores
    ) -> None:
        self._pixels = pixels
        self._scale = scale
        self._positions = np.arange(clip_length)
        self._last_position = clip_length - 1
        self._labels = labels
        self._scores = scores

    def changing_spans(self) -> list[Span]:
        """Finds the parts with a transition in them, with some frames around it."""
        spacing = self._spacing(_SPANS[-1])
        margin = self._frames(_MARGIN)
        length = spacing * self._last_position
        last = len(self._pixels) - 1
        centers = np.arange(0, last + 1, self._frames(_COARSE_STEP))
        probabilities = self._windows(centers, spacing)
        spans: list[Span] = []
        for center in centers[probabilities[:, self._labels.none] < 1 - _CHANGE].tolist():
            reach = length // 2 + margin
            span = max(0, center - reach), min(last, center + reach)
            if spans and span[0] <= spans[-1][1] + 1:
                span = spans.pop()[0], span[1]
            spans.append(span)
        return spans

    def transitions(self, span: Span) -> list[Transition]:
        """Finds the transitions in a part."""
        cuts = self._cuts(span)
        runs, scores = self._gradual_runs(span, [cut.first for cut in cuts])
        found = list(cuts)
        edges = sorted([cut.first for cut in cuts] + [edge for run, _ in runs for edge in run])
        for (run, kind), score in zip(runs, scores, strict=True):
            before = max((edge for edge in edges if edge < run[0]), default=0)
            after = min((edge for edge in edges if edge > run[1]), default=len(self._pixels))
            first, last = self._extent(run, before, after - 1)
            found.append(Transition(self._kind(kind, first, last), first, last, score))
        return without_overlaps(found)

    def _cuts(self, span: Span) -> list[Transition]:
        """Finds cuts: where most windows of consecutive frames over two frames see a cut."""
        size = len(self._positions)
        first, last = span
        centers = np.arange(first, last + 1)
        probabilities = self._windows(centers, 1)[:, self._labels.cut]
        # The window around frame c has its frames from c - size / 2 on.
        starts = centers - size // 2
        seen = np.zeros(last - first + 2)
        count = np.zeros_like(seen)
        for start, probability in zip(starts.tolist(), probabilities.tolist(), strict=True):
            part = slice(max(start + 1 - first, 0), max(start + size - first, 0))
            seen[part] += probability
            count[part] += 1
        mean = seen / np.maximum(count, 1)
        mean[0] = 0 if first == 0 else mean[0]  # nothing is before the video's first frame
        mean = mean[: last - first + 1]
        changes = np.abs(np.diff(self._pixels[max(first - 1, 0) : last + 1], axis=0)).mean(axis=1)
        if first == 0:
            changes = np.concatenate([[0.0], changes])
        cuts = []
        for begin, end in _runs(mean > _CUT, 0):
            frame = begin + int(np.argmax(changes[begin : end + 1]))
            score = float(mean[begin : end + 1].max())
            cuts.append(Transition("cut", first + frame, first + frame, score))
        return cuts

    def _gradual_runs(
        self, span: Span, cuts: Sequence[int]
    ) -> tuple[list[tuple[Span, str]], list[float]]:
        """Finds runs of frames around which windows see a gradual transition, and its label."""
        first, last = span
        frames = np.arange(first, last + 1)
        centers = np.arange(first, last + 1, self._frames(_FINE_STEP))
        total = np.zeros((len(frames), len(self._labels.names)))
        for length in _SPANS:
            spacing = self._spacing(length)
            probabilities = self._windows(centers, spacing)
            starts = centers - spacing * self._last_position // 2
            ends = starts + spacing * self._last_position
            for cut in cuts:
                probabilities[(starts < cut) & (ends >= cut)] = 0
            total += np.stack(
                [np.interp(frames, centers, column) for column in probabilities.T], axis=1
            ) / len(_SPANS)
        # What looks like a cut in wide windows, but not frame by frame, is a short transition.
        gradual = total.sum(axis=1) - total[:, self._labels.none]
        total[:, [self._labels.none, self._labels.cut]] = 0
        runs, scores = [], []
        for begin, end in _runs(gradual > _GRADUAL, self._frames(_LONGEST_GAP)):
            if end - begin + 1 < _SHORTEST_RUN:
                continue
            label = int(total[begin : end + 1].sum(axis=0).argmax())
            runs.append(((first + begin, first + end), self._labels.names[label]))
            scores.append(float(gradual[begin : end + 1].max()))
        return runs, scores

    def _extent(self, run: Span, lowest: int, highest: int) -> Span:
        """Finds the first and the last frame of a gradual transition around a run."""
        around = self._frames(_AROUND)
        start, end = max(lowest, run[0] - around), min(highest, run[1] + around)
        frames = self._pixels[start : end + 1].astype(np.float64)
        contrasts = frames.std(axis=1)
        if contrasts.min() > _FLAT * contrasts.max():
            first, last = _ramp(frames)
        else:
            first, last = _bend(frames) + 1, len(frames) - 2 - _bend(frames[::-1])
        return (start + first, start + last) if first <= last else run

    def _kind(self, label: str, first: int, last: int) -> str:
        """Names a gradual transition: fades have one flat colour before, after or in between."""
        still = self._frames(_STILL)
        contrasts = self._pixels[max(0, first - still) : last + still + 1].std(axis=1)
        flattest = int(contrasts.argmin()) + max(0, first - still)
        if contrasts.min() > _FLAT * contrasts.max():
            return "dissolve" if label.startswith("fade") else label
        inner = max(1, (last - first) // 5)
        if flattest < first + inner:
            return "fade_in"
        return "fade_out" if flattest > last - inner else "fade"

    def _windows(self, centers: npt.NDArray[np.int64], spacing: int) -> npt.NDArray[np.float64]:
        """Gives the model's probabilities for windows around frames [windows, labels].

        Before the first frame and after the last one, these frames are repeated.
        """
        offsets = spacing * self._positions - (spacing * self._last_position + 1) // 2
        clips = np.clip(centers[:, None] + offsets, 0, len(self._pixels) - 1)
        return self._scores(list(clips))

    def _frames(self, count: int) -> int:
        return max(1, round(count * self._scale))

    def _spacing(self, length: int) -> int:
        return max(1, round(length * self._scale / max(1, self._last_position)))


def without_overlaps(found: Sequence[Transition]) -> list[Transition]:
    """Sorts transitions, and leaves out those that share a frame with an earlier one."""
    kept: list[Transition] = []
    for transition in sorted(found, key=lambda one: (one.first, one.last)):
        if not kept or transition.first > kept[-1].last:
            kept.append(transition)
    return kept


def _runs(is_in: npt.NDArray[np.bool_], gap: int) -> Iterator[Span]:
    """Gives the runs of true values; a run may have ``gap`` false values in a row in it."""
    indices = np.flatnonzero(is_in).tolist()
    start = None
    for index, following in itertools.zip_longest(indices, indices[1:]):
        start = index if start is None else start
        if following is None or following - index > max(gap, 1):
            yield start, index
            start = None


def _bend(frames: npt.NDArray[np.float64]) -> int:
    """Finds the last frame [values] before the frames change towards the middle one."""
    count = len(frames)
    before = frames[: min(_STILL, count)].mean(axis=0)
    middle = min(count - 1, max(_SHORTEST_RISE, round((count - 1) / 2)))
    towards = frames[max(0, middle - 1) : middle + 2].mean(axis=0) - before
    share = (frames[: middle + 1] - before) @ towards / max(float(towards @ towards), 1e-9)
    positions = np.arange(len(share))
    best, least = 0, np.inf
    for bend in range(1, len(share) - 2):
        rising = np.maximum(0, positions - bend)
        terms = np.stack([np.ones(len(share)), rising], axis=1)
        (_, slope), *_ = solution = np.linalg.lstsq(terms, share)
        error = float(((terms @ solution[0] - share) ** 2).sum())
        if slope > 0 and error < least:
            best, least = bend, error
    return best


def _ramp(frames: npt.NDArray[np.float64]) -> Span:
    """Finds the frames [values] that lead from the first ones to the last ones.

    The share of the last frames in each frame is level at first, rises, and is level again.
    """
    count = len(frames)
    still = min(_STILL, count)
    before, after = frames[:still].mean(axis=0), frames[-still:].mean(axis=0)
    towards = after - before
    share = (frames - before) @ towards / max(float(towards @ towards), 1e-9)
    positions = np.arange(count)
    best, least = (0, count - 1), np.inf
    for first in range(1, count - 1):
        for last in range(first, count - 1):
            rise = np.clip((positions - first + 1) / (last - first + 2), 0, 1)
            error = float(((rise - share) ** 2).sum())
            if error < least:
                best, least = (first, last), error
    return best
