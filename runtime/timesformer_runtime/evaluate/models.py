"""EvaluatedModel: one of the models of an evaluation, and how its answers become lines."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from timesformer_runtime.errors import InvalidOptionError, quoted
from timesformer_runtime.evaluate.datasets.label_names import LabelNames
from timesformer_runtime.evaluate.datasets.samples import Sample
from timesformer_runtime.pipeline import Pipeline
from timesformer_runtime.results import Ranking, VideoResult, apply_function

_TOP = 5


@dataclasses.dataclass(frozen=True)
class EvaluatedModel:
    """A model that is evaluated.

    Attributes:
        name: Its name in the results, such as ``int8``.
        pipeline: The loaded model.
        fingerprint: Tells its contents from another model's.
        places: For each label of the evaluation its place in this model; None where both have one
            order.
        memory: The most bytes of a process that loads the model and runs it once; None where that
            is not known.
    """

    name: str
    pipeline: Pipeline
    fingerprint: str
    places: tuple[int, ...] | None = None
    memory: int | None = None

    def answer(
        self, result: VideoResult, sample: Sample, labels: Sequence[str], function: str
    ) -> dict[str, Any]:
        """Describes the model's answer to a video, as a line of the results holds it.

        Ranks are those of the logits, which do not saturate as scores do.

        Args:
            result: The answer.
            sample: The video with its true labels.
            labels: The labels of the evaluation.
            function: The function that makes scores of logits.
        """
        if "logits" not in result.outputs:
            return _invalid_answer(sample, labels, function)
        logits = self.pipeline.mean_logits(result.outputs["logits"]).astype(np.float64)
        if len(logits) != len(labels):
            raise InvalidOptionError(
                f"{self.pipeline.model.name} has {len(logits)} classes, but {len(labels)} labels; "
                "correct id2label in the checkpoint's config.json and export again"
            )
        if self.places is not None:
            logits = logits[list(self.places)]
        scores = apply_function(function, logits)
        best = np.argsort(-logits, kind="stable")[:_TOP]
        answer: dict[str, Any] = {
            "top": [[labels[place], float(scores[place])] for place in best],
            "true": [[float(scores[place]), _rank(logits, place)] for place in sample.true],
            "seconds": round(result.seconds.inference, 6),
        }
        if function == "softmax":
            answer["log_probability"] = [_log_softmax(logits, place) for place in sample.true]
        if function == "sigmoid":
            answer["scores"] = scores.tolist()
        return answer


def line_of(
    sample: Sample,
    models: Sequence[EvaluatedModel],
    results: Sequence[VideoResult],
    ranking: Ranking,
) -> dict[str, Any]:
    """Describes the answers of all models to a video.

    Args:
        sample: The video.
        models: The models.
        results: Their answers.
        ranking: How logits become labels with scores.
    """
    first = models[0].pipeline
    labels = labels_of(first)
    function = ranking.function_of(first.model.problem_type)
    view, read = results[0].views[0], results[0].seconds
    return {
        "results": {
            model.name: model.answer(result, sample, labels, function)
            for model, result in zip(models, results, strict=True)
        },
        "frames": list(view.indices),
        "times": None if view.times is None else [round(time, 6) for time in view.times],
        "problems": list(results[0].problems),
        "read_seconds": round(read.decode + read.preprocess, 6),
    }


def labels_of(pipeline: Pipeline) -> tuple[str, ...]:
    """Gives the labels of a model; LABEL_0, ... where it has no names, as transformers does.

    Raises:
        InvalidOptionError: The model has no logits with a fixed number of classes.
    """
    if pipeline.model.labels:
        return pipeline.model.labels
    pipeline.check_outputs(["logits"])
    name = pipeline.model.outputs["logits"]
    shape = next(node.shape for node in pipeline.model.session.outputs if node.name == name)
    if not isinstance(shape[-1], int):
        raise InvalidOptionError(
            f"{pipeline.model.name} does not say how many classes it has; add id2label to the "
            "checkpoint's config.json and export again"
        )
    return tuple(f"LABEL_{number}" for number in range(shape[-1]))


def places_in(labels: Sequence[str], other: Pipeline) -> tuple[int, ...] | None:
    """Finds the place of each label in another model; None where the places are equal.

    Raises:
        InvalidOptionError: The other model has other labels.
    """
    theirs = LabelNames(labels_of(other))
    places = []
    for label in labels:
        place = theirs.find(label)
        if place is None:
            raise InvalidOptionError(
                f"{other.model.name} has no label {quoted(label)}; {theirs.nearest(label)}: only "
                "models with the same labels can be compared"
            )
        places.append(place)
    if len(theirs.labels) != len(labels) or len(set(places)) != len(labels):
        raise InvalidOptionError(
            f"{other.model.name} has {len(theirs.labels)} labels, and the evaluated model "
            f"{len(labels)}; only models with the same labels can be compared"
        )
    return None if places == list(range(len(labels))) else tuple(places)


def run_description(
    models: Sequence[EvaluatedModel], ranking: Ranking, others: Mapping[str, Any]
) -> dict[str, Any]:
    """Describes an evaluation, for the first line of its results.

    Args:
        models: The evaluated models.
        ranking: How logits become labels with scores.
        others: More facts, as JSON types.
    """
    first = models[0].pipeline
    return {
        "model": first.model.name,
        "models": {model.name: model.fingerprint for model in models},
        "labels_count": len(labels_of(first)),
        "function": ranking.function_of(first.model.problem_type),
        "views": first.views.to_dict(),
        **others,
    }


def _invalid_answer(sample: Sample, labels: Sequence[str], function: str) -> dict[str, Any]:
    """Describes an answer that is not one: its scores are null, and it counts as wrong."""
    nothing = [None] * len(sample.true)
    answer: dict[str, Any] = {
        "top": [[labels[0], None]],
        "true": [[None, None] for _ in sample.true],
        "seconds": 0.0,
        "error": "the model's answer is not valid: its numbers are not finite, or not one a label",
    }
    if function == "softmax":
        answer["log_probability"] = nothing
    if function == "sigmoid":
        answer["scores"] = [None] * len(labels)
    return answer


def _rank(logits: npt.NDArray[np.float64], place: int) -> int:
    """The rank of a label: 1 for the best; labels with an equal value count as better."""
    return int(np.count_nonzero(logits >= logits[place]))


def _log_softmax(logits: npt.NDArray[np.float64], place: int) -> float:
    largest = logits.max()
    return float(logits[place] - largest - np.log(np.exp(logits - largest).sum()))
