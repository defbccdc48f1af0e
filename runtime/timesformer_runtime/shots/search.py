"""Finds the transitions in consecutive frames with a model that names shot transitions.

Windows over many frames, some frames apart, find where something changes. Only there the model
looks again, at frame rate: windows of consecutive frames find cuts and short transitions; two
spacings of wider windows, of which the mean counts, find longer ones. The frames' values then tell
the exact frame of a cut, and where a gradual transition begins and ends.

All lengths are in frames of a video of ``RATE`` frames a second; other rates scale them. The
numbers were chosen on the half "tuning" of ``tests/benchmarks/shots.py``.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from timesformer_runtime.shots.edit_list import Transition
from timesformer_runtime.shots.extent import STILL, Span, bend, ramp

Values = npt.NDArray[np.floating[Any]]
Scores = Callable[[Sequence[npt.NDArray[np.int64]]], npt.NDArray[np.float64]]
"""Gives the probabilities [n, labels] of n clips, each of which is a list of frames' indices."""

_SPANS = (21, 35)  # frames from the first to the last frame of the wider windows
_COARSE_STEP = 6  # frames from one coarse window to the next
_FINE_STEP = 2  # frames from one wider window to the next
_MARGIN = 8  # frames around a coarse window that are searched, too
_LONGEST_GAP = 15  # frames between two parts of one gradual transition
_SHORTEST_RUN = 3  # frames; a shorter run is a trace of something else
_SURE = 0.5  # least probability
_LONGEST_SHORT = 12  # frames of a transition that is found frame by frame
_SHORT_AROUND = 12  # frames before and after such a run in which the transition lies
_AROUND = 8  # frames before and after a run in which a gradual transition may begin and end
_FLAT = 0.15  # contrast of one flat colour, compared with that of the scenes around it

RATE = 27.5  # the rates of the tuning films are 25 and 30
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
    search = _Search(pixels, rate / RATE, clip_length, labels, scores)
    return [found for span in search.changing_spans() for found in search.transitions(span)]


