"""Tries other preprocessing, protocols and orders of labels on a few videos."""

from __future__ import annotations

import dataclasses
import functools
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from timesformer_runtime.errors import InvalidOptionError, TimesformerError
from timesformer_runtime.evaluate.datasets.samples import Sample
from timesformer_runtime.evaluate.label_orders import FIX_LABELS, best_order, clearly_better
from timesformer_runtime.input.sampling import Sampling
from timesformer_runtime.input.views import Views
from timesformer_runtime.pipeline import Pipeline
from timesformer_runtime.results import Ranking
from timesformer_runtime.workloads.batch import run_on_all

AS_IT_IS = "as it is"
# Mean and standard deviation, by the name under which people know them.
_STATISTICS: Mapping[str, tuple[float | tuple[float, ...], float | tuple[float, ...]]] = {
    "mean and std of ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "mean and std 0.5": (0.5, 0.5),
    "mean 0.45 and std 0.225": (0.45, 0.225),
}
_FIX_STATISTICS = (
    "correct image_mean and image_std in the checkpoint's preprocessor_config.json and export again"
)
_ENOUGH = 0.95  # share of the videos that ends the search

# The true label of a video and the one that the model gives it; None where it cannot be read.
_Answer = tuple[int, int] | None


@dataclasses.dataclass(frozen=True)
class Trial:
    """A trial: options or preprocessing, and the videos that are right with them.

    Attributes:
        name: The change that was tried.
        outcomes: For each video whether it was named right; None where the model cannot take the
            change.
        remedy: How to make it so for good; empty for the options as they are.
        problem: Why the model cannot take it, or empty.
        changes: How many things were changed; another order of the labels is one.
    """

    name: str
    outcomes: tuple[bool, ...] | None
    remedy: str = ""
    problem: str = ""
    changes: int = 0

    @property
    def right(self) -> int | None:
        """Number of videos that were named right; None where the model cannot take the change."""
        return None if self.outcomes is None else sum(self.outcomes)

    def is_clearly_better(self, other: Trial) -> bool:
        """True if this trial names more videos right than noise explains: ``clearly_better``."""
        if self.outcomes is None or other.outcomes is None:
            return False
        return clearly_better(np.array(self.outcomes), np.array(other.outcomes))


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """The trials on a few videos.

    Attributes:
        videos: Number of videos that were read.
        trials: The trials; the first is the one with the options as they are.
    """

    videos: int
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial | None:
        """The trial to follow; None where none is clearly better than the options as they are.

        Trials are compared video by video, as ``clearly_better`` says. More changes must be clearly
        better than the best trial with fewer.
        """
        first = best = self.trials[0]
        for trial in sorted(self.trials, key=lambda trial: (trial.changes, -(trial.right or 0))):
            if trial.is_clearly_better(best):
                best = trial
        return None if best is first else best

    @property
    def sentence(self) -> str:
        """The advice in one sentence."""
        first, best = self.trials[0], self.best
        start = f"{first.right} of {self.videos} videos are right {AS_IT_IS}"
        if len(self.trials) == 1:
            return f"{start}, so nothing else was tried"
        if best is None:
            return f"{start}, and nothing that was tried is clearly better"
        return f"{start}, and {best.right} with {best.name}: {best.remedy}"


@dataclasses.dataclass(frozen=True)
class _Change:
    """A change of the options or of the preprocessing.

    Attributes:
        kind: Changes of one kind exclude each other.
        name: The changed option or value.
        remedy: How to make the change for good.
        views: The changed options, of those that are given.
        statistics: Another mean and standard deviation.
    """

    kind: str
    name: str
    remedy: str
    views: Callable[[Views], Views] = lambda views: views
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None


def diagnose(
    pipeline: Pipeline,
    samples: Sequence[Sample],
    labels: Sequence[str],
    *,
    most: int = 50,
    workers: int | None = None,
    on_trial: Callable[[str], None] = lambda _name: None,
) -> Diagnosis:
    """Tries orders of labels, then one change after the other, each also with orders of labels.

    If a change is clearly better, those of other kinds are tried together with it, and so on.

    Args:
        pipeline: The loaded model with its options.
        samples: Videos, of which a few are taken by chance, always the same ones.
        labels: The labels.
        most: How many videos to take.
        workers: How many videos are worked on at a time.
        on_trial: Called with the name of each trial before it.

    Raises:
        InvalidOptionError: None of the videos can be read.
    """
    few = random.Random(0).sample(list(samples), min(most, len(samples)))  # noqa: S311
    trials: list[Trial] = []
    changes_of: dict[Trial, tuple[_Change, ...]] = {}

    def run(*changes: _Change) -> int:
        name = ", ".join(change.name for change in changes) or AS_IT_IS
        remedy = "; ".join(change.remedy for change in changes)
        on_trial(name)
        try:
            answers = _answers(_changed(pipeline, changes), few, workers)
        except TimesformerError as error:
            if not changes:
                raise
            trials.append(Trial(name, None, remedy, str(error), len(changes)))
            return 0  # the model cannot take it
        found = _trials(name, remedy, len(changes), answers, labels)
        trials.extend(found)
        changes_of.update(dict.fromkeys(found, changes))
        return sum(answer is not None for answer in answers)

    videos = run()
    if not videos:
        raise InvalidOptionError(
            f"none of {len(few)} videos can be read, such as {few[0].path}; give videos that can"
        )
    chosen: tuple[_Change, ...] | None = None
    while True:
        best = Diagnosis(videos, tuple(trials)).best or trials[0]
        if changes_of[best] == chosen or (best.right or 0) >= _ENOUGH * videos:
            return Diagnosis(videos, tuple(trials))
        chosen = changes_of[best]
        kinds = {change.kind for change in chosen}
        for change in _changes(pipeline):
            if change.kind not in kinds:
                run(*chosen, change)


