"""Many videos: some are decoded while the model is busy with others."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from timesformer_runtime.errors import (
    ClosedError,
    InvalidModelError,
    InvalidOptionError,
    NotEnoughMemoryError,
    reason_of,
)
from timesformer_runtime.pipeline import Pipeline, Video
from timesformer_runtime.results import Answer, Ranking, VideoResult
from timesformer_runtime.workloads.shared_generator import SharedGenerator
from timesformer_runtime.workloads.workers import Workers, check_workers, usual_workers

if TYPE_CHECKING:
    from timesformer_runtime.isolation.in_this_process import InThisProcess
    from timesformer_runtime.isolation.readers import Readers

T = TypeVar("T")
Results = tuple[VideoResult, ...]  # of one video, one for each model

_AXES = 4  # of a video as an array: frames, rows, columns, channels
_RUNS_ON_A_GPU = 2  # at once: while one run waits for data, the GPU works for the other


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of one video: a result or an error.

    Attributes:
        video: The video as it was given.
        result: The result; None where there is an error.
        error: Why there is no result.
    """

    video: Video
    result: VideoResult | None = None
    error: Exception | None = None


def classify_all(
    pipeline: Pipeline, videos: Iterable[Video], ranking: Ranking, workers: int | None
) -> Generator[Outcome, None, None]:
    """Classifies many videos; see ``VideoClassifier.batch``."""
    _check_several(videos)

    def outcome(video: Video, found: Results | Exception) -> Outcome:
        if isinstance(found, Exception):
            return Outcome(video, error=found)
        return Outcome(video, found[0])

    return run_on_all([pipeline], videos, ranking, workers, outcome)


def run_on_all(
    pipelines: Sequence[Pipeline],
    videos: Iterable[Video],
    ranking: Ranking,
    workers: int | None,
    outcome: Callable[[Video, Results | Exception], T],
    *,
    keeps_invalid: bool = False,
) -> Generator[T, None, None]:
    """Runs several models on many videos; models of equal input share the frames of a video.

    Args:
        pipelines: The models, with equal limits. Memory holds the frames of one video for each
            worker and kind of input.
        videos: The videos, read only a few ahead of the workers.
        ranking: How logits become labels with scores.
        workers: How many videos are worked on at a time; by default one more than the threads of
            the first model.
        outcome: Makes the outcome of a video from a result for each model, or from the error that
            the video has for one of them. A worker calls it.
        keeps_invalid: True to give a result without outputs for a model whose answer is not valid,
            such as one that is not finite; False to make that the error of the video.

    Returns:
        The outcomes, in the order in which they are done.
    """
    for pipeline in pipelines:
        pipeline.check_outputs(["logits"])
    first = pipelines[0]
    if workers is None:
        workers = usual_workers(first.model.session.threads)
    check_workers(workers)
    readers = first.new_readers()
    runs = _Runs(
        pipelines,
        ranking,
        readers,
        threading.Semaphore(_runs_at_once(first, workers)),
        keeps_invalid=keeps_invalid,
    )

    def classify(video: Video) -> T:
        try:
            return outcome(video, tuple(runs.results(video)))
        except ClosedError:  # no other video can be classified, either
            raise
        except MemoryError as error:  # a MemoryError often has no message
            return outcome(video, NotEnoughMemoryError(reason_of(error)))
        except Exception as error:  # an error of one video, of any kind, does not end the others
            return outcome(video, error)

    outcomes = _as_they_are_done(classify, videos, workers)
    return SharedGenerator(_with_readers(outcomes, readers), "batch")


@dataclasses.dataclass(frozen=True)
class _Runs:
    """Runs of several models on videos; the workers share one object.

    Attributes:
        pipelines: The models.
        ranking: How logits become labels with scores.
        readers: Read the videos.
        free: Counts the runs that may begin now.
        keeps_invalid: As for ``run_on_all``.
    """

    pipelines: Sequence[Pipeline]
    ranking: Ranking
    readers: Readers | InThisProcess
    free: threading.Semaphore
    keeps_invalid: bool

    def results(self, video: Video) -> Iterator[VideoResult]:
        """Reads a video once for each kind of input, and gives the result of each model."""
        reading, of = None, self.pipelines[0]
        for pipeline in self.pipelines:
            if reading is None or not pipeline.shares_frames(of):
                reading, of = pipeline.read(video, threads=1, readers=self.readers), pipeline
            try:
                with self.free:
                    answer = pipeline.predict(reading.frames, self.ranking, spent=reading.seconds)
            except InvalidModelError:
                if not self.keeps_invalid:
                    raise
                answer = Answer((), {}, 0.0, 0.0)
            yield reading.result(answer)


def _check_several(videos: object) -> None:
    """Makes sure that videos are not one video: a path would be taken letter by letter."""
    is_one = isinstance(videos, str | bytes | os.PathLike) or hasattr(videos, "read")
    is_array = isinstance(videos, np.ndarray) and videos.ndim == _AXES
    try:
        iter(videos)  # type: ignore[call-overload]  # a TypeError is handled
        is_iterable = True
    except TypeError:
        is_iterable = False
    if is_one or is_array or not is_iterable:
        raise InvalidOptionError(
            f"`videos` is one {type(videos).__name__}; it must be a list of videos, or another "
            "iterable of them: give [video]"
        )


def _with_readers(
    outcomes: Generator[T, None, None], readers: Readers | InThisProcess
) -> Generator[T, None, None]:
    """Gives the outcomes; after the last one, or at an interrupt, ends the reader processes."""
    try:
        yield from outcomes
    finally:
        readers.close()


def _runs_at_once(pipeline: Pipeline, workers: int) -> int:
    if pipeline.model.session.device.name != "cpu":
        return _RUNS_ON_A_GPU
    return max(1, (workers - 1) // pipeline.model.session.threads)  # one worker reads ahead


def _as_they_are_done(
    classify: Callable[[Video], T], videos: Iterable[Video], workers: int
) -> Generator[T, None, None]:
    """Gives outcomes in the order in which they are done; starts only a few videos ahead."""
    pool = Workers(workers, "batch")
    waiting: list[Future[T]] = []

    def done() -> Iterator[T]:
        finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
        ready = [future for future in waiting if future in finished]
        waiting[:] = [future for future in waiting if future not in finished]
        for future in ready:
            yield future.result()

    waits_for_jobs = True
    try:
        for video in videos:
            waiting.append(pool.start(classify, video))
            if len(waiting) > workers:  # one video waits for the first worker that is free
                yield from done()
        while waiting:
            yield from done()
    except CancelledError:
        # The interpreter ends: the pool dropped a job of this daemon thread. SystemExit ends the
        # thread without a traceback; a return would look like the end of the results.
        raise SystemExit from None
    except KeyboardInterrupt:
        waits_for_jobs = False  # jobs may take as long as the limits allow
        raise
    finally:
        pool.close(wait=waits_for_jobs)
