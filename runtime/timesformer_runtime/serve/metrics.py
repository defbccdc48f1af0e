"""Metrics: what the service counts and measures, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from timesformer_runtime.extras import needs_extra
from timesformer_runtime.results import Seconds

with needs_extra("serve"):
    from prometheus_client import (
        CollectorRegistry,
        Counter,
        Gauge,
        Histogram,
        ProcessCollector,
        generate_latest,
    )

# Seconds: from a tiny model's run to a long video.
_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


class Metrics:
    """The counters of one service, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)  # memory, processor time, open files; on Linux
        self._requests = Counter(
            "timesformer_requests",
            "Requests by route, method and status.",
            ("route", "method", "status"),
            registry=self._registry,
        )
        self._errors = Counter(
            "timesformer_errors",
            "Requests that failed, by the kind of the error.",
            ("kind",),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "timesformer_step_seconds",
            "Seconds of a request's steps: queue (until a worker is free), decode, preprocess, "
            "model_queue (until the model may run), inference.",
            ("step",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._places = Gauge(
            "timesformer_requests_active",
            "Requests that have a place.",
            registry=self._registry,
        )
        self._queue = Gauge(
            "timesformer_queue_length",
            "Requests that have a place beyond those that can be worked on.",
            registry=self._registry,
        )

    def watch_places(self, taken: Callable[[], int], workers: int) -> None:
        """Takes the number of requests that are there from a function, whenever someone asks."""
        self._places.set_function(taken)
        self._queue.set_function(lambda: max(0, taken() - workers))

    def count_request(self, route: str, method: str, status: int) -> None:
        """Counts an answered request; ``route`` is the pattern of its path, not the path."""
        self._requests.labels(route, method, str(status)).inc()

    def count_error(self, kind: str) -> None:
        """Counts a failure; ``kind`` is one of few words."""
        self._errors.labels(kind).inc()

    def observe(self, step: str, seconds: float) -> None:
        """Adds the seconds of one step."""
        self._seconds.labels(step).observe(seconds)

    def observe_all(self, seconds: Seconds) -> None:
        """Adds the seconds of the steps of a result."""
        self.observe("decode", seconds.decode)
        self.observe("preprocess", seconds.preprocess)
        self.observe("inference", seconds.inference)

    def text(self) -> bytes:
        """Writes everything in Prometheus' text format."""
        return generate_latest(self._registry)