class _Run(NamedTuple):
    """Frames around which windows see a transition, its label, and how sure the model is."""

    span: Span
    label: str
    score: float


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
        for center in centers[probabilities[:, self._labels.none] < 1 - _SURE].tolist():
            reach = length // 2 + margin
            span = max(0, center - reach), min(last, center + reach)
            if spans and span[0] <= spans[-1][1] + 1:
                span = spans.pop()[0], span[1]
            spans.append(span)
        return spans

    def transitions(self, span: Span) -> list[Transition]:
        """Finds the transitions in a part."""
        short = self._short_transitions(span)
        runs = self._gradual_runs(span, short)
        edges = [(one.first, one.last) for one in short] + [run.span for run in runs]
        found = list(short)
        for run in runs:
            first, last = self._extent(run.span, *self._room(run.span, edges))
            found.append(Transition(self._kind(run.label, first, last), first, last, run.score))
        return without_overlaps(found)

    def _room(self, span: Span, others: Sequence[Span]) -> Span:
        """Finds the frames around a part that belong to no other transition."""
        lowest = max((last + 1 for first, last in others if first < span[0]), default=0)
        highest = min(
            (first for first, last in others if last > span[1]), default=len(self._pixels)
        )
        return min(lowest, span[0]), max(highest - 1, span[1])

    def _short_transitions(self, span: Span) -> list[Transition]:
        """Finds cuts and short transitions: those that windows of consecutive frames see."""
        first, last = span
        seen = self._frame_by_frame(span)
        is_cut = seen[:, self._labels.cut] > _SURE
        changes = np.abs(np.diff(self._pixels[max(first - 1, 0) : last + 1], axis=0)).mean(axis=1)
        if first == 0:
            changes = np.concatenate([[0.0], changes])
        found = []
        for begin, end in _runs(is_cut, 0):
            frame = first + begin + int(np.argmax(changes[begin : end + 1]))
            score = float(seen[begin : end + 1, self._labels.cut].max())
            found.append(Transition("cut", frame, frame, score))
        cuts = [(cut.first, cut.first) for cut in found]
        change = 1 - seen[:, self._labels.none]
        seen[:, [self._labels.none, self._labels.cut]] = 0
        around = self._frames(_SHORT_AROUND)
        for begin, end in _runs(change > _SURE, 0):
            if is_cut[begin : end + 1].any():
                continue
            run = first + begin, first + end
            lowest, highest = self._room(run, cuts)
            start, stop = max(lowest, run[0] - around), min(highest, run[1] + around)
            inner = ramp(self._pixels[start : stop + 1].astype(np.float64))
            extent = start + inner[0], start + inner[1]
            if extent[1] - extent[0] >= self._frames(_LONGEST_SHORT):
                continue
            label = self._labels.names[int(seen[begin : end + 1].sum(axis=0).argmax())]
            kind = self._kind(label, *extent)
            # A quick fade out is only the first part of a fade out and in.
            if not kind.startswith("fade") and extent[0] <= run[1] and extent[1] >= run[0] - 1:
                found.append(Transition(kind, *extent, float(change[begin : end + 1].max())))
        return without_overlaps(found)

    def _frame_by_frame(self, span: Span) -> npt.NDArray[np.float64]:
        """Averages, for each frame, the windows of consecutive frames over it and the one before.

        Returns:
            Probabilities [frames, labels]; ``none`` is sure for the video's first frame.
        """
        size = len(self._positions)
        first, last = span
        centers = np.arange(first, last + 1)
        seen = np.zeros((last - first + 1, len(self._labels.names)))
        count = np.zeros(len(seen))
        # The window around a frame begins half a window before it.
        for start, probabilities in zip(
            (centers - size // 2 - first).tolist(), self._windows(centers, 1), strict=True
        ):
            part = slice(max(start + 1, 0), max(start + size, 0))
            seen[part] += probabilities
            count[part] += 1
        seen /= np.maximum(count, 1)[:, None]
        if first == 0:
            seen[0] = np.arange(seen.shape[1]) == self._labels.none
        return seen

    def _gradual_runs(self, span: Span, short: Sequence[Transition]) -> list[_Run]:
        """Finds runs of frames around which wide windows see a gradual transition."""
        first, last = span
        frames = np.arange(first, last + 1)
        centers = np.arange(first, last + 1, self._frames(_FINE_STEP))
        total = np.zeros((len(frames), len(self._labels.names)))
        for length in _SPANS:
            spacing = self._spacing(length)
            probabilities = self._windows(centers, spacing)
            starts = centers - (spacing * self._last_position + 1) // 2
            ends = starts + spacing * self._last_position
            for one in short:
                probabilities[(starts < one.last) & (ends >= one.first)] = 0
            total += np.stack(
                [np.interp(frames, centers, column) for column in probabilities.T], axis=1
            ) / len(_SPANS)
        # What looks like a cut in wide windows, but not frame by frame, is gradual.
        gradual = total.sum(axis=1) - total[:, self._labels.none]
        total[:, [self._labels.none, self._labels.cut]] = 0
        runs = []
        for begin, end in _runs(gradual > _SURE, self._frames(_LONGEST_GAP)):
            if end - begin + 1 >= _SHORTEST_RUN:
                label = self._labels.names[int(total[begin : end + 1].sum(axis=0).argmax())]
                score = float(gradual[begin : end + 1].max())
                runs.append(_Run((first + begin, first + end), label, score))
        return runs

    def _extent(self, run: Span, lowest: int, highest: int) -> Span:
        """Finds the first and the last frame of a gradual transition around a run."""
        around = self._frames(_AROUND)
        start, end = max(lowest, run[0] - around), min(highest, run[1] + around)
        frames = self._pixels[start : end + 1].astype(np.float64)
        contrasts = frames.std(axis=1)
        if contrasts.min() > _FLAT * contrasts.max():
            first, last = ramp(frames)
        else:
            first, last = bend(frames) + 1, len(frames) - 2 - bend(frames[::-1])
        return (start + first, start + last) if first <= last else run

    def _kind(self, label: str, first: int, last: int) -> str:
        """Names a gradual transition: fades have one flat colour before, after or in between."""
        still = self._frames(STILL)
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
