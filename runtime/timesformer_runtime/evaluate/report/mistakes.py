"""The videos that models named wrongly, and those that could not be read or are damaged."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from timesformer_runtime.evaluate.metrics.columns import Answer, Line, answer_of, videos_of

_MOST_SHOWN = 16  # videos with their frames
_MOST_MISTAKES = 40_000  # in the tables of all models together; the page stays below 15 MB
_MOST_NOTED = 1000  # unreadable, and damaged files


class Mistake(NamedTuple):
    """A video that a model named wrongly; a label is a number in the model's order.

    Attributes:
        score: The score of the wrong label; 0 where the scores are not numbers.
        number: The video's number among the lines.
        file: The video's name.
        true: The true labels.
        best: The wrong label; None where the scores are not numbers.
        true_score: The score of the true label, None as above.
        rank: The rank of the true label, None as above.
    """

    score: float
    number: int
    file: str
    true: list[int]
    best: int | None
    true_score: float | None
    rank: int | None


class Note(NamedTuple):
    """A file and the reason why it is listed."""

    file: str
    reason: str


@dataclasses.dataclass
class Videos:
    """The videos that a report lists.

    Attributes:
        worst: The lines with the largest scores of wrong labels, of any model, worst first.
        mistakes: For each model its mistakes, worst first.
        mistakes_count: For each model the number of its mistakes, listed or not.
        unreadable: The files that could not be read, not more than 1,000.
        unreadable_count: The number of files that could not be read.
        damaged: The files that were read in spite of problems, not more than 1,000.
        damaged_count: The number of these files.
    """

    worst: list[Line]
    mistakes: dict[str, list[Mistake]]
    mistakes_count: dict[str, int]
    unreadable: list[Note] = dataclasses.field(default_factory=list)
    unreadable_count: int = 0
    damaged: list[Note] = dataclasses.field(default_factory=list)
    damaged_count: int = 0

    def note(self, line: Line) -> None:
        """Lists the video if it could not be read, or has problems."""
        if "error" in line:
            self.unreadable_count += 1
            if len(self.unreadable) < _MOST_NOTED:
                self.unreadable.append(Note(str(line["file"]), str(line["error"])))
        elif line.get("problems"):
            self.damaged_count += 1
            if len(self.damaged) < _MOST_NOTED:
                self.damaged.append(Note(str(line["file"]), "; ".join(line["problems"])))


class _Largest:
    """Keeps the largest of many items, each with a key of its own."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._items: list[tuple[tuple[float, int], Any]] = []

    def add(self, key: tuple[float, int], item: Any) -> None:
        if len(self._items) < self._most:
            heapq.heappush(self._items, (key, item))
        elif key > self._items[0][0]:
            heapq.heapreplace(self._items, (key, item))

    def sorted(self) -> list[Any]:
        return [item for _, item in sorted(self._items, key=lambda pair: pair[0], reverse=True)]


def read_videos(lines: Iterable[Line], names: Sequence[str], labels: Sequence[str]) -> Videos:
    """Reads which videos a report lists; memory is limited, whatever the number of lines.

    Args:
        lines: The lines of ``results.jsonl``.
        names: The evaluated models.
        labels: The labels of the models.
    """
    places = {label: place for place, label in reversed(list(enumerate(labels)))}
    worst = _Largest(_MOST_SHOWN)
    mistakes = {name: _Largest(_MOST_MISTAKES // len(names)) for name in names}
    found = Videos([], {}, dict.fromkeys(names, 0))
    for number, line in enumerate(videos_of(lines)):
        found.note(line)
        wrong = _mistakes(line, number, names, places)
        for name, mistake in wrong.items():
            found.mistakes_count[name] += 1
            mistakes[name].add((mistake.score, -number), mistake)
        if wrong:
            worst.add((max(mistake.score for mistake in wrong.values()), -number), line)
    found.worst = worst.sorted()
    found.mistakes = {name: kept.sorted() for name, kept in mistakes.items()}
    return found


def _mistakes(
    line: Line, number: int, names: Sequence[str], places: Mapping[str, int]
) -> dict[str, Mistake]:
    if not line["true_labels"]:  # nothing that an answer could be compared with
        return {}
    answers = {name: answer_of(line, name) for name in names}
    return {
        name: _mistake(line, number, answer, places)
        for name, answer in answers.items()
        if answer is not None and not answer.is_right
    }


def _mistake(line: Line, number: int, answer: Answer, places: Mapping[str, int]) -> Mistake:
    true, file = [places[label] for label in line["true_labels"]], str(line["file"])
    if answer.label is None:
        return Mistake(0.0, number, file, true, None, None, None)
    best = places[answer.label]
    return Mistake(answer.score, number, file, true, best, answer.true_score, answer.rank)
