"""InThisProcess: reads videos where ``isolated`` is not set."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from timesformer_runtime.video.limits import DecodeLimits

if TYPE_CHECKING:  # these modules are for other processes
    from timesformer_runtime.isolation.process import Job
    from timesformer_runtime.video.source import Source


class InThisProcess:
    """Does the jobs of ``Readers`` in this process, so that callers need not tell them apart."""

    def single_answer(self, job: Job, video: Source, *, threads: int) -> Any:  # noqa: ARG002
        """Does a job that has one answer; ``threads`` is for other processes."""
        (answer,) = job(video)
        return answer

    def answers(
        self,
        job: Job,
        video: Source,
        limits: DecodeLimits,  # noqa: ARG002
        *,
        threads: int,  # noqa: ARG002
    ) -> Generator[Any, None, None]:
        """Does a job that has many answers; ``limits`` and ``threads`` are for other processes."""
        yield from job(video)

    def close(self) -> None:
        """Does nothing, because this class starts no process that could be ended."""
