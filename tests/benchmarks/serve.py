"""Measures ``timesformer serve``: throughput against ``batch``, latency, memory, and its start.

    python -m tests.benchmarks.serve MODEL [--clips 8] [--rounds 5] [--requests 2000]

The service is a process of its own; the clients are threads of this one, which send the bytes of
10-second clips of the size of Kinetics' usual copies. ``batch`` reads the same clips from their
files, with the same model and threads, in this process, in turn with the service. Exits with 1
where a target is missed.
"""

from __future__ import annotations

import argparse
import itertools
import re
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from timesformer_runtime import VideoClassifier
from timesformer_runtime.model.cpu import granted_threads
from timesformer_runtime.workloads.workers import shared_threads, usual_workers

from tests.benchmarks import footage
from tests.benchmarks.turns import take_turns
from tests.service import ServiceProcess, served

_CLIENTS = (1, 4, 16)
_COMPARED = 4  # clients whose throughput is compared with that of batch
_WANTED = 0.95
_EARLY = 100  # requests after which memory counts as that of a warm service
_GROWTH = 1.05  # of memory, at most
_OWN_SECONDS = 1.0  # of the start, without the loading of the model
_SMALL = Path(__file__).parents[2] / "runtime/timesformer_runtime/sample_clips/cut.mp4"
_RESIDENT, _CPU = "process_resident_memory_bytes", "process_cpu_seconds_total"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--size", default="256x340", help="height x width")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=2000, help="for the memory")
    arguments = parser.parse_args()
    cores = granted_threads()
    with (
        tempfile.TemporaryDirectory() as folder,
        served(arguments.model, "--device", "cpu", "--queue", str(max(_CLIENTS))) as service,
        VideoClassifier.from_pretrained(
            arguments.model, device="cpu", threads=shared_threads(cores)
        ) as classifier,
    ):
        videos = footage.shots(Path(folder), arguments.clips, arguments.size)
        passed = [
            _start(service),
            _compare(service, classifier, cores, videos, arguments.rounds),
            _memory(service, arguments.requests),
        ]
    sys.exit(0 if all(passed) else 1)


def _start(service: ServiceProcess) -> bool:
    """Prints how long the start took; the CPU seconds do not depend on what else runs here."""
    cpu = service.metric(_CPU)
    loading = re.search(r"after (\S+) s of loading", service.lines[-1])
    assert loading is not None
    own = service.seconds - float(loading[1])
    print(
        f"start: {own:.2f} s and the loading of the model, {loading[1]} s; {cpu:.2f} CPU seconds "
        f"together; wanted: less than {_OWN_SECONDS:g} s and the loading"
    )
    return own < _OWN_SECONDS


def _compare(
    service: ServiceProcess,
    classifier: VideoClassifier,
    cores: int,
    videos: Sequence[Path],
    rounds: int,
) -> bool:
    """Prints throughput and latency; batch and the numbers of clients take turns."""
    bodies = [video.read_bytes() for video in videos]
    repeats = max(1, 2 * max(_CLIENTS) // len(videos))
    latencies: dict[int, list[float]] = {clients: [] for clients in _CLIENTS}

    cpu: dict[int, float] = dict.fromkeys((0, *_CLIENTS), 0.0)  # seconds; 0: batch

    def batch() -> float:
        start, used = time.perf_counter(), time.process_time()
        given = itertools.chain.from_iterable(itertools.repeat(videos, repeats))
        for outcome in classifier.batch(given, workers=usual_workers(cores)):
            assert outcome.result is not None
        cpu[0] += time.process_time() - used
        return time.perf_counter() - start

    def clients(number: int) -> float:
        used = service.metric(_CPU)
        start = time.perf_counter()
        latencies[number] += _ask(service, bodies * repeats, number)
        seconds = time.perf_counter() - start
        cpu[number] += service.metric(_CPU) - used
        return seconds

    runs = [batch, *(lambda number=number: clients(number) for number in _CLIENTS)]
    for run in runs:  # the first run fills caches
        run()
    for number in _CLIENTS:
        latencies[number].clear()
    cpu.update(dict.fromkeys(cpu, 0.0))
    whole, *served_ = take_turns(runs, rounds)
    count = len(videos) * repeats
    print(f"\n{count} clips a round, {rounds} rounds, {cores} cores; medians\n")
    each = {number: 1000 * seconds / (count * rounds) for number, seconds in cpu.items()}
    print("| | clips a second | of batch | CPU for a clip | p50 | p95 |")
    print("|---|--:|--:|--:|--:|--:|")
    print(f"| batch | {count / statistics.median(whole):.1f} | | {each[0]:.1f} ms | | |")
    ratios = {}
    for number, seconds in zip(_CLIENTS, served_, strict=True):
        # Of each round, so that what else runs on the machine meets both.
        ratios[number] = statistics.median(
            one / other for one, other in zip(whole, seconds, strict=True)
        )
        p50, p95 = _percentiles(latencies[number])
        print(
            f"| {number} client{'s' * (number > 1)} | {count / statistics.median(seconds):.1f} "
            f"| {ratios[number]:.2f} | {each[number]:.1f} ms | {1000 * p50:.0f} ms "
            f"| {1000 * p95:.0f} ms |"
        )
    print(f"\nwanted: at least {_WANTED} of batch with {_COMPARED} clients")
    return ratios[_COMPARED] >= _WANTED


def _percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(seconds, n=20, method="inclusive")
    return cuts[9], cuts[18]


def _memory(service: ServiceProcess, requests: int) -> bool:
    """Prints the memory of the service after some requests and after many."""
    body = _SMALL.read_bytes()
    _ask(service, [body] * _EARLY, _COMPARED)
    early = service.metric(_RESIDENT)
    _ask(service, [body] * (requests - _EARLY), _COMPARED)
    late = service.metric(_RESIDENT)
    print(
        f"\nmemory: {early / 1e6:.1f} MB after {_EARLY} requests, {late / 1e6:.1f} MB after "
        f"{requests}; wanted: at most {_GROWTH} times as much"
    )
    return late <= _GROWTH * early


def _ask(service: ServiceProcess, bodies: Sequence[bytes], clients: int) -> list[float]:
    """Sends requests from several clients at a time; returns the seconds of each."""
    waiting = iter(bodies)
    lock = threading.Lock()
    seconds: list[float] = []
    errors: list[str] = []

    def bodies_left() -> Iterator[bytes]:
        while True:
            with lock:
                body = next(waiting, None)
            if body is None:
                return
            yield body

    def client() -> None:
        with service.connect() as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for body in bodies_left():
                start = time.perf_counter()
                try:
                    head, text = _classify(connection, body)
                except (AssertionError, OSError) as error:
                    errors.append(repr(error))
                    return
                seconds.append(time.perf_counter() - start)
                if not head.startswith(b"HTTP/1.1 200 "):
                    errors.append(text.decode())

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]
    assert len(seconds) == len(bodies)
    return seconds


def _classify(connection: socket.socket, body: bytes) -> tuple[bytes, bytes]:
    """Sends a video; returns head and body of the answer.

    The clients share the cores with the service, so they do no more than they must: with
    ``http.client`` they take twice the processor time.
    """
    head = f"POST /v1/classify HTTP/1.1\r\nHost: service\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode())
    connection.sendall(body)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += _received(connection)
    found, _, text = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", found, re.IGNORECASE)
    assert length is not None
    while len(text) < int(length[1]):
        text += _received(connection)
    return found, text


def _received(connection: socket.socket) -> bytes:
    part = connection.recv(1 << 16)
    assert part, "the service closed the connection"
    return part


if __name__ == "__main__":
    main()
