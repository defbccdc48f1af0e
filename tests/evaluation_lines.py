"""Lines of results.jsonl, as an evaluation of videos with made-up scores writes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

DESCRIPTION = {"model": "made-up", "labels_count": 3, "function": "softmax"}


def result_of(
    scores: Sequence[float], true: Sequence[int], labels: Sequence[str], *, sigmoid: bool = False
) -> dict[str, Any]:
    """Describes one model's answer to one video.

    Args:
        scores: The score of each label.
        true: The places of the true labels.
        labels: The names of the labels.
        sigmoid: True to add every label's score, False to add the log probabilities.
    """
    order = sorted(range(len(scores)), key=lambda place: -scores[place])[:5]
    ranks = [
        1 + sum(score >= scores[wanted] for place, score in enumerate(scores) if place != wanted)
        for wanted in true
    ]
    result: dict[str, Any] = {
        "top": [[labels[place], scores[place]] for place in order],
        "true": [[scores[wanted], rank] for wanted, rank in zip(true, ranks, strict=True)],
    }
    if sigmoid:
        return {**result, "scores": list(scores)}
    with np.errstate(divide="ignore"):
        return {**result, "log_probability": np.log([scores[wanted] for wanted in true]).tolist()}


def line_of(
    number: int,
    true: Sequence[int],
    scores: Mapping[str, Sequence[float]],
    labels: Sequence[str],
    *,
    sigmoid: bool = False,
) -> dict[str, Any]:
    """Describes the answers of several models, by name, to one video."""
    return {
        "file": f"{number}.mp4",
        "path": f"/videos/{number}.mp4",
        "true_labels": [labels[wanted] for wanted in true],
        "results": {
            name: result_of(values, true, labels, sigmoid=sigmoid)
            for name, values in scores.items()
        },
        "frames": [0, 12],
        "times": [0.0, 0.4],
        "problems": [],
    }


def unreadable(number: int, true: Sequence[int], labels: Sequence[str]) -> dict[str, Any]:
    """Describes a video that could not be read."""
    return {
        "file": f"{number}.mp4",
        "path": f"/videos/{number}.mp4",
        "true_labels": [labels[wanted] for wanted in true],
        "error": f"/videos/{number}.mp4 is empty",
    }


def random_lines(
    videos: int, labels: Sequence[str], *, seed: int = 0, models: Sequence[str] = ("fp32", "int8")
) -> Iterator[dict[str, Any]]:
    """Gives the lines of models that are often right, and that nearly agree."""
    random = np.random.default_rng(seed)
    for number in range(videos):
        true = int(random.integers(len(labels)))
        logits = random.normal(size=len(labels))
        logits[true] += 1.5
        scores = {}
        for name in models:
            values = np.exp(logits + random.normal(scale=0.2, size=len(labels)))
            scores[name] = (values / values.sum()).tolist()
        yield line_of(number, [true], scores, labels)