def _trials(
    name: str,
    remedy: str,
    changes: int,
    answers: Sequence[_Answer],
    labels: Sequence[str],
) -> list[Trial]:
    """Makes the trials of one run: with the labels as they are, and in the best other order."""

    def outcomes(places: Sequence[int]) -> tuple[bool, ...]:
        return tuple(answer is not None and places[answer[0]] == answer[1] for answer in answers)

    trials = [Trial(name, outcomes(range(len(labels))), remedy, changes=changes)]
    counts = Counter(answer for answer in answers if answer is not None)
    order = best_order([[*answer, count] for answer, count in counts.items()], labels)
    if order is not None:
        name = f"{name}, {order.name}" if changes else order.name
        remedy = f"{remedy}; {FIX_LABELS}" if changes else FIX_LABELS
        trials.append(Trial(name, outcomes(order.places), remedy, changes=changes + 1))
    return trials


def _changes(pipeline: Pipeline) -> list[_Change]:
    """Lists what can be tried: all that differs from the options and the preprocessing."""
    views, preprocessing = pipeline.views, pipeline.model.preprocessing
    order = "rgb" if views.channel_order == "bgr" else "bgr"
    changes = [
        _Change(
            "channels",
            f"channel order {order}",
            f"give `channel_order={order}`",
            lambda given: dataclasses.replace(given, channel_order=order),
        )
    ]
    if preprocessing is not None:
        channels = preprocessing.num_channels
        for name, (mean, std) in _STATISTICS.items():
            wanted = _for_channels(mean, channels), _for_channels(std, channels)
            if not np.allclose(
                wanted, (preprocessing.image_mean, preprocessing.image_std), atol=1e-3
            ):
                changes.append(_Change("statistics", name, _FIX_STATISTICS, statistics=wanted))
    if views.protocol != "facebook":
        changes.append(
            _Change(
                "protocol",
                "protocol facebook",
                "give `protocol=facebook`",
                lambda given: Views.facebook(channel_order=given.channel_order),
            )
        )
    changes += [
        _Change(
            "protocol",
            f"sampling {method}",
            f"give `sampling={method}`",
            functools.partial(_with_sampling, Sampling(method)),
        )
        for method in ("uniform", "center", "segments")
        if views.sampling.method != method
    ]
    return changes


def _with_sampling(sampling: Sampling, views: Views) -> Views:
    return dataclasses.replace(views, sampling=sampling)


def _for_channels(value: float | tuple[float, ...], channels: int) -> tuple[float, ...]:
    values = value if isinstance(value, tuple) else (value,) * 3
    return values if channels == 3 else (float(np.mean(values)),)


def _changed(pipeline: Pipeline, changes: Sequence[_Change]) -> Pipeline:
    """Makes a pipeline of the same loaded model with changes."""
    views, model = pipeline.views, pipeline.model
    for change in changes:
        views = change.views(views)
        if change.statistics is not None and model.preprocessing is not None:
            mean, std = change.statistics
            model = dataclasses.replace(
                model,
                preprocessing=dataclasses.replace(
                    model.preprocessing, do_normalize=True, image_mean=mean, image_std=std
                ),
            )
    return Pipeline(model, views, pipeline.limits)


def _answers(pipeline: Pipeline, samples: Sequence[Sample], workers: int | None) -> list[_Answer]:
    """Runs a model; returns its answer for each video, in their order."""
    by_path = {sample.path: sample for sample in samples}

    def outcome(video: Any, found: Any) -> tuple[str, _Answer]:
        path = str(video)
        if isinstance(found, Exception):
            return path, None
        true = by_path[path].true
        best = int(np.argmax(found[0].outputs["logits"]))
        return path, ((best if best in true else true[0]), best)

    answers = dict(run_on_all([pipeline], by_path, Ranking(1), workers, outcome))
    return [answers[path] for path in by_path]
