"""Measures a live stream: the delay of labels, dropped frames, and the growth of memory.

    python -m tests.benchmarks.live MODEL [--seconds 60] [--height 720] [--width 1280]

A process of its own encodes and sends 25 frames a second over the loopback interface, on the same
processor.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from pathlib import Path

import numpy as np
from timesformer_runtime import VideoClassifier
from timesformer_runtime.workloads.stream import LiveResult

from tests.live_sources import free_udp_url, sender

_SETTLED = 10  # windows after which memory should not grow


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--window", type=float, default=2.0)
    parser.add_argument("--stride", type=float, default=0.5)
    arguments = parser.parse_args()

    classifier = VideoClassifier.from_pretrained(arguments.model)
    url = free_udp_url()
    stream = classifier.stream(url, window=arguments.window, stride=arguments.stride)
    results: list[LiveResult] = []
    memory = []
    with sender(url, "send", arguments.height, arguments.width), contextlib.closing(stream):
        start, busy = time.monotonic(), time.process_time()
        for result in stream:
            results.append(result)
            memory.append(_resident_megabytes())
            if time.monotonic() > start + arguments.seconds:
                break
        cores = (time.process_time() - busy) / (time.monotonic() - start)
    _report(results, memory, cores)


def _report(results: list[LiveResult], memory: list[float], cores: float) -> None:
    latencies = np.array([result.latency for result in results])
    median, late = np.percentile(latencies, [50, 95])
    print(f"windows         {len(results)}")
    print(f"skipped         {sum(result.skipped_windows for result in results)}")
    print(f"latency         median {median:.3f} s, 95 % {late:.3f} s, most {latencies.max():.3f} s")
    print(f"frames dropped  {sum(result.dropped_frames for result in results)}")
    print(f"cores used      {cores:.2f}")
    settled = memory[min(_SETTLED, len(memory) - 1)]
    print(f"memory          {memory[-1]:.0f} MB, {memory[-1] - settled:+.1f} MB since it settled")


def _resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


if __name__ == "__main__":
    main()
