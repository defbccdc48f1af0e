"""Runs an evaluation: each video once for all models, then the numbers and the report."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from timesformer_runtime.errors import InvalidOptionError, reason_of
from timesformer_runtime.evaluate.advice import advise
from timesformer_runtime.evaluate.datasets.reading import Dataset, DatasetOptions, read_dataset
from timesformer_runtime.evaluate.datasets.samples import Sample
from timesformer_runtime.evaluate.loading import LoadedModels
from timesformer_runtime.evaluate.metrics import compare, measure
from timesformer_runtime.evaluate.models import EvaluatedModel, labels_of, line_of, run_description
from timesformer_runtime.evaluate.report import frames_seen, write_report
from timesformer_runtime.evaluate.results_file import METRICS, REPORT, EvaluationFile
from timesformer_runtime.evaluate.sentences import sentence
from timesformer_runtime.json_object import finite
from timesformer_runtime.pipeline import Video
from timesformer_runtime.results import Ranking, VideoResult
from timesformer_runtime.video_files import FileIdentity
from timesformer_runtime.whole_file import whole_file
from timesformer_runtime.workloads.batch import run_on_all

# Gets the number of videos that are done, that of all that this run does, and the last one's line.
Progress = Callable[[int, int, Mapping[str, Any]], None]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        folder: The folder with ``results.jsonl``, ``metrics.json`` and ``report.html``.
        metrics: The contents of ``metrics.json``.
        done_before: Number of videos that an earlier run had done.
        left_out: Number of results of videos that the data does not have any more.
    """

    folder: Path
    metrics: dict[str, Any]
    done_before: int = 0
    left_out: int = 0

    @property
    def sentence(self) -> str:
        """The evaluation in one sentence."""
        return str(self.metrics["sentence"])

    @property
    def unreadable(self) -> int:
        """Number of videos that could not be read."""
        evaluated = self.metrics["evaluated"].values()
        return max(int(values["videos"]["unreadable"]) for values in evaluated)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that an evaluation needs: models, videos, options and the folder.

    Attributes:
        models: The models; the first one's labels are those of the evaluation.
        dataset: The videos.
        folder: The folder for the results.
        pairs: The names of the models to compare, the reference first.
        ranking: How logits become labels with scores.
        facts: More facts about the run, such as the dataset's path: results are continued only
            where these are equal.
        workers: How many videos are worked on at a time; None for the usual number.
        retry_failed: True to do the videos again that failed in an earlier run.
        force: True to begin again.
        report: False to write no ``report.html``.
    """

    models: Sequence[EvaluatedModel]
    dataset: Dataset
    folder: Path
    pairs: Sequence[tuple[str, str]] = ()
    ranking: Ranking = dataclasses.field(default_factory=Ranking)
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    workers: int | None = None
    retry_failed: bool = False
    force: bool = False
    report: bool = True

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the evaluation."""
        return labels_of(self.models[0].pipeline)

    @property
    def function(self) -> str:
        """The function that makes scores of logits."""
        return self.ranking.function_of(self.models[0].pipeline.model.problem_type)


def make_plan(
    loaded: LoadedModels,
    data: Path,
    options: DatasetOptions,
    folder: Path,
    *,
    function_to_apply: str | None = None,
    **others: Any,
) -> Plan:
    """Reads the dataset, and plans its evaluation.

    Args:
        loaded: The models.
        data: The dataset.
        options: How to read it.
        folder: The folder for the results.
        function_to_apply: ``softmax`` or ``sigmoid``; None leaves it to the model.
        others: Other fields of ``Plan``.

    Raises:
        InvalidOptionError: The dataset or an option is not valid, or the model is not a classifier.
    """
    first = loaded.models[0].pipeline
    ranking = Ranking(None, function_to_apply)
    function = ranking.function_of(first.model.problem_type)
    if function not in ("softmax", "sigmoid"):
        raise InvalidOptionError(
            f"{first.model.name} gives numbers, not labels (its problem_type is "
            f"{first.model.problem_type}); say `function_to_apply=softmax` if it is a classifier"
        )
    dataset = read_dataset(data, labels_of(first), options, several=function == "sigmoid")
    facts = {"data": str(data.absolute()), **options.to_dict()}
    return Plan(loaded.models, dataset, folder, loaded.pairs, ranking, facts, **others)


