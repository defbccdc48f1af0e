"""Measures ``timeline --shots`` on films of real shots whose transitions are known.

    python -m tests.benchmarks.shots MODEL [--clips DIR] [--peers PYTHON] [--half test] [--short]

DIR has the real clips that ``shot_films.py`` names; by default ``$TIMESFORMER_TEST_CLIPS`` says
where it is. The bundled models never saw a real video: they were trained on drawn scenes. The
numbers of the search were chosen on ``--half tuning --seed 1``; the half ``test`` has other videos.

With a Python that has ``scenedetect`` and ``opencv-python-headless``, as ``--peers`` names it,
PySceneDetect's detectors run on the same files, each with its defaults:

    python3 -m venv peers && peers/bin/pip install scenedetect==0.7.2 opencv-python-headless

A transition counts as found if the middle of a detection lies in it, or up to two frames before or
after; each detection counts once. All other detections are false.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from timesformer_runtime import VideoClassifier
from timesformer_runtime.shots import find_shots

from tests.benchmarks.shot_films import Film, Known, make_films

TOLERANCE = 2  # frames
_KINDS = ("cut", "dissolve", "fade", "wipe")
Span = tuple[int, int]  # the first frame and the last


@dataclasses.dataclass(frozen=True)
class Score:
    """How well detections agree with the known transitions of some films.

    Attributes:
        pairs: Each found transition with its detection.
        missed: The transitions that were not found.
        false: Number of detections that are no transition's.
    """

    pairs: tuple[tuple[Known, Span], ...]
    missed: tuple[Known, ...]
    false: int

    @property
    def f1(self) -> float:
        found = len(self.pairs)
        return 2 * found / max(1, 2 * found + self.false + len(self.missed))

    def found(self, kind: str) -> str:
        """The number of found transitions of a kind, and of all of that kind."""
        found = sum(known.kind == kind for known, _ in self.pairs)
        return f"{found}/{found + sum(known.kind == kind for known in self.missed)}"


def score(films: Sequence[Film], detections: Sequence[Sequence[Span]]) -> Score:
    """Compares the detections in each film with its transitions."""
    pairs: list[tuple[Known, Span]] = []
    missed: list[Known] = []
    false = 0
    for film, spans in zip(films, detections, strict=True):
        left = list(spans)
        for known in film.transitions:
            middle = (known.first + known.last) / 2
            near = [
                span
                for span in left
                if known.first - TOLERANCE <= sum(span) / 2 <= known.last + TOLERANCE
            ]
            if not near:
                missed.append(known)
                continue
            best = min(near, key=lambda span: abs(sum(span) / 2 - middle))
            left.remove(best)
            pairs.append((known, best))
        false += len(left)
    return Score(tuple(pairs), tuple(missed), false)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--clips", type=Path, default=os.environ.get("TIMESFORMER_TEST_CLIPS"))
    parser.add_argument("--peers", metavar="PYTHON", help="a Python that has scenedetect")
    parser.add_argument("--half", choices=("tuning", "test"), default="test")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--films", type=int, default=10)
    parser.add_argument("--shots", type=int, default=22, help="of a film")
    parser.add_argument(
        "--short", action="store_true", help="dissolves and wipes of 2 to 7 frames, not 8 to 40"
    )
    arguments = parser.parse_args()
    if arguments.clips is None:
        parser.error("name the folder of the real clips: --clips DIR")
    with tempfile.TemporaryDirectory() as folder:
        films = make_films(
            Path(arguments.clips),
            Path(folder),
            arguments.half,
            arguments.films,
            arguments.shots,
            arguments.seed,
            short=arguments.short,
        )
        seconds = sum(film.frames / film.rate for film in films)
        shots = sum(len(film.transitions) + 1 for film in films)
        print(f"{shots} shots in {len(films)} films, {seconds:.0f} seconds, half {arguments.half}")
        print("| | F1 | false | " + " | ".join(_KINDS) + " |")
        print("|---|--:|--:|" + "--:|" * len(_KINDS))
        if arguments.peers:
            for name, found in _peers(arguments.peers, films).items():
                _print_row(name, score(films, found))
        start = time.perf_counter()
        own = score(films, _own(arguments.model, films))
        _print_row("timesformer", own)
        print(f"\n{(time.perf_counter() - start) / seconds:.2f} seconds for a second of video")
        _print_errors(own)


def _own(model: str, films: Sequence[Film]) -> list[list[Span]]:
    with VideoClassifier.from_pretrained(model, threads=1) as classifier:
        lists = [find_shots(classifier, str(film.path), workers=2) for film in films]
    return [[(found.first, found.last) for found in one.transitions] for one in lists]


def _peers(python: str, films: Sequence[Film]) -> dict[str, list[list[Span]]]:
    script = Path(__file__).with_name("scenedetect_peer.py")
    done = subprocess.run(
        [python, str(script), *(str(film.path) for film in films)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, list[list[int]]] = json.loads(done.stdout)
    return {
        name: [[(frame, frame) for frame in frames] for frames in of_films]
        for name, of_films in found.items()
    }


def _print_row(name: str, result: Score) -> None:
    kinds = " | ".join(result.found(kind) for kind in _KINDS)
    print(f"| {name} | {result.f1:.3f} | {result.false} | {kinds} |", flush=True)


def _print_errors(result: Score) -> None:
    cuts = [abs(span[0] - known.first) for known, span in result.pairs if known.kind == "cut"]
    gradual = [(known, span) for known, span in result.pairs if known.kind != "cut"]
    print(f"cuts on the exact frame: {cuts.count(0)} of {len(cuts)}, error at most {max(cuts)}")
    for name, errors in (
        ("first", [abs(span[0] - known.first) for known, span in gradual]),
        ("last", [abs(span[1] - known.last) for known, span in gradual]),
    ):
        print(
            f"{name} frame of gradual transitions: {np.mean(errors):.1f} frames off in the mean, "
            f"{np.median(errors):.0f} in the median, {np.percentile(errors, 90):.0f} at 90 %"
        )


if __name__ == "__main__":
    main()
