"""The work of ``timesformer batch --ray``: many videos on the machines of a Ray cluster.

Ray Data moves batches of paths to actors, and batches of records back to this process, which alone
writes them down. An actor that is killed, alone or with its machine, takes the batches with it on
which it works. When all others are done, a next pass does these videos again, one at a time, so
that a video that crashes the process costs no other one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import signal
import socket
import sys
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

from timesformer_runtime.errors import (
    ChildError,
    InvalidModelError,
    InvalidOptionError,
    TimesformerError,
)
from timesformer_runtime.extras import needs_extra
from timesformer_runtime.ray.columns import ClassifyVideos, Columns, error_of
from timesformer_runtime.source_names import shown
from timesformer_runtime.workloads.batch import Outcome

# Ray prints its logs of killed processes and machines on stdout, save those that this matches: all.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "^")  # read when Ray is imported

with needs_extra("ray"):
    import ray
    import ray.data
    from ray.exceptions import RayError

_MOST_IN_A_BATCH = 32  # videos: as many are done again after an actor ended
_BATCHES_FOR_EACH_ACTOR = 4  # at least, so that no actor waits long for the last one
_PATIENCE = 10.0  # seconds
_FRUITLESS_PASSES = 2  # over the videos whose actors ended, before these videos count as failed

Record = dict[str, Any]  # the keys of a line: those of a result, or "error"


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A Ray cluster, and the share of it that each actor gets.

    Attributes:
        actors: How many actors the machines that are there now can run.
        machines: How many machines are there now.
        threads: CPU threads of an actor.
        gpus: GPUs of an actor.
    """

    actors: int
    machines: int
    threads: int
    gpus: int


def connect(address: str, threads: int, *, gpu: bool = False) -> Cluster:
    """Connects to a Ray cluster, or starts one on this machine.

    Args:
        address: ``HOST:PORT`` of a cluster; ``auto`` for the one to which this machine belongs;
            ``local`` to start one on this machine; empty for the first that applies of
            the environment's ``RAY_ADDRESS``, ``auto`` and ``local``.
        threads: CPU threads of each actor.
        gpu: True where an actor needs a GPU.

    Raises:
        InvalidOptionError: No cluster answers at the address, or none of its machines has
            so many CPUs.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to Ray's makers unasked
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # of what its C++ prints on stderr
    _check_address(address or os.environ.get("RAY_ADDRESS", ""))
    try:
        with _silent_stderr(), _usual_end():
            ray.init(
                address or None,
                log_to_driver=False,
                include_dashboard=False if address in {"", "local"} else None,
                logging_level=logging.CRITICAL,
            )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _no_cluster(address, error) from error
    needed = {"CPU": threads, **({"GPU": 1} if gpu else {})}
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    actors = sum(_actors_on(machine, needed) for machine in machines)
    if not actors:
        most = ", ".join(f"{max(m.get(kind, 0) for m in machines):g} {kind}s" for kind in needed)
        ray.shutdown()
        raise InvalidOptionError(
            f"`threads` is {threads}{' and an actor needs a GPU' if gpu else ''}; the largest "
            f"machine of the cluster has {most}"
        )
    return Cluster(actors, len(machines), threads, int(gpu))


def _check_address(address: str) -> None:
    """Makes sure that something answers there: Ray itself would try for minutes.

    Raises:
        InvalidOptionError: Nothing answers at the address.
    """
    host, colon, port = address.rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host, int(port)), _PATIENCE).close()
    except (OSError, ValueError) as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: Exception) -> InvalidOptionError:
    return InvalidOptionError(
        f"`ray` is {address!r}: no cluster answers there ({error}); start one with "
        "`ray start --head`, or leave the address out"
    )


def _actors_on(machine: Mapping[str, float], needed: Mapping[str, int]) -> int:
    """Says how many actors a machine can run at a time."""
    return min(int(machine.get(kind, 0) // count) for kind, count in needed.items())


def classify_on(
    cluster: Cluster, videos: Sequence[str], arguments: Mapping[str, Any], fingerprint: str
) -> Generator[tuple[str, Record], None, None]:
    """Classifies videos on a cluster; disconnects at the end.

    Args:
        cluster: The cluster to which this process is connected.
        videos: Paths that lead to the videos on all machines.
        arguments: Those of ``ClassifyVideos``.
        fingerprint: That of the model, which must be the same on all machines.

    Returns:
        Each video once, with its record, in the order in which batches are done.

    Raises:
        TimesformerError: An actor cannot load the model, or the cluster went away.
    """
    try:
        yield from _in_passes(cluster, videos, {**arguments, "expected": fingerprint})
    finally:
        ray.shutdown()


def _in_passes(
    cluster: Cluster, videos: Sequence[str], arguments: Mapping[str, Any]
) -> Iterator[tuple[str, Record]]:
    left = dict(enumerate(videos))
    size = min(max(1, len(videos) // (cluster.actors * _BATCHES_FOR_EACH_ACTOR)), _MOST_IN_A_BATCH)
    fruitless = 0
    failure: RayError | None = None  # of the newest pass
    while left and fruitless < _FRUITLESS_PASSES:
        before, failure = len(left), None
        try:
            for number, record in _one_pass(cluster, left, arguments, size):
                if number in left:
                    video = left.pop(number)
                    yield video, _as_named(video, record)
        except RayError as error:
            failure = error
        else:
            size = 1
        fruitless = fruitless + 1 if len(left) == before else 0
    if failure is not None and left:
        raise ChildError(
            f"the cluster gave up {len(left)} videos: {_first_line(failure)}; start again: the "
            "others are not done again"
        ) from failure
    for video in left.values():
        reason = "each process that worked on it was killed, as by a crash or for lack of memory"
        yield video, {"error": f"{shown(video)}: {reason}; try `isolated`"}


def _one_pass(
    cluster: Cluster, left: Mapping[int, str], arguments: Mapping[str, Any], size: int
) -> Iterator[tuple[int, Record]]:
    """Gives the videos in ``left`` that one run of Ray Data did, by number."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    _silence("ray.data")
    context.max_errored_blocks = -1  # a batch whose actor ended is left to the next pass
    rows = [{"number": number, "path": os.fsencode(_path(video))} for number, video in left.items()]
    videos = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // size))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray 2.60 has no other way to limit retries
        results = videos.map_batches(
            _Records,
            fn_constructor_kwargs=dict(arguments),
            batch_size=size,
            compute=ray.data.ActorPoolStrategy(
                min_size=1,
                initial_size=min(cluster.actors, len(rows)),
                max_size=max(cluster.actors, len(rows)),
                max_tasks_in_flight_per_actor=2 if size > 1 else 1,
            ),
            num_cpus=cluster.threads,
            num_gpus=cluster.gpus,
            max_restarts=-1,
            max_task_retries=0,  # a video that crashes its process would do so for ever
        )
    for batch in results.iter_batches(batch_size=None, prefetch_batches=0):
        for number, record in zip(batch["number"], batch["record"], strict=True):
            found = json.loads(record)
            if "refused" in found:
                raise InvalidModelError(found["refused"])
            yield int(number), found


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Discards what the process writes on stderr; Ray's C++ greets there, whatever its level."""
    if sys.stderr is not None:
        sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextlib.contextmanager
