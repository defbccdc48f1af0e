"""Compares reading videos in another process with reading them in this one.

    python -m tests.benchmarks.isolated MODEL [--rounds 15]

A short sample clip and a shot of 10 seconds of 1280x720 are read by one thread, in turn: in this
process, in a reader process that read others before, and in a new one for each video. The model
does not run. A process that reads many videos starts only once: the last column gives the number of
videos from which on the start takes less than a tenth of the time of reading.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from pathlib import Path

from timesformer_runtime import DecodeLimits, VideoClassifier

from tests.benchmarks import footage
from tests.benchmarks.turns import take_turns

_SAMPLE = Path(__file__).parents[2] / "runtime/timesformer_runtime/sample_clips/cut.mp4"
_TENTH = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    plain = VideoClassifier.from_pretrained(arguments.model, device="cpu")
    isolated = VideoClassifier.from_pretrained(
        arguments.model, device="cpu", limits=DecodeLimits(isolated=True)
    )
    print("| video | this process | long-lived process | new process | start | pays from |")
    print("|---|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        shot = footage.shot(Path(folder, "720p.mp4"), 720, 1280)
        for video in (_SAMPLE, shot):
            print(_row(plain, isolated, video, arguments.rounds))


def _row(plain: VideoClassifier, isolated: VideoClassifier, video: Path, rounds: int) -> str:
    def in_this() -> float:
        return _seconds(plain, video)

    def in_another() -> float:
        return _seconds(isolated, video)

    def in_a_new_one() -> float:
        readers = isolated.new_readers()
        assert readers is not None
        start = time.perf_counter()
        isolated.read(video, threads=1, readers=readers)
        readers.close()
        return time.perf_counter() - start

    in_another()  # starts the process
    here, there, anew = map(
        statistics.median, take_turns([in_this, in_another, in_a_new_one], rounds)
    )
    videos = math.ceil((anew - there) / (_TENTH * here))
    return (
        f"| {video.name} | {here * 1e3:.1f} ms | {there / here:.2f} times as long | "
        f"{anew / here:.1f} times as long | {(anew - there) * 1e3:.0f} ms | {videos} videos |"
    )


def _seconds(classifier: VideoClassifier, video: Path) -> float:
    start = time.perf_counter()
    classifier.read(video, threads=1)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
