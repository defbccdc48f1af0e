"""Measures many cameras on one model: fairness, drops, latency, memory of each further source.

    python -m tests.benchmarks.cameras MODEL [--sources 16] [--seconds 60]
    python -m tests.benchmarks.cameras MODEL --soak 5m      # 1h, 72h

Another process on the same processor sends MPEG-TS over loopback UDP, encoded before; with --rtsp,
the small server of ``tests.live_sources`` sends one film to all of them. The exit code is 1 if a
source starves (its windows less than 0.8 of another one's), or if a further source takes 30 MB or
more.

With --soak the senders die, stall and send garbage, and a webhook that fails at random gets the
events. The exit code is 1 if memory, threads or open files grow, or if an event does not arrive or
arrives twice. Only the last quarter counts against the second, as in ``soak``. Give it five minutes
at least: FFmpeg first fills a buffer of 5 MB for each source.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from timesformer_runtime import VideoClassifier
from timesformer_runtime.cameras.delivery import Delivery
from timesformer_runtime.cameras.receivers import WebhookSettings
from timesformer_runtime.cameras.settings import SourceSettings
from timesformer_runtime.cameras.spool import Spool
from timesformer_runtime.cameras.watching import Cameras
from timesformer_runtime.cameras.webhook import Webhook
from timesformer_runtime.cli.limit_options import duration
from timesformer_runtime.results import Ranking
from timesformer_runtime.workloads.windows import WindowSettings

from tests.benchmarks.soak import Reading, growth
from tests.camera_senders import free_ports, senders, urls_of
from tests.live_sources import RATE, live_source, port_of, sender
from tests.webhook_server import WebhookServer

_SIZE, _RATE = (640, 360), 15
_LEAST_FAIRNESS, _MOST_MEGABYTES = 0.8, 30.0
_READINGS = 40
_BROKEN_SHARE = 0.05  # of the webhook's answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--sources", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--window", type=float, default=2.0)
    parser.add_argument("--stride", type=float, default=1.0)
    parser.add_argument(
        "--rtsp", action="store_true", help="one film over RTSP, 25 frames a second"
    )
    parser.add_argument("--soak", type=duration, help="for this long, such as 5m, 1h or 72h")
    arguments = parser.parse_args()
    if arguments.soak is None:
        sys.exit(_measure(arguments))
    sys.exit(_soak(arguments.model, arguments.sources, arguments.soak))


def _measure(arguments: argparse.Namespace) -> int:
    windows = WindowSettings(arguments.window, arguments.stride)
    classifier = VideoClassifier.from_pretrained(arguments.model)
    latencies: list[float] = []
    with contextlib.ExitStack() as stack:
        urls = stack.enter_context(_sending(arguments.sources, rtsp=arguments.rtsp))
        sources = [
            SourceSettings(f"camera{number:02}", url, windows) for number, url in enumerate(urls)
        ]
        cameras = stack.enter_context(Cameras(classifier, sources[:1], Ranking(), print))
        results = cameras.results()
        _watch(results, 0.25 * arguments.seconds, latencies)
        alone = _resident_megabytes()
        cameras.update(sources)
        _watch(results, 0.25 * arguments.seconds, latencies)  # connecting is not measured
        before = {name: count.windows for name, count in cameras.counts().items()}
        skipped = sum(count.skipped for count in cameras.counts().values())
        latencies.clear()
        busy, start = time.process_time(), time.monotonic()
        _watch(results, arguments.seconds, latencies)
        passed = time.monotonic() - start
        cores = (time.process_time() - busy) / passed
        counts = cameras.counts()
        all_together = _resident_megabytes()
    windows_of = {name: counts[name].windows - before[name] for name in counts}
    share = min(windows_of.values()) / max(1, *windows_of.values())
    each = (all_together - alone) / max(1, len(sources) - 1)
    skipped = sum(count.skipped for count in counts.values()) - skipped
    rate = RATE if arguments.rtsp else _RATE
    print(f"sources         {len(sources)} of {_SIZE[0]}x{_SIZE[1]} at {rate} a second")
    print(f"windows         {sum(windows_of.values())} in {passed:.0f} s, {skipped} skipped")
    print(f"of a source     {min(windows_of.values())} to {max(windows_of.values())}")
    print(f"least to most   {share:.2f} (at least {_LEAST_FAIRNESS})")
    print(f"failed packets  {sum(count.failed_packets for count in counts.values())}")
    print(f"latency         median {statistics.median(latencies):.2f} s, most {max(latencies):.2f}")
    print(f"cores used      {cores:.2f}")
    print(f"memory          {alone:.0f} MB with one source, {all_together:.0f} MB with all")
    print(f"further source  {each:.1f} MB (below {_MOST_MEGABYTES:g})")
    return int(share < _LEAST_FAIRNESS or each >= _MOST_MEGABYTES)


@contextlib.contextmanager
def _sending(count: int, *, rtsp: bool) -> Iterator[list[str]]:
    """Gives the addresses of as many senders; with RTSP, one film comes to all readers."""
    if not rtsp:
        ports = free_ports(count)
        with senders(*_SIZE, _RATE, ports):
            yield urls_of(ports)
        return
    with live_source("rtsp") as server:
        url = f"rtsp://127.0.0.1:{port_of(server)}/live"
        with sender(url, "send", *reversed(_SIZE)):
            yield [url] * count


def _watch(results: Iterator[Any], seconds: float, latencies: list[float]) -> None:
    end = time.monotonic() + seconds
    for result in results:
        if result is not None and result.result is not None:
            latencies.append(result.result.latency)
        if time.monotonic() > end:
            return


class _BrokenServer(WebhookServer):
    """Fails at random while ``breaks`` is set."""

    breaks = True

    def answer(self, body: dict[str, Any], headers: dict[str, str]) -> int:
        if self.breaks and random.random() < _BROKEN_SHARE:
            self.statuses.insert(0, random.choice((500, 503, 429)))
        return super().answer(body, headers)


def _soak(model: str, count: int, seconds: float) -> int:
    """Runs the command itself, and looks at its process from outside."""
    ports = free_ports(count)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        server = _BrokenServer()
        server.start()
        stack.callback(server.stop)
        stack.enter_context(senders(*_SIZE, _RATE, ports, "--bad"))
        names = [f"camera{number:02}={url}" for number, url in enumerate(urls_of(ports))]
        command = [
            *(sys.executable, "-m", "timesformer_runtime", "stream", model, *names),
            *("--window", "1s", "--stride", "1s", "--timeout", "3s", "--events"),
            *("--enter", "0.5", "--leave", "0.3"),
            *("--webhook", server.url, "--spool", f"{folder}/spool"),
        ]
        log = stack.enter_context(Path(folder, "log").open("w+"))
        process = stack.enter_context(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        )
        stack.callback(process.kill)
        printed: list[str] = []
        reader = threading.Thread(target=_read_ids, args=(process.stdout, printed), daemon=True)
        reader.start()
        readings = _readings(process.pid, seconds, printed)
        process.terminate()
        reader.join()
        code = process.wait()
        server.breaks = False
        log.seek(0)
        lines = log.read().splitlines()
        _deliver_rest(folder, server)
    taken = [event["id"] for event in server.taken]
    starts = {each for each in printed if each.endswith(":start")}
    ends = {each for each in printed if each.endswith(":end")}
    problems = growth(readings)
    if code != 0:
        problems.append(f"exit code {code}")
    if set(taken) != set(printed):
        problems.append(f"{len(set(printed) ^ set(taken))} events are not with the receiver")
    if len(taken) != len(set(taken)):
        problems.append(f"{len(taken) - len(set(taken))} events came twice")
    if {each.removesuffix(":start") for each in starts} != {
        each.removesuffix(":end") for each in ends
    }:
        problems.append("a start has no end")
    for reading in readings[:: max(1, len(readings) // 10)]:
        print(f"{reading.done:>8} events  {reading.memory:7.1f} MB  {reading.threads} threads  "
              f"{reading.files} files")  # fmt: skip
    print("\n".join(lines[-(count + 2) :]))
    print(f"events          {len(printed)}, taken {len(taken)}, asked {len(server.seen)} times")
    print("\n".join(problems) or "flat, and all events once")
    return int(bool(problems))


def _readings(pid: int, seconds: float, printed: list[str]) -> list[Reading]:
    found = []
    for _ in range(_READINGS):
        time.sleep(seconds / _READINGS)
        threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
        files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        found.append(Reading(len(printed), _resident_megabytes(pid), 0.0, threads, files, 0))
    return found


def _read_ids(pipe: Any, printed: list[str]) -> None:
    printed.extend(json.loads(line)["id"] for line in pipe)


def _deliver_rest(folder: str, server: WebhookServer) -> None:
    """Delivers what waits in the spool at the end, as the next start of the command does."""
    spool = Spool(Path(folder) / "spool", ["webhook"], 10**6)
    delivery = Delivery(spool, Webhook(WebhookSettings(server.url)), lambda _: None)
    spool.wait_until_empty(600.0)
    delivery.close(10.0)
    spool.close()


def _resident_megabytes(pid: int | str = "self") -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 1e6


if __name__ == "__main__":
    main()
