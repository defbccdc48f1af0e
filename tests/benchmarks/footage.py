"""Rendered videos for benchmarks of whole files: shots, and long videos made of one shot."""

from __future__ import annotations

from pathlib import Path

import av
import av.stream
import numpy as np

from models.shot_transitions.clips import encode
from models.shot_transitions.scenes import Scene

RATE = 30
SHOT_SECONDS = 10


def shot(path: Path, height: int, width: int, seed: int = 0) -> Path:
    """Writes one shot of 10 seconds: 30 frames a second, H.264."""
    scene = Scene(np.random.default_rng(seed), height, width, SHOT_SECONDS)
    frames = [scene.frame(number / RATE) for number in range(RATE * SHOT_SECONDS)]
    path.write_bytes(encode(frames, RATE, crf=23, preset="medium"))
    return path


def shots(folder: Path, count: int, size: str) -> list[Path]:
    """Writes different shots.

    Args:
        folder: Where to.
        count: How many.
        size: Height and width in pixels, such as ``256x340``.
    """
    height, width = map(int, size.split("x"))
    return [shot(folder / f"{seed}.mp4", height, width, seed) for seed in range(count)]


def repeated(source: Path, path: Path, times: int) -> Path:
    """Writes the packets of a video ``times`` times, one after the other, as one long video."""
    with av.open(str(source)) as given, av.open(str(path), "w") as output:
        stream = given.streams.video[0]
        copy = output.add_stream_from_template(stream)
        for number in range(times):
            given.seek(0)
            for packet in given.demux(stream):
                if packet.pts is None or packet.dts is None or stream.duration is None:
                    continue
                packet.pts += number * stream.duration
                packet.dts += number * stream.duration
                packet.stream = copy
                output.mux(packet)
    return path
