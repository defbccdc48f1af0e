"""Measures what each variant costs in accuracy on labelled videos; PyTorch is the reference."""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from timesformer_runtime.classifier import VideoClassifier
from timesformer_runtime.errors import InvalidOptionError
from timesformer_runtime.evaluate.datasets import Dataset, DatasetOptions, read_dataset
from timesformer_runtime.evaluate.loading import LoadedModels
from timesformer_runtime.evaluate.models import EvaluatedModel
from timesformer_runtime.evaluate.run import Evaluation, Plan, run
from timesformer_runtime.input.model_input import GraphInput
from timesformer_runtime.input.preprocess import Preprocessing
from timesformer_runtime.model.agreement import Array
from timesformer_runtime.model.device import choose_device
from timesformer_runtime.model.session import Session
from timesformer_runtime.model.settings import SessionSettings
from timesformer_runtime.pipeline import Pipeline

from timesformer_exporter.graph.trace import GraphOutputs, TracedModel
from timesformer_exporter.model.config import TimesformerConfig
from timesformer_exporter.model.timesformer import TimesformerForVideoClassification
from timesformer_exporter.options import Variant
from timesformer_exporter.proof.accuracy_table import PYTORCH, Accuracy, VariantAccuracy
from timesformer_exporter.proof.reference import run_clip

# Options of ``timesformer evaluate`` that the export does not have, or has for something else.
_OTHER_OPTIONS = re.compile(r"`(split|labels|labels_by|function_to_apply)(=\w+)?`")
_MULTI_LABEL = "multi_label_classification"


def read_labelled_videos(data: Path, root: Path | None, config: TimesformerConfig) -> Dataset:
    """Reads a dataset whose labels are those of a checkpoint.

    Args:
        data: The dataset, in any form of ``timesformer evaluate``.
        root: The folder of the videos of a list.
        config: The checkpoint's configuration.

    Raises:
        InvalidOptionError: The dataset is not valid, or has other labels.
    """
    # The import shows at once that a library of the extra is missing, not after the export.
    import timesformer_runtime.evaluate.metrics  # noqa: F401, PLC0415

    names = config.id2label or {}
    labels = [names[number] for number in sorted(names)]
    several = config.problem_type == _MULTI_LABEL
    try:
        return read_dataset(data, labels, DatasetOptions(root), several=several)
    except InvalidOptionError as error:
        raise InvalidOptionError(_for_the_export(str(error))) from error


def _for_the_export(message: str) -> str:
    """Names options in a message about a dataset as the export has them, or says what works."""
    message = message.replace("`root`", "`evaluate_root`")
    other = _OTHER_OPTIONS.sub(r"\1\2 of timesformer evaluate", message)
    if other == message:
        return message
    return (
        f"{other}. The export has no such option: give a list with a path and a label of the model "
        "in each line, or run timesformer evaluate on the export"
    )


def measure_accuracy(
    dataset: Dataset,
    model: TimesformerForVideoClassification,
    preprocessing: Preprocessing,
    files: Mapping[Variant, Path],
    limit: float | None,
    on_video: Callable[[int, int, Mapping[str, Any]], None],
) -> Accuracy:
    """Runs PyTorch and all variants on the frames of labelled videos.

    Args:
        dataset: The videos.
        model: The PyTorch model.
        preprocessing: The model's preprocessing.
        files: The file of each variant.
        limit: The largest loss that is allowed, in points; None for any.
        on_video: Called when a video is done, as for ``timesformer_runtime.evaluate.run.run``.
    """
    classifiers = {
        variant.name: VideoClassifier.from_pretrained(path, device="cpu")
        for variant, path in files.items()
    }
    try:
        first = next(iter(classifiers.values()))
        models = [
            EvaluatedModel(PYTORCH, _pytorch_pipeline(model, preprocessing, first), PYTORCH),
            *(
                EvaluatedModel(name, classifier, classifier.fingerprint())
                for name, classifier in classifiers.items()
            ),
        ]
        pairs = tuple((PYTORCH, name) for name in classifiers)
        loaded = LoadedModels(tuple(models), pairs)
        with tempfile.TemporaryDirectory() as folder:
            plan = Plan(loaded.models, dataset, Path(folder), loaded.pairs, report=False)
            return _accuracy(run(plan, on_video), limit)
    finally:
        for classifier in classifiers.values():
            classifier.close()


def _accuracy(evaluation: Evaluation, limit: float | None) -> Accuracy:
    metrics = evaluation.metrics
    evaluated = metrics["evaluated"]
    is_sigmoid = metrics["function"] == "sigmoid"
    intervals = {
        comparison["second"]: comparison["difference"]["interval"]
        for comparison in metrics["comparisons"]
    }
    models = []
    reference = None
    for name, values in evaluated.items():
        share = values["mean_average_precision" if is_sigmoid else "top_1"]["value"] or 0.0
        reference = share if reference is None else reference
        interval = None if is_sigmoid else values["top_1"]["interval"]
        change = intervals.get(name)
        models.append(
            VariantAccuracy(
                name,
                share,
                None if interval is None else (interval[0], interval[1]),
                values["top_5"]["value"] or 0.0,
                loss=100 * (reference - share),
                loss_interval=None if change is None else (-100 * change[1], -100 * change[0]),
            )
        )
    return Accuracy(
        videos=evaluated[PYTORCH]["videos"]["total"],
        unreadable=evaluated[PYTORCH]["videos"]["unreadable"],
        measure="mAP" if is_sigmoid else "top-1",
        models=tuple(models),
        limit=limit,
        sentence=evaluation.sentence,
    )


def _pytorch_pipeline(
    model: TimesformerForVideoClassification, preprocessing: Preprocessing, like: Pipeline
) -> Pipeline:
    """Makes a pipeline that runs PyTorch where another one runs a graph."""
    loaded = dataclasses.replace(
        like.model,
        name=PYTORCH,
        dtype=None,
        input=GraphInput("pixel_values", False, np.float32, model.config.num_frames),
        preprocessing=preprocessing,
        outputs={"logits": "logits"},
        session=cast(Session, _PyTorchSession(model, like.model.session.threads)),
    )
    return Pipeline(loaded, like.views, like.limits)


class _PyTorchSession:
    """Takes the place of a ``Session`` in a pipeline: runs PyTorch."""

    def __init__(self, model: TimesformerForVideoClassification, threads: int) -> None:
        self.threads = threads
        self.device = choose_device(SessionSettings(device="cpu"))
        self._module = TracedModel(model, GraphOutputs())

    def run(
        self, _names: Sequence[str], inputs: Mapping[str, Array], _seconds: float
    ) -> list[Array]:
        """Runs PyTorch on a batch of one clip."""
        (clips,) = inputs.values()
        return run_clip(self._module, clips[0])

    def check_open(self) -> None:
        """Does nothing: PyTorch's model has no state "closed"."""

    def close(self) -> None:
        """Does nothing: the model belongs to the export."""
