"""Sample videos, a classifier that reads in other processes, and counts of such processes."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from timesformer_runtime import DecodeLimits, VideoClassifier

from tests.patience import PATIENCE
from tests.tiny_graphs import write_exported_model
from tests.traps import Trap
from tests.video_files import damage, moving_pictures, remux, write_video

COUNT = 40  # frames
WINDOW, STRIDE = 0.4, 0.2  # seconds


def write_samples(folder: Path) -> Path:
    """Writes the exported model ``shots``, intact videos, white videos and damaged videos."""
    write_exported_model(folder / "shots")
    frames = moving_pictures(COUNT)
    write_video(folder / "plain.mp4", frames)
    write_video(folder / "plain.avi", frames, codec="mpeg4")
    write_video(folder / "short.mkv", frames[:3])
    write_video(folder / "white.mp4", np.full_like(frames, 255))
    white_later = frames.copy()
    white_later[COUNT // 2 :] = 255
    write_video(folder / "white_later.mp4", white_later)
    remux(folder / "plain.mp4", folder / "truncated.mkv")
    data = (folder / "truncated.mkv").read_bytes()
    (folder / "truncated.mkv").write_bytes(data[: len(data) * 2 // 3])
    noise = np.random.default_rng(0).integers(0, 256, (COUNT, 48, 64, 3), dtype=np.uint8)
    damage(write_video(folder / "damaged.mp4", noise))
    (folder / "text.mp4").write_text("no video")
    (folder / "empty.mp4").write_bytes(b"")
    return folder


def load(
    folder: Path, trap: type[Trap] | None = None, log: Path | None = None, **limits: Any
) -> VideoClassifier:
    """Loads a classifier that reads in other processes; with ``trap``, white frames spring it."""
    classifier = VideoClassifier.from_pretrained(
        folder / "shots", device="cpu", threads=1, limits=DecodeLimits(isolated=True, **limits)
    )
    if trap is not None:
        classifier.input = trap.of(classifier.input, log)
    return classifier


def children(parent: int | None = None) -> set[int]:
    """The ids of a process's children, zombies included; by default of this process."""
    gc.collect()
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[1]) == (parent or os.getpid()):
                found.add(int(path.parent.name))
    return found


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def collect(classifier: VideoClassifier, source: Any, make: str) -> None:
    if make == "read":
        classifier.read(source)
    else:
        list(classifier.timeline(source, WINDOW, STRIDE))


def settled(log: Path) -> int:
    """The number of lines of a file, once it has stopped growing."""
    before, deadline = -1, time.monotonic() + PATIENCE
    while (count := log.read_bytes().count(b"\n")) != before:
        assert time.monotonic() < deadline, f"{log} still grows"
        before = count
        time.sleep(0.5)
    return count
