"""Items of which the last one is told apart."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from timesformer_runtime.timeline import change_last


def counting(count: int, closed: list[int], *, fails: bool = False) -> Generator[int, None, None]:
    try:
        yield from range(count)
        if fails:
            raise ValueError("that is all")
    finally:
        closed.append(count)


@pytest.mark.parametrize(("count", "expected"), [(0, []), (1, [0]), (3, [0, 1, -2])])
def test_the_last_one_is_changed(count: int, expected: list[int]) -> None:
    assert list(change_last(counting(count, []), lambda item: -item)) == expected


@pytest.mark.parametrize("count", [0, 1, 3])
def test_before_an_error_all_come_as_they_were(count: int) -> None:
    given = []
    with pytest.raises(ValueError, match="that is all"):  # noqa: PT012
        for item in change_last(counting(count, [], fails=True), lambda item: -item):
            given.append(item)  # noqa: PERF402
    assert given == list(range(count))


def test_closing_it_closes_what_gives_the_items() -> None:
    closed: list[int] = []
    items = change_last(counting(3, closed), lambda item: -item)
    assert next(items) == 0
    items.close()
    assert closed == [3]