def run(plan: Plan, on_video: Progress = lambda _done, _all, _line: None) -> Evaluation:
    """Evaluates models, and writes results, metrics and the report.

    Args:
        plan: The models, videos and options.
        on_video: Called when a video is done.

    Raises:
        InvalidOptionError: The folder has results of another run.
        OutputError: The results cannot be written.
    """
    labels = plan.labels
    named = [(sample, [labels[place] for place in sample.true]) for sample in plan.dataset.samples]
    description = run_description(plan.models, plan.ranking, plan.facts)
    with EvaluationFile(plan.folder, description, named, force=plan.force) as results:
        left = [
            sample
            for sample in plan.dataset.samples
            if not results.is_done(sample, failed_too=not plan.retry_failed)
        ]
        for done, line in enumerate(_lines(plan, left, results), 1):
            on_video(done, len(left), line)
        results.check()
        metrics = _metrics(plan, results)
        with whole_file(plan.folder / METRICS) as file:
            file.write(json.dumps(finite(metrics), indent=1).encode())
        if plan.report:
            frames = frames_seen(plan.models[0].pipeline)
            write_report(plan.folder / REPORT, metrics, results, frames)
        left_out = len(results.left_out)
    return Evaluation(plan.folder, metrics, len(plan.dataset.samples) - len(left), left_out)


def _lines(
    plan: Plan, samples: Sequence[Sample], results: EvaluationFile
) -> Iterator[Mapping[str, Any]]:
    """Runs the models on the videos, and writes and gives the line of each."""
    by_path = {sample.path: sample for sample in samples}
    identities: dict[str, FileIdentity] = {}

    def paths() -> Iterator[str]:
        for sample in samples:
            identities[sample.path] = FileIdentity.of(sample.path)
            yield sample.path

    def line(video: Video, found: tuple[VideoResult, ...] | Exception) -> tuple[Sample, Any]:
        sample = by_path[str(video)]
        if isinstance(found, Exception):
            return sample, {"error": " ".join(reason_of(found).split())}
        return sample, line_of(sample, plan.models, found, plan.ranking)

    pipelines = [model.pipeline for model in plan.models]
    outcomes = run_on_all(pipelines, paths(), plan.ranking, plan.workers, line, keeps_invalid=True)
    try:
        for sample, outcome in outcomes:
            results.append(sample, identities.pop(sample.path), outcome)
            yield {"file": sample.file, "path": sample.path, **outcome}
    finally:
        outcomes.close()


def _metrics(plan: Plan, lines: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    seconds = _seconds(plan, lines)
    metrics: dict[str, Any] = {
        "run": _shown_facts(plan),
        "labels": list(plan.labels),
        "function": plan.function,
        "evaluated": {
            model.name: {
                **measure(lines, model.name, plan.labels, plan.function),
                "seconds_per_video": seconds[model.name],
                "memory_bytes": model.memory,
            }
            for model in plan.models
        },
        "reading_seconds_per_video": seconds[None],
        "comparisons": [compare(lines, first, second) for first, second in plan.pairs],
        "notes": list(plan.dataset.notes),
    }
    return {
        "sentence": sentence(metrics),
        **metrics,
        "advice": advise(metrics, plan.models[0].pipeline.views),
    }


def _shown_facts(plan: Plan) -> dict[str, str]:
    """Describes the run in words, for people."""
    first = plan.models[0].pipeline
    facts = {
        "Model": first.model.name,
        "Data": plan.facts.get("data"),
        "Root": plan.facts.get("root"),
        "Labels": plan.facts.get("labels"),
        "Split": plan.facts.get("split"),
        "Frames": first.views.describe(),
        "Device": f"{first.model.session.device.name}, threads for a run: "
        f"{first.model.session.threads}",
        "Notes": "; ".join(plan.dataset.notes),
        "Date": time.strftime("%Y-%m-%d"),
    }
    return {name: str(value) for name, value in facts.items() if value}


def _seconds(plan: Plan, lines: Iterable[Mapping[str, Any]]) -> dict[str | None, float | None]:
    """Computes the mean seconds of each model for a video; None names the reading of a video."""
    sums: dict[str | None, float] = dict.fromkeys([None, *(model.name for model in plan.models)], 0)
    count = 0
    for line in lines:
        if "results" in line:
            count += 1
            sums[None] += line["read_seconds"]
            for model in plan.models:
                sums[model.name] += line["results"][model.name]["seconds"]
    return {name: total / count if count else None for name, total in sums.items()}
