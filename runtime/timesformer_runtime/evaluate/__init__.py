"""Evaluation: how well an exported model answers on labelled videos."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from timesformer_runtime.evaluate.run import Evaluation

__all__ = ["evaluate"]


def evaluate(  # noqa: PLR0913  # the options of the command
    model: str | PathLike[str],
    data: str | PathLike[str],
    output: str | PathLike[str],
    *,
    dtypes: str | Sequence[str] = (),
    against: str | PathLike[str] | None = None,
    root: str | PathLike[str] | None = None,
    labels: str | PathLike[str] | None = None,
    labels_by: str | None = None,
    split: str | None = None,
    function_to_apply: str | None = None,
    threads: int | None = None,
    workers: int | None = None,
    retry_failed: bool = False,
    force: bool = False,
    on_video: Callable[[int, int, Mapping[str, Any]], None] | None = None,
    **options: Any,
) -> Evaluation:
    """Measures how well a model answers on labelled videos.

    The folder ``output`` gets ``results.jsonl`` with a line for each video, ``metrics.json`` and
    ``report.html``. A run that was broken off continues there. Each video is decoded once for all
    models with equal input.

    Args:
        model: An exported model's folder, one ``.onnx`` file, or a Hub id.
        data: A folder with a folder for each class; a list of paths and labels; a CSV file with
            the columns ``file_name`` or ``video``, and ``label``, or a folder with Hugging Face's
            ``metadata.csv``; Kinetics' or Something-Something's annotations.
        output: The folder for the results, which is made if there is none.
        dtypes: The variant or variants to evaluate; by default the usual one.
        against: Another model with the same labels, or the name of a variant, to compare with.
        root: The folder of the videos of a list; by default the list's own or the current one.
        labels: A file with the names of the list's numbers.
        labels_by: ``names`` or ``numbers``: which of them counts where the labels file numbers the
            names in another order than the model. Without it, that is an error.
        split: The part to take of a table with a column ``split``.
        function_to_apply: ``softmax`` or ``sigmoid``; by default what the model's ``problem_type``
            says, else softmax. Only with sigmoid a video may have several labels.
        threads: CPU threads; by default as many as affinity and the container's quota grant.
        workers: How many videos are worked on at a time; by default one more than threads.
        retry_failed: True to do the videos again that failed in an earlier run.
        force: True to begin again where ``output`` has results.
        on_video: Called when a video is done, with the number of videos that are done, that of all
            that this run does, and the last one's line.
        options: Other arguments of ``VideoClassifier.from_pretrained``, such as ``views``.

    Returns:
        The metrics and the sentence.

    Raises:
        InvalidOptionError: An argument, the data or the folder is not valid; the message says why.
        MissingDependencyError: The extra ``evaluate`` is not installed.
        OutputError: The results cannot be written.
        TimesformerError: As for ``VideoClassifier.from_pretrained``.
    """
    from timesformer_runtime.classifier import VideoClassifier  # noqa: PLC0415
    from timesformer_runtime.evaluate.arguments import check_others, check_paths  # noqa: PLC0415
    from timesformer_runtime.evaluate.datasets import DatasetOptions  # noqa: PLC0415
    from timesformer_runtime.evaluate.loading import load_models  # noqa: PLC0415
    from timesformer_runtime.evaluate.run import make_plan, run  # noqa: PLC0415
    from timesformer_runtime.model.cpu import granted_threads  # noqa: PLC0415
    from timesformer_runtime.model.settings import SessionSettings  # noqa: PLC0415
    from timesformer_runtime.workloads.workers import (  # noqa: PLC0415
        check_workers,
        shared_threads,
        usual_workers,
    )

    wanted = (dtypes,) if isinstance(dtypes, str) else dtypes
    check_paths(
        {"data": data, "output": output, "root": root, "labels": labels},
        optional=("root", "labels"),
    )
    check_others(wanted, split, on_video, options)
    cores = granted_threads() if threads is None else SessionSettings(threads=threads).threads or 1
    if workers is None:
        workers = usual_workers(cores)
    check_workers(workers)
    dataset_options = DatasetOptions(
        None if root is None else Path(root),
        None if labels is None else Path(labels),
        labels_by,
        split,
    )

    def load(name: str, dtype: str | None) -> VideoClassifier:
        return VideoClassifier.from_pretrained(
            name, dtype=dtype, threads=shared_threads(cores), **options
        )

    loaded = load_models(load, str(model), wanted, None if against is None else str(against))
    try:
        plan = make_plan(
            loaded,
            Path(data),
            dataset_options,
            Path(output),
            function_to_apply=function_to_apply,
            workers=workers,
            retry_failed=retry_failed,
            force=force,
        )
        return run(plan) if on_video is None else run(plan, on_video)
    finally:
        loaded.close()