def _usual_end() -> Iterator[None]:
    """Undoes what Ray does about SIGTERM: it prints a stack of C++, and may then abort."""
    usual = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, usual)


def _silence(name: str) -> None:
    """Keeps a library's log off stderr; its log files stay."""
    for handler in logging.getLogger(name).handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL + 1)


class _Records(ClassifyVideos):
    """Makes the records of a results file, as JSON, of videos by number and path.

    A model that does not load, or that differs from the one of the process that writes the results,
    is the record of each video: an error of the constructor would reach that process as a traceback
    in the middle of others.
    """

    def __init__(self, *, expected: str, **arguments: Any) -> None:
        self._refusal: str | None = None
        try:
            super().__init__(**arguments)
            if self.classifier.fingerprint() != expected:
                self._refusal = (
                    f"{self.classifier.name}: the model on {_host()} is not that of the machine "
                    "that runs the command; copy it there, and name its .onnx file as the model"
                )
        except TimesformerError as error:
            self._refusal = f"on {_host()}: {error}"

    def __call__(self, batch: Mapping[str, Any]) -> Columns:
        if self._refusal is not None:
            records: list[Record] = [{"refused": self._refusal}] * len(batch["number"])
        else:
            paths = map(os.fsdecode, batch["path"])
            records = [_record(outcome) for outcome in self.outcomes(paths)]
        return {"number": batch["number"], "record": [json.dumps(record) for record in records]}


def _record(outcome: Outcome) -> Record:
    if outcome.result is None:
        return {"error": error_of(outcome)}
    return outcome.result.to_dict()


def _path(video: str) -> str:
    """Makes a path absolute: an actor has another current folder; a URL stays as it is."""
    return video if shown(video) != video else os.path.abspath(video)  # noqa: PTH100


def _as_named(video: str, record: Record) -> Record:
    """Names the video in an error as the user does."""
    if "error" not in record:
        return record
    return {"error": record["error"].replace(_path(video), video)}


def _host() -> str:
    return str(ray.util.get_node_ip_address())


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
