"""Readers: reader processes, each of which reads one video after the other."""

from __future__ import annotations

import atexit
import collections
import contextlib
import weakref
from collections.abc import Generator, Iterator
from typing import Any

from timesformer_runtime.errors import InvalidVideoError, VideoLimitError
from timesformer_runtime.isolation.handover import Handover, handed_over
from timesformer_runtime.isolation.process import AccidentError, Job, ReaderProcess, Task
from timesformer_runtime.video.limits import DecodeLimits, time_is_over
from timesformer_runtime.video.source import Source

# Seconds that a process has for its own error once the time is over: it may be busy with a frame.
_GRACE = 2.0


class Readers:
    """Reader processes: as many as read at a time.

    Its methods may be called from several threads at once. The processes end with this object.

    Args:
        limits: What reading one video may cost.
    """

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits
        self._free: collections.deque[ReaderProcess] = collections.deque()
        self._busy: set[ReaderProcess] = set()
        self._is_closed = False
        weakref.finalize(self, _end, self._free)

    def only_answer(self, job: Job, video: Source, *, threads: int) -> Any:
        """Does a job that has one answer; once more where an earlier video may be why it failed.

        That video may have damaged the memory of the process, or left little of it.

        Args:
            job: Is given the video, and gives its one answer.
            video: The video.
            threads: How many threads decode.

        Raises:
            InvalidVideoError: The process crashed or was killed.
            VideoLimitError: The video takes too much time or memory.
            Exception: Whatever the job raises.
        """
        is_again = False
        with handed_over(video, self._limits) as handover:
            while True:
                with self._process(is_new=is_again) as process:
                    may_be_innocent = process.is_used
                    try:
                        (answer,) = self._answers(process, job, handover, threads)
                    except AccidentError as accident:
                        is_final = accident.kind == "time" or self._is_closed
                        if is_final or not may_be_innocent:
                            raise self._error_of(accident, handover) from accident
                    else:
                        return answer
                is_again = True

    def answers(
        self, job: Job, video: Source, limits: DecodeLimits, *, threads: int
    ) -> Generator[Any, None, None]:
        """Does a job that has many answers, in a new process.

        The process waits while its answers are not taken: one that does not fit on the way holds
        it up.

        Args:
            job: Is given the video, and gives the answers.
            video: The video.
            limits: What all of it may cost. Each answer has the usual time, too.
            threads: How many threads decode.

        Raises:
            InvalidVideoError: The process crashed or was killed.
            VideoLimitError: The video takes too much time or memory.
            Exception: Whatever the job raises.
        """
        with handed_over(video, limits) as handover, self._process(is_new=True) as process:
            try:
                yield from self._answers(process, job, handover, threads)
            except AccidentError as accident:
                raise self._error_of(accident, handover) from accident

    def close(self) -> None:
        """Ends all processes, whatever they do: their videos are given up, and no more are read."""
        self._is_closed = True
        for process in list(self._busy):
            process.kill()
        _end(self._free)

    def _answers(
        self, process: ReaderProcess, job: Job, handover: Handover, threads: int
    ) -> Iterator[Any]:
        task = Task(job, handover.video, threads, self._limits.process_bytes)

        def seconds() -> float:
            return min(self._limits.time, handover.watch.seconds_left()) + _GRACE

        return process.answers(task, handover.descriptor, seconds)

    @contextlib.contextmanager
    def _process(self, *, is_new: bool) -> Iterator[ReaderProcess]:
        """Lends a process: one that is free, or a new one."""
        process = (None if is_new else self._next_free()) or ReaderProcess()
        self._busy.add(process)
        atexit.register(process.kill)  # no thread waits for it when the interpreter ends
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
            return time_is_over(name, limits.time)
        if accident.kind == "memory":
            return VideoLimitError(
                f"{name} takes more than {limits.process_bytes} bytes of memory to read; "
                "give a smaller video, or raise max_process_bytes"
            )
        return InvalidVideoError(
            f"{name} cannot be read: the process that read it {accident}; check where the file "
            "comes from, or convert it with another program"
        )


def _end(processes: collections.deque[ReaderProcess]) -> None:
    with contextlib.suppress(IndexError):
        while True:
            processes.pop().end()
