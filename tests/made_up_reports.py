"""Reports of evaluations with made-up answers, for the checks in a browser.

python -m tests.made_up_reports FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from timesformer_runtime.evaluate.metrics import compare, measure
from timesformer_runtime.evaluate.report import write_report

from tests.evaluation_lines import line_of, random_lines, unreadable

# Names as strangers' files have them: markup, quotes, a right-to-left override, Arabic, no spaces.
HOSTILE = [
    "<script>document.title = 'broken'</script>",
    "</script><img src=x onerror=\"document.title = 'broken'\">",
    "\"double\" & 'single' {{ 7 * 7 }} <!-- ${1}",
    "\u202eright\u202d to left",
    "\u0631\u0642\u0635 dancing",
    "long" * 75,
    "half \udce9 of a character\x1b[31m",
]
TRANSITIONS = ["none", "cut", "dissolve", "fade in", "fade out", "wipe left", "wipe right"]


def metrics_of(
    lines: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    names: Sequence[str],
    function: str = "softmax",
    **values: Any,
) -> dict[str, Any]:
    """Computes the contents of metrics.json."""
    evaluated: dict[str, Any] = {
        name: {
            **measure(lines, name, labels, function),
            "seconds_per_video": 0.84 / (1 + place),
            "memory_bytes": 569_000_000 / (1 + place),
        }
        for place, name in enumerate(names)
    }
    return {
        "labels": list(labels),
        "function": function,
        "run": {"Model": "demo/shot-transitions", "Data": "validation.csv", "Date": "2026-11-29"},
        "sentence": "int8 loses 0.2 points of 81.4 % (95 %: -0.3 to 0.7), on 1,200 of "
        "1,203 videos, 3 unreadable.",
        "evaluated": evaluated,
        "comparisons": [compare(lines, names[0], name) for name in names[1:]],
        "advice": [],
        **values,
    }


def moving_square(line: Mapping[str, Any]) -> list[npt.NDArray[np.uint8]]:
    """Makes eight frames in place of a video's."""
    frames = []
    hue = np.random.default_rng(sum(map(ord, line["file"]))).integers(30, 200, 3)
    for place in range(8):
        frame = np.full((112, 112, 3), hue, np.uint8)
        frame += np.linspace(0, 50, 112, dtype=np.uint8)[:, None, None]
        frame[30:60, 5 + 10 * place : 30 + 10 * place] = 250
        frames.append(frame)
    return frames


def _timed(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    times = [0.4 * place for place in range(8)]
    return [{**line, "times": times, "frames": list(range(0, 96, 12))} for line in lines]


def small(path: Path) -> None:
    """Writes a report of seven labels, with advice, unreadable and damaged files."""
    lines = _timed(random_lines(1200, TRANSITIONS, seed=1, models=["fp32", "int8"]))
    lines[5]["problems"] = ["3 packets did not decode", "the file ends earlier than it states"]
    lines += [unreadable(2000 + place, [place], TRANSITIONS) for place in range(3)]
    advice = ["The labels look permuted: compare the order of `id2label` with the data's list."]
    metrics = metrics_of(lines, TRANSITIONS, ["fp32", "int8"], advice=advice)
    write_report(path, metrics, lines, moving_square)


def hostile(path: Path) -> None:
    """Writes a report whose names and texts are hostile."""
    lines = _timed(random_lines(60, HOSTILE, seed=2, models=HOSTILE[:3]))
    for line, name in zip(lines, HOSTILE * 9, strict=False):
        line["file"] = f"{line['file']} {name}"
        line["problems"] = [name]
    lines += [unreadable(0, [0], HOSTILE)]
    lines[-1] |= {"file": HOSTILE[1], "error": HOSTILE[0]}
    run = {"Model": HOSTILE[1], HOSTILE[0]: HOSTILE[1]}
    values: dict[str, Any] = {"run": run, "sentence": HOSTILE[0], "advice": HOSTILE}
    write_report(path, metrics_of(lines, HOSTILE, HOSTILE[:3], **values), lines, moving_square)


def large(path: Path, videos: int = 20_000) -> None:
    """Writes a report of 400 labels; half of the videos are named wrongly, by both models."""
    random = np.random.default_rng(4)
    labels = [f"{verb} {thing}" for verb in _VERBS for thing in _THINGS]
    lines = []
    for number in range(videos):
        true = int(random.integers(400))
        best = true if random.random() < 0.5 else int(true // 20 * 20 + random.integers(20))
        both = {}
        for name in ("fp32", "int8"):
            scores = [0.0] * 400
            scores[true], scores[best] = random.random(2) * [0.3, 1] + [0, 0.3 * (best != true)]
            total = max(1.0, sum(scores))
            both[name] = [score / total for score in scores]
        line = line_of(number, [true], both, labels)
        line["file"] = f"{labels[true]}/{'a-video-of-the-validation-set-' * 4}{number:05}.mp4"
        lines.append(line)
    write_report(path, metrics_of(lines, labels, ["fp32", "int8"]), _timed(lines), moving_square)


_VERBS = ["archery", "baking", "bowling", "carving", "chopping", "cleaning", "climbing", "cutting"]
_VERBS += ["decorating", "drawing", "drinking", "eating", "folding", "juggling", "kicking"]
_VERBS += ["opening", "painting", "playing", "sewing", "throwing"]
_THINGS = ["apple", "ball", "boat", "bread", "cake", "cards", "chair", "drum", "fish", "flowers"]
_THINGS += ["glass", "guitar", "hair", "kite", "leaves", "pumpkin", "rope", "sand", "table", "wood"]


def multilabel(path: Path) -> None:
    """Writes a report of a sigmoid model, whose videos have several labels."""
    random = np.random.default_rng(5)
    labels = TRANSITIONS
    lines = []
    for number in range(400):
        is_true = random.random(len(labels)) < 0.3
        scores = 1 / (1 + np.exp(-random.normal(size=len(labels)) - 2 * is_true + 1))
        true = np.flatnonzero(is_true).tolist()
        lines.append(line_of(number, true, {"int8": scores.tolist()}, labels, sigmoid=True))
    write_report(path, metrics_of(lines, labels, ["int8"], "sigmoid"), lines)


def empty(path: Path) -> None:
    """Writes a report of an evaluation in which no video could be read."""
    lines = [unreadable(place, [place], TRANSITIONS) for place in range(3)]
    write_report(path, metrics_of(lines, TRANSITIONS, ["fp32", "int8"]), lines)


REPORTS = {report.__name__: report for report in (small, hostile, large, multilabel, empty)}


def write_all(folder: Path) -> None:
    """Writes all reports into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, write in REPORTS.items():
        write(folder / f"{name}.html")


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
