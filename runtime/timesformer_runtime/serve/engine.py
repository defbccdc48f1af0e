"""Engine: the threads that work for requests, and how many requests may be there at a time.

The event loop only moves bytes. Videos are decoded, and the models run, in worker threads, as many
as ``timesformer batch`` has: one more than cores, so that one worker reads ahead while the others
run the model. A request holds a place from its beginning until nothing works for it any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import numpy.typing as npt

from timesformer_runtime.classifier import VideoClassifier
from timesformer_runtime.errors import ClosedError, quoted
from timesformer_runtime.extras import needs_extra
from timesformer_runtime.input.views import Views
from timesformer_runtime.pipeline import Outputs, Pipeline, Video
from timesformer_runtime.reading import Reading
from timesformer_runtime.serve.metrics import Metrics
from timesformer_runtime.serve.place import Place
from timesformer_runtime.video.limits import DecodeLimits, interruptible
from timesformer_runtime.video.source import Source
from timesformer_runtime.workloads.workers import usual_workers

if TYPE_CHECKING:
    from timesformer_runtime.isolation.in_this_process import InThisProcess
    from timesformer_runtime.isolation.readers import Readers

with needs_extra("serve"):
    from fastapi import HTTPException, Request
    from starlette.requests import ClientDisconnect

T = TypeVar("T")

_RUNS_ON_A_GPU = 2
_LONGEST_ADVICE = 60  # seconds in Retry-After
_CHECK_INTERVAL = 0.5  # seconds after which a waiting thread checks if its client is there
_WRITERS = 4  # threads that write uploads
_CLEANERS = 2  # threads that end timelines and remove files


class Engine:
    """Loaded models, and the threads that decode videos and run the models.

    Args:
        models: The loaded models by their public names.
        cores: Threads for all runs of the models together.
        limits: Limits of reading one video.
        queue: How many requests may wait for a worker.
        metrics: Counts the work.

    Attributes:
        models: As given.
        limits: As given.
        metrics: As given.
        workers: How many videos are worked on at a time.
    """

    def __init__(
        self,
        models: Mapping[str, VideoClassifier],
        cores: int,
        limits: DecodeLimits,
        queue: int,
        metrics: Metrics,
    ) -> None:
        self.models = models
        self.limits = limits
        self.metrics = metrics
        self.workers = usual_workers(cores)
        self._most_places = self.workers + queue
        self._places = 0
        self._usual_seconds = 1.0
        self._pool = ThreadPoolExecutor(self.workers, "serve: work")
        self._writers = ThreadPoolExecutor(_WRITERS, "serve: uploads")
        self._cleaners = ThreadPoolExecutor(_CLEANERS, "serve: cleaning")
        self._free_runs = threading.Semaphore(_runs_at_once(models, cores))
        self._readers = next(iter(models.values())).new_readers()
        metrics.watch_places(lambda: self._places, self.workers)

    def close(self) -> None:
        """Drops the jobs that have not begun, and waits for the others."""
        self._pool.shutdown(cancel_futures=True)
        self._writers.shutdown()
        self._cleaners.shutdown()
        self._readers.close()
        for classifier in self.models.values():
            classifier.close()

    @contextlib.contextmanager
    def place(self) -> Iterator[Place]:
        """Gives a request its place; ``Place.leave`` may give it back later than the block ends.

        Raises:
            HTTPException: All places are taken.
        """
        place = self.take_place()
        try:
            yield place
        except BaseException:
            place.is_gone.set()
            raise
        finally:
            place.leave()

    def take_place(self) -> Place:
        """Gives a request a place, which it has to leave.

        Raises:
            HTTPException: All places are taken.
        """
        if self._places >= self._most_places:
            seconds = math.ceil(self._usual_seconds * self._places / self.workers)
            raise HTTPException(
                503,
                f"all {self._most_places} places are taken; try again later",
                {"Retry-After": str(min(max(1, seconds), _LONGEST_ADVICE))},
            )
        self._places += 1
        return Place(self._free)

    def _free(self, place: Place) -> None:
        self._places -= 1
        if not place.has_leftovers:
            return
        try:
            self._cleaners.submit(place.clean)
        except RuntimeError:  # the service ends, and this request has outlasted its time
            place.clean()

    async def in_writer_thread(
        self, place: Place, function: Callable[..., T], *arguments: Any
    ) -> T:
        """Calls a short function that waits for the disk; the place is held until it returns."""
        return await place.hold_for(self._writers.submit(function, *arguments))

    async def work(self, request: Request, place: Place, job: Callable[[], T]) -> T:
        """Does a job as soon as a worker is free, unless the client leaves.

        Args:
            request: The request, whose body has been read.
            place: Its place.
            job: Decodes or runs a model; calls ``place.check`` between its steps.

        Raises:
            ClientDisconnect: The client has left. The job ends at its next step, and a reading at
                its next frame.
        """
        answer = self._started(place, job)
        gone = asyncio.ensure_future(_until_gone(request))
        try:
            await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise ClientDisconnect
            return answer.result()
        finally:
            gone.cancel()
            if not answer.done():
                place.is_gone.set()
                answer.cancel()  # drops a job that has not begun

    async def work_unwatched(self, place: Place, job: Callable[[], T]) -> T:
        """Does a job as ``work`` does, where something else watches the client."""
        answer = self._started(place, job)
        try:
            return await answer
        finally:
            if not answer.done():
                place.is_gone.set()

    def _started(self, place: Place, job: Callable[[], T]) -> asyncio.Future[T]:
        try:
            future = self._pool.submit(self._timed, place, job, time.perf_counter())
        except RuntimeError as error:
            raise ClosedError("the service ends; ask another one") from error
        return place.hold_for(future)

    def _timed(self, place: Place, job: Callable[[], T], submitted: float) -> T:
        start = time.perf_counter()
        self.metrics.observe("queue", start - submitted)
        place.check()
        try:
            with interruptible(place.check):
                return job()
        finally:
            seconds = time.perf_counter() - start
            self._usual_seconds += (seconds - self._usual_seconds) / 10

    def model(self, name: str | None) -> tuple[str, VideoClassifier]:
        """Finds a model by its public name; None finds the only one.

        Raises:
            HTTPException: There is no such model, or there are several.
        """
        if name is None:
            if len(self.models) > 1:
                raise HTTPException(400, f"`model` is missing; name one of {self._names()}")
            return next(iter(self.models.items()))
        if name not in self.models:
            raise HTTPException(404, f"there is no model {quoted(name)}; there is {self._names()}")
        return name, self.models[name]

    def _names(self) -> str:
        return ", ".join(self.models)

    def pipeline(
        self, classifier: VideoClassifier, views: Views, place: Place, limits: DecodeLimits
    ) -> Pipeline:
        """Makes the pipeline of one request, which shares the loaded model and the threads.

        Raises:
            InvalidOptionError: The model cannot take such views.
        """
        return _RequestPipeline(
            classifier, views, limits, self._readers, functools.partial(self._run, place)
        )

    def read(self, job: Callable[[Source], Iterator[T]], video: str) -> T:
        """Does a job that reads a video and has one answer, in another process if isolated."""
        found: T = self._readers.single_answer(job, video, threads=1)
        return found

    @contextlib.contextmanager
    def _run(self, place: Place) -> Iterator[None]:
        """Waits until the model may run, as long as the client is there."""
        start = time.perf_counter()
        while not self._free_runs.acquire(timeout=_CHECK_INTERVAL):
            place.check()
        try:
            place.check()
            self.metrics.observe("model_queue", time.perf_counter() - start)
            yield
        finally:
            self._free_runs.release()


class _RequestPipeline(Pipeline):
    """The steps for one request: they read with one thread, and run when a run is free."""

    def __init__(
        self,
        classifier: VideoClassifier,
        views: Views,
        limits: DecodeLimits,
        shared_readers: Readers | InThisProcess,
        free_run: Callable[[], contextlib.AbstractContextManager[None]],
    ) -> None:
        super().__init__(classifier.model, views, limits)
        self._shared_readers = shared_readers
        self._free_run = free_run

    def read(
        self, video: Video, threads: int | None = 1, readers: Readers | InThisProcess | None = None
    ) -> Reading:
        return super().read(video, threads, readers or self._shared_readers)

    def run(
        self,
        view: npt.NDArray[Any],
        outputs: Any,
        seconds: float,
        *,
        finite: bool = True,
    ) -> Outputs:
        with self._free_run():
            return super().run(view, outputs, seconds, finite=finite)


def _runs_at_once(models: Mapping[str, VideoClassifier], cores: int) -> int:
    if any(classifier.device != "cpu" for classifier in models.values()):
        return _RUNS_ON_A_GPU
    return max(1, cores // max(classifier.threads for classifier in models.values()))


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
