"""Readers: a pool of reader processes, each of which reads one video after the other."""

from __future__ import annotations

import atexit
import collections
import contextlib
import weakref
from collections.abc import Generator, Iterator
from typing import Any

from timesformer_runtime.errors import InvalidVideoError, VideoLimitError
from timesformer_runtime.forks import call_in_forks
from timesformer_runtime.isolation.handover import Handover, handed_over
from timesformer_runtime.isolation.process import AccidentError, Job, ReaderProcess, Task
from timesformer_runtime.video.limits import DecodeLimits, time_limit_error
from timesformer_runtime.video.source import Source

# Seconds after its time limit in which a process may still report the error itself: one frame may
# keep the process busy until then.
_GRACE = 2.0


class Readers:
    """A pool of reader processes: as many processes as threads read videos at a time.

    Several threads may call the methods at once. The processes end with this object.

    Args:
        limits: Limits for reading one video.
        job_module: Name of the module in which the jobs are defined; each process imports it at its
            start.
    """

    def __init__(self, limits: DecodeLimits, job_module: str) -> None:
        self._limits = limits
        self._job_module = job_module
        self._free: collections.deque[ReaderProcess] = collections.deque()
        self._busy: set[ReaderProcess] = set()
        self._is_closed = False
        weakref.finalize(self, _end, self._free)
        call_in_forks(self, Readers._leave_to_parent)

    def single_answer(self, job: Job, video: Source, *, threads: int) -> Any:
        """Does a job that has one answer.

        If the process fails, an earlier video may be the cause: it may have damaged the memory of
        the process, or left little of it. The job then runs once more, in a new process.

        Args:
            job: A picklable function that takes the video and yields one answer.
            video: The video.
            threads: Number of decoding threads.

        Raises:
            InvalidVideoError: The process crashed or was killed.
            VideoLimitError: The video takes too much time or memory.
            Exception: Any error of the job, or of the check that was given to ``interruptible``.
        """
        is_retry = False
        with handed_over(video, self._limits) as handover:
            while True:
                with self._process(is_new=is_retry) as process:
                    had_other_videos = process.is_used
                    try:
                        (answer,) = self._answers(process, job, handover, threads)
                    except AccidentError as accident:
                        is_final = accident.kind == "time" or self._is_closed
                        if is_final or not had_other_videos:
                            raise self._error_of(accident, handover) from accident
                    else:
                        return answer
                is_retry = True

    def answers(
        self, job: Job, video: Source, limits: DecodeLimits, *, threads: int
    ) -> Generator[Any, None, None]:
        """Does a job that has many answers, in a new process.

        While the caller takes no answers, the process waits as soon as the socket's buffer is full.

        Args:
            job: A picklable function that takes the video and yields the answers.
            video: The video.
            limits: Limits for reading the whole video. In addition, each single answer may take no
                longer than the limits of this pool allow for a video.
            threads: Number of decoding threads.

        Raises:
            InvalidVideoError: The process crashed or was killed.
            VideoLimitError: The video takes too much time or memory.
            Exception: Any error of the job, or of the check that was given to ``interruptible``.
        """
        with handed_over(video, limits) as handover, self._process(is_new=True) as process:
            try:
                yield from self._answers(process, job, handover, threads)
            except AccidentError as accident:
                raise self._error_of(accident, handover) from accident

    def close(self) -> None:
        """Kills all processes, also busy ones; the pool then reads no more videos."""
        self._is_closed = True
        for process in list(self._busy):
            process.kill()
        _end(self._free)

    def _leave_to_parent(self) -> None:
        """Forgets the processes, in a forked process: they are the parent's."""
        for process in self._busy:
            atexit.unregister(process.kill)
        self._busy = set()
        self._free.clear()

    def _answers(
        self, process: ReaderProcess, job: Job, handover: Handover, threads: int
    ) -> Iterator[Any]:
        task = Task(job, handover.video, threads, self._limits.process_bytes)

        def seconds() -> float:
            return min(self._limits.time, handover.watch.seconds_left()) + _GRACE

        return process.answers(task, handover.descriptor, seconds, handover.watch.check_wanted)

    @contextlib.contextmanager
    def _process(self, *, is_new: bool) -> Iterator[ReaderProcess]:
        """Lends a process while the context lasts: one that is free, or a new one."""
        process = (None if is_new else self._next_free()) or ReaderProcess(self._job_module)
        self._busy.add(process)
        atexit.register(process.kill)  # so that no thread waits for the process at the end
        try:
            if self._is_closed:
                process.kill()
            yield process
        finally:
            atexit.unregister(process.kill)
            self._busy.discard(process)
            if process.is_free:
                self._free.append(process)
            else:
                process.end()
            if self._is_closed:
                _end(self._free)

    def _next_free(self) -> ReaderProcess | None:
        with contextlib.suppress(IndexError):
            while True:
                process = self._free.pop()
                if process.is_alive:
                    return process
                process.end()
        return None

    def _error_of(self, accident: AccidentError, handover: Handover) -> InvalidVideoError:
        name, limits = handover.video.name, self._limits
        if accident.kind == "time":
            return time_limit_error(name, limits.time)
        if accident.kind == "memory":
            return VideoLimitError(
                f"{name} takes more than {limits.process_bytes} bytes of memory to read; "
                "give a smaller video, or raise `max_process_bytes`"
            )
        return InvalidVideoError(
            f"{name} cannot be read: the process that read it {accident}; check where the file "
            "comes from, or convert it with another program"
        )


def _end(processes: collections.deque[ReaderProcess]) -> None:
    with contextlib.suppress(IndexError):
        while True:
            processes.pop().end()
