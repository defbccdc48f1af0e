"""Tests by which rule the soak test calls a process flat."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path

import pytest
from timesformer_runtime import TimesformerError, VideoClassifier

from tests.benchmarks.soak import Reading, growth, uses, write_videos
from tests.tiny_graphs import write_exported_model


def readings(**last_half: float) -> list[Reading]:
    """Readings of a process that grows at first, and whose last half is as given."""
    flat = Reading(0, 120.0, 60.0, 4, 8, 1)
    warm_up = [flat._replace(memory=80.0 + number) for number in range(20)]
    return [*warm_up, *[flat] * 20, *[flat._replace(**last_half)] * 40]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "last_half", [{}, {"memory": 126.0}, {"memory": 90.0}, {"readers": 65.0}, {"files": 7}]
)
def test_a_process_that_does_not_grow(last_half: dict[str, float]) -> None:
    assert growth(readings(**last_half)) == []


def test_a_file_that_is_open_for_a_moment_is_no_growth() -> None:
    *before, last = readings()
    assert growth([*before, last._replace(files=9)]) == []


@pytest.mark.parametrize(
    ("last_half", "problem"),
    [
        ({"memory": 127.0}, "memory: 127.0 MB after 120.0 MB; at most 126.4 MB"),
        ({"readers": 66.0}, "readers: 66.0 MB after 60.0 MB; at most 65.2 MB"),
        ({"threads": 5}, "threads: never less than 5 after 4"),
        ({"files": 9}, "files: never less than 9 after 8"),
        ({"children": 2}, "children: never less than 2 after 1"),
    ],
)
def test_a_process_that_grows(last_half: dict[str, float], problem: str) -> None:
    assert growth(readings(**last_half)) == [problem]


def test_each_use_gives_an_answer_or_one_clear_error(tmp_path: Path) -> None:
    """Other errors would end the soak test, and an error for everything would hide leaks."""
    videos = write_videos(tmp_path)
    answers = 0
    with VideoClassifier.from_pretrained(
        write_exported_model(tmp_path / "model"), device="cpu", threads=1
    ) as classifier:
        for use in itertools.islice(uses(videos), 2 * len(videos)):
            with contextlib.suppress(TimesformerError):
                answers += use(classifier) is not None
    assert len(videos) < answers < 2 * len(videos)
