"""The answers of one evaluated model, a few numbers for each video instead of its whole line."""

from __future__ import annotations

import dataclasses
import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from timesformer_runtime.errors import InvalidOptionError, named

Line = Mapping[str, Any]
Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]

NO_LABEL = -1  # the number of a label that is not there
_NO_RANK = 2**31 - 1  # behind every label


class Answer(NamedTuple):
    """The part of a line that one evaluated model gave.

    Attributes:
        label: The best label, or None where the scores are not numbers. Ties count against the
            model: a wrong label that scores as high as the true one is the best.
        score: The score of the best label.
        rank: The rank of the true label, 1 for the best; of several true labels the best rank. None
            without a true label, and where the scores are not numbers.
        true_score: The score of the true label; of several the mean.
        log_probability: Of the true label; not a number where the line has none.
    """

    label: str | None
    score: float
    rank: int | None
    true_score: float
    log_probability: float

    @property
    def is_right(self) -> bool:
        """True where the best label is a true one."""
        return self.rank == 1


def videos_of(lines: Iterable[Line]) -> Iterator[Line]:
    """Gives the lines of videos, and leaves out the one that describes the run."""
    return (line for line in lines if "true_labels" in line)


def answer_of(line: Line, name: str) -> Answer | None:
    """Reads what a model answered to a video; None where it did not, as for unreadable files.

    Args:
        line: The line of a video.
        name: The evaluated model.
    """
    result = line.get("results", {}).get(name)
    if result is None or not result["top"]:
        return None
    true = result["true"]
    values = [score for score, _ in true]
    best_label, best_score = result["top"][0]
    if not all(map(_is_number, [best_score, *values])):
        return Answer(None, math.nan, None, math.nan, math.nan)
    rank = min((int(rank) for _, rank in true), default=None)
    if rank is not None and rank > 1:
        wrong = (label for label, _ in result["top"] if label not in line["true_labels"])
        best_label = next(wrong, best_label)
    logs = result.get("log_probability") or [math.nan]
    log = float(logs[0]) if logs[0] is not None else math.nan
    mean = sum(values) / len(values) if values else math.nan
    return Answer(best_label, float(best_score), rank, mean, log)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


@dataclasses.dataclass(frozen=True)
class Columns:
    """The answers of one model to all videos that it answered; a label is a number in its order.

    Attributes:
        true: The first true label of each video, ``NO_LABEL`` where it has none.
        best: The best label, ``NO_LABEL`` where the scores are not numbers.
        score: The score of the best label.
        rank: The rank of the true label; where there is none, a rank behind every label.
        log_probability: Of the true label.
        unreadable: For each label, how many videos of it the model did not answer.
        unreadable_videos: How many videos the model did not answer.
        unreadable_labelled: How many of these have a true label.
        scores: Every label's score [videos, labels], for sigmoid models, else [videos, 0]: eight
            bytes each.
        is_true: Which labels are true, shaped as ``scores``.
    """

    true: Ints
    best: Ints
    score: Floats
    rank: Ints
    log_probability: Floats
    unreadable: Ints
    unreadable_videos: int
    unreadable_labelled: int
    scores: Floats
    is_true: npt.NDArray[np.bool_]

    @property
    def is_right(self) -> npt.NDArray[np.bool_]:
        """Which videos the model named rightly."""
        return np.equal(self.rank, 1)

    @property
    def is_finite(self) -> npt.NDArray[np.bool_]:
        """Which videos have scores that are numbers."""
        return np.not_equal(self.best, NO_LABEL)


def read_columns(
    lines: Iterable[Line], name: str, labels: Sequence[str], *, all_scores: bool
) -> Columns:
    """Reads the answers of one model.

    Args:
        lines: The lines of the results.
        name: The evaluated model.
        labels: The model's labels, in its order.
        all_scores: True to keep every label's score, and all true labels.

    Raises:
        InvalidOptionError: A line has a label that the model does not have, or not as many scores
            as the model has labels.
    """
    places = _places(labels)
    true, best, rank = array("i"), array("i"), array("i")
    score, log_probability, scores = array("d"), array("d"), array("d")
    is_true = bytearray()
    unreadable = np.zeros(len(labels), np.int32)
    missing = missing_labelled = 0
    for line in videos_of(lines):
        wanted = [_place(label, places) for label in line["true_labels"]]
        answer = answer_of(line, name)
        if answer is None:
            np.add.at(unreadable, wanted, 1)
            missing += 1
            missing_labelled += bool(wanted)
            continue
        true.append(wanted[0] if wanted else NO_LABEL)
        best.append(NO_LABEL if answer.label is None else _place(answer.label, places))
        score.append(answer.score)
        rank.append(_NO_RANK if answer.rank is None else answer.rank)
        log_probability.append(answer.log_probability)
        if all_scores:
            scores.extend(_scores(line, name, len(labels)))
            row = bytearray(len(labels))
            for place in wanted:
                row[place] = 1
            is_true += row
    width = len(labels) if all_scores else 0
    return Columns(
        true=np.array(true, np.int32),
        best=np.array(best, np.int32),
        score=np.array(score, np.float64),
        rank=np.array(rank, np.int32),
        log_probability=np.array(log_probability, np.float64),
        unreadable=unreadable,
        unreadable_videos=missing,
        unreadable_labelled=missing_labelled,
        scores=np.frombuffer(scores, np.float64).reshape(len(true), width),
        is_true=np.frombuffer(is_true, np.bool_).reshape(len(true), width),
    )


def _places(labels: Sequence[str]) -> dict[str, int]:
    places: dict[str, int] = {}
    for place, label in enumerate(labels):
        places.setdefault(label, place)  # of labels with one name, the first stands for all
    return places


def _place(label: str, places: Mapping[str, int]) -> int:
    try:
        return places[label]
    except KeyError:
        raise InvalidOptionError(
            f"the results have the label {named(label)}, which is not one of the model's "
            f"{len(places)}; give the model that made them"
        ) from None


def _scores(line: Line, name: str, count: int) -> list[float]:
    scores = [
        math.nan if value is None else float(value) for value in line["results"][name]["scores"]
    ]
    if len(scores) != count:
        raise InvalidOptionError(
            f"the results have {len(scores)} scores for {named(str(line.get('file')))}; the model "
            f"has {count} labels: give the model that made them"
        )
    return scores
