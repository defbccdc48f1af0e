"""ClassifyVideos: from a column of videos to columns of results."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any, TypeAlias

import numpy as np

from timesformer_runtime.classifier import VideoClassifier
from timesformer_runtime.errors import InvalidOptionError, reason_of
from timesformer_runtime.extras import needs_extra
from timesformer_runtime.option_checks import check_threads
from timesformer_runtime.pipeline import Video
from timesformer_runtime.results import Ranking
from timesformer_runtime.source_names import hide_secrets
from timesformer_runtime.workloads.batch import Outcome
from timesformer_runtime.workloads.workers import check_workers, shared_threads, usual_workers

Columns: TypeAlias = dict[str, Any]


class ClassifyVideos:
    """Classifies the videos of a column; a callable class for Ray Data's ``map_batches``.

    Each actor makes one object, and so loads the model once. Within a batch the object decodes the
    next videos while the model is busy, on ``threads`` threads: give the actors as many CPUs
    (``num_cpus``). A pickled object holds only its arguments: unpickling loads the model again.

    Args:
        model: As for ``VideoClassifier.from_pretrained``. A folder must exist on each machine, and
            needs an absolute path: actors have another current folder.
        column: The column of the videos. Each value is a path, absolute as that of the model, the
            bytes of a file, or the frames as an array, uint8, RGB, [T, H, W, 3].
        top_k: How many labels; None gives all of them.
        function_to_apply: ``softmax``, ``sigmoid`` or ``none``; by default as the model says.
        threads: CPU threads of this object.
        workers: How many videos are worked on at a time; by default one more than ``threads``.
        options: Other arguments of ``VideoClassifier.from_pretrained``.

    Attributes:
        classifier: The loaded model.

    Raises:
        InvalidOptionError: An argument is not valid.
        MissingDependencyError: pyarrow is not installed.
        TimesformerError: As for ``VideoClassifier.from_pretrained``.

    Example:
        >>> videos.map_batches(
        ...     ClassifyVideos,
        ...     fn_constructor_args=["/data/my-model"],
        ...     fn_constructor_kwargs={"top_k": 1},
        ...     compute=ray.data.ActorPoolStrategy(size=8),
        ...     num_cpus=1,
        ...     batch_size=16,
        ... )
    """

    def __init__(
        self,
        model: str | PathLike[str] | bytes,
        *,
        column: str = "video",
        top_k: int | None = 5,
        function_to_apply: str | None = None,
        threads: int = 1,
        workers: int | None = None,
        **options: Any,
    ) -> None:
        check_threads(threads)
        _arrow()  # an error comes before the model is loaded
        self._column = column
        self._ranking = Ranking(top_k, function_to_apply)
        self._workers = usual_workers(threads) if workers is None else workers
        check_workers(self._workers)
        self._arguments = {
            "model": model,
            "column": column,
            "top_k": top_k,
            "function_to_apply": function_to_apply,
            "threads": threads,
            "workers": workers,
            **options,
        }
        self.classifier = VideoClassifier.from_pretrained(
            model, threads=shared_threads(threads), **options
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (type(self), self._arguments)

    def __call__(self, batch: Mapping[str, Any]) -> Columns:
        """Classifies the videos of a batch.

        Args:
            batch: A mapping of columns, a data frame of pandas or a table of Arrow, as
                ``map_batches`` gives them for each of its batch formats.

        Returns:
            The other columns as they are, except those of these names. The column of the videos
            only with its paths: other values become None, and a column of bytes or arrays is left
            out. And, as arrays of Arrow with a value for each video,

            - ``labels``: list of strings, best first; empty where there is an error,
            - ``scores``: list of floats, one for each label,
            - ``times``: list of the times of the frames that the model saw, in seconds; None for
              arrays and errors,
            - ``problems``: list of strings, what is wrong with the file,
            - ``error``: the reason why a video has no result; None where it has one.

        Raises:
            InvalidOptionError: The batch has no such column.
        """
        arrow = _arrow()
        if isinstance(batch, arrow.Table | arrow.RecordBatch):
            batch = dict(zip(batch.column_names, batch.columns, strict=True))
        if self._column not in batch:
            raise InvalidOptionError(
                f"`column` is {self._column!r}; the columns are {', '.join(map(str, batch))}"
            )
        values = _values(batch[self._column])
        columns: Columns = {str(name): batch[name] for name in batch}
        paths = [value if isinstance(value, str) else None for value in values]
        if None in paths:
            columns[self._column] = arrow.array(paths, arrow.string())
        has_paths = any(path is not None for path in paths)
        if not has_paths and any(value is not None for value in values):
            del columns[self._column]  # results would carry the videos along
        outcomes = self.outcomes(values)
        results = [outcome.result for outcome in outcomes]
        predictions = [() if result is None else result.predictions for result in results]
        labels = [[prediction["label"] for prediction in row] for row in predictions]
        scores = [[prediction["score"] for prediction in row] for row in predictions]
        problems = [[] if result is None else list(result.problems) for result in results]
        values_of = {
            "labels": labels,
            "scores": scores,
            "times": [_times(outcome) for outcome in outcomes],
            "problems": problems,
            "error": [error_of(outcome) for outcome in outcomes],
        }
        return columns | {
            name: arrow.array(values_of[name], kind) for name, kind in result_types(arrow).items()
        }

    def outcomes(self, values: Iterable[Any]) -> list[Outcome]:
        """Classifies videos as ``VideoClassifier.batch`` does.

        Args:
            values: Paths, bytes of files, or arrays of frames.

        Returns:
            An outcome for each value, in order. A value of another type is an error.
        """
        videos = [_video(value) for value in values]
        found: dict[int, Outcome] = {}
        places: dict[int, list[int]] = defaultdict(list)  # of each object: one may be there twice
        for place, video in enumerate(videos):
            places[id(video)].append(place)
        for outcome in self.classifier.batch(
            videos,
            self._ranking.top_k,
            self._ranking.function_to_apply,
            workers=self._workers,
        ):
            found[places[id(outcome.video)].pop()] = outcome
        return [found[place] for place in range(len(videos))]


def result_types(arrow: Any) -> dict[str, Any]:
    """The columns of a result, in their order, with their types: also for a table of a batch.

    The types are stated, because a column without any error or problem would have none.

    Args:
        arrow: The module ``pyarrow``, which not every user of this module has.
    """
    text, number = arrow.string(), arrow.float64()
    return {
        "labels": arrow.list_(text),
        "scores": arrow.list_(number),
        "times": arrow.list_(number),
        "problems": arrow.list_(text),
        "error": text,
    }


def error_of(outcome: Outcome) -> str | None:
    """Describes why a video has no result, without the secrets of a URL; None if it has one."""
    if outcome.error is None:
        return None
    names = (outcome.video,) if isinstance(outcome.video, str) else ()
    return hide_secrets(reason_of(outcome.error), *names)


def _arrow() -> Any:
    """Imports pyarrow, which Ray Data and PySpark bring."""
    with needs_extra("ray"):
        import pyarrow  # noqa: PLC0415
    return pyarrow


def _values(column: Any) -> list[Any]:
    """Lists the values of a column, with None for those that are missing."""
    if hasattr(column, "to_pylist"):  # a column of Arrow holds Arrow's objects
        column = column.to_pylist()
    return [None if _is_missing(value) else value for value in column]


def _is_missing(value: Any) -> bool:
    """True for what NumPy and pandas have in place of None: NaN and NA."""
    if isinstance(value, float | np.floating):
        return bool(np.isnan(value))
    return type(value).__name__ == "NAType"


def _unpickled(kind: type[ClassifyVideos], arguments: Mapping[str, Any]) -> ClassifyVideos:
    return kind(**arguments)


def _video(value: Any) -> Video:
    """Makes a video of a value; one of another type is an error of ``VideoClassifier.batch``."""
    if isinstance(value, bytes | bytearray | memoryview):
        return io.BytesIO(value)
    if isinstance(value, str):
        return str(value)  # of NumPy's own strings, too
    video: Video = value
    return video


def _times(outcome: Outcome) -> list[float] | None:
    times = None if outcome.result is None else outcome.result.times
    return None if times is None else list(times)
