"""Events from made-up scores: hysteresis, least duration, pauses, losses."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from timesformer_runtime import InvalidOptionError
from timesformer_runtime.cameras.events import EventChange, EventRule, EventRules, EventTracker


def tracker(rules: EventRules | EventRule) -> EventTracker:
    numbers = itertools.count()
    rules = EventRules(usual=rules) if isinstance(rules, EventRule) else rules
    return EventTracker(rules, lambda: f"e{next(numbers)}")


def changes(
    rule: EventRule, scores: Sequence[float | None], length: float = 1.0, stride: float = 1.0
) -> list[tuple[str, float, float, float]]:
    """The changes of one label over windows; None leaves out a window."""
    events = tracker(rule)
    found = []
    for number, score in enumerate(scores):
        if score is not None:
            start = number * stride
            found += events.window(start, start + length, {"cut": score})
    return [(change.change, change.start, change.end, change.score) for change in found]


def test_an_event_begins_at_enter_and_goes_on_until_below_leave() -> None:
    scores = [0.5, 0.6, 0.9, 0.4, 0.39, 0.5]
    assert changes(EventRule(enter=0.6, leave=0.4), scores) == [
        ("start", 1.0, 2.0, 0.6),
        ("end", 1.0, 4.0, 0.9),
    ]


def test_scores_between_the_thresholds_begin_nothing() -> None:
    assert changes(EventRule(enter=0.6, leave=0.4), [0.5] * 9) == []


def test_a_short_event_is_not_told() -> None:
    rule = EventRule(min_duration=3.0)
    assert changes(rule, [0.9, 0.9, 0.0, 0.9, 0.9, 0.9, 0.0]) == [
        ("start", 3.0, 6.0, 0.9),
        ("end", 3.0, 6.0, 0.9),
    ]


@pytest.mark.parametrize(
    ("gap", "expected"),
    [
        (2.0, [("start", 0.0, 1.0, 0.9)]),
        (
            1.9,
            [("start", 0.0, 1.0, 0.9), ("end", 0.0, 1.0, 0.9), ("start", 3.0, 4.0, 0.8)],
        ),
    ],
)
def test_a_pause_up_to_the_gap_belongs_to_the_event(
    gap: float, expected: list[tuple[str, float, float, float]]
) -> None:
    assert changes(EventRule(gap=gap), [0.9, 0.0, 0.0, 0.8]) == expected


def test_an_end_is_where_the_label_was_last_seen() -> None:
    assert changes(EventRule(gap=2.0), [0.9, 0.0, 0.0, 0.0])[-1] == ("end", 0.0, 1.0, 0.9)


def test_windows_that_overlap() -> None:
    found = changes(EventRule(), [0.9, 0.9, 0.1], length=4.0, stride=2.0)
    assert found == [("start", 0.0, 4.0, 0.9), ("end", 0.0, 6.0, 0.9)]


def test_windows_that_were_skipped_end_nothing() -> None:
    """A busy model leaves windows out; the source was there all the time."""
    assert changes(EventRule(), [0.9, None, None, None, 0.9]) == [("start", 0.0, 1.0, 0.9)]


def test_windows_far_apart_are_one_event() -> None:
    assert changes(EventRule(), [0.9, 0.9], length=1.0, stride=5.0) == [("start", 0.0, 1.0, 0.9)]


@pytest.mark.parametrize(("gap", "count"), [(3.0, 1), (2.9, 3)])
def test_a_loss_longer_than_the_gap_ends_the_event(gap: float, count: int) -> None:
    events = tracker(EventRule(gap=gap))
    found = events.window(0.0, 1.0, {"cut": 0.9})
    found += events.window(4.0, 5.0, {"cut": 0.9}, is_first_of_connection=True)
    assert len(found) == count
    if count > 1:
        assert [(change.id, change.reason) for change in found] == [
            ("e0:start", None),
            ("e0:end", "lost"),
            ("e1:start", None),
        ]


@pytest.mark.parametrize(("seconds", "count"), [(1.0, 0), (1.1, 1)])
def test_a_silent_source_ends_events_after_their_gap(seconds: float, count: int) -> None:
    """The pause of an event counts from the end of the last window that showed it."""
    events = tracker(EventRules(usual=EventRule(gap=2.0), own={"fade": EventRule(gap=60.0)}))
    events.window(0.0, 1.0, {"cut": 0.9, "fade": 0.9})
    events.window(1.0, 2.0, {"cut": 0.1, "fade": 0.9})
    found = events.silence(seconds)
    assert [(each.id, each.end, each.reason) for each in found] == [("e0:end", 1.0, "lost")][:count]
    assert events.silence(seconds) == []
    again = events.window(50.0, 51.0, {"fade": 0.9}, is_first_of_connection=True)
    assert [each for each in again if each.label == "fade"] == []


@pytest.mark.parametrize(
    ("rules", "reason"),
    [(EventRules(("fade",)), "stopped"), (EventRules(usual=EventRule(gap=3.0)), "lost")],
)
def test_rules_may_change_while_a_source_is_silent(rules: EventRules, reason: str) -> None:
    events = tracker(EventRules(usual=EventRule(gap=60.0)))
    events.window(0.0, 1.0, {"cut": 0.9})
    assert events.silence(5.0) == []
    events.rules = rules
    (change,) = events.silence(6.0)
    assert (change.id, change.reason) == ("e0:end", reason)


def test_a_label_without_a_score_is_not_seen() -> None:
    """A window without motion has no scores."""
    events = tracker(EventRule())
    events.window(0.0, 1.0, {"cut": 0.9})
    assert [change.id for change in events.window(1.0, 2.0, {})] == ["e0:end"]


def test_the_end_of_the_source_ends_told_events_only() -> None:
    events = tracker(EventRules(own={"short": EventRule(min_duration=9.0)}))
    events.window(0.0, 1.0, {"cut": 0.9, "short": 0.9})
    assert events.finish("stopped") == [
        EventChange("e0", "end", "cut", 0.0, 1.0, 0.9, "stopped"),
    ]
    assert events.finish("stopped") == []


def test_labels_have_rules_of_their_own() -> None:
    rules = EventRules(("cut", "fade"), EventRule(enter=0.5), {"fade": EventRule(enter=0.95)})
    found = tracker(rules).window(0.0, 1.0, {"cut": 0.6, "fade": 0.9, "none": 1.0})
    assert [change.label for change in found] == ["cut"]


def test_a_label_that_is_taken_out_of_the_rules_ends() -> None:
    events = tracker(EventRules())
    events.window(0.0, 1.0, {"cut": 0.9})
    events.rules = EventRules(("fade",))
    (change,) = events.window(1.0, 2.0, {"cut": 0.9})
    assert (change.id, change.reason) == ("e0:end", "stopped")


def test_ids_differ() -> None:
    ids = [
        change.id
        for events in (EventTracker(EventRules()), EventTracker(EventRules()))
        for start, score in ((0.0, 0.9), (1.0, 0.0), (2.0, 0.9))
        for change in events.window(start, start + 1, {"cut": score})
    ]
    assert len(ids) == len(set(ids)) == 6


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"enter": 0.3}, "`leave` is 0.4 and `enter` is 0.3"),
        ({"enter": "high"}, "`enter` is 'high'; it must be a number"),
        ({"leave": float("nan")}, "`leave` is nan; it must be a number"),
        ({"gap": -1.0}, "`gap` is -1 seconds; it must be at least 0"),
        ({"min_duration": -0.5}, "`min_duration` is -0.5 seconds"),
    ],
)
def test_rules_are_checked(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        EventRule(**values)


def test_unknown_labels_are_named() -> None:
    with pytest.raises(InvalidOptionError, match="no label 'jump'; it has none, cut"):
        EventRules(("cut", "jump")).check(("none", "cut"), "softmax")


def test_scores_must_be_able_to_reach_a_rule() -> None:
    rules = EventRules(own={"cut": EventRule(enter=70)})
    with pytest.raises(
        InvalidOptionError, match=r"`enter` of the label 'cut' is 70; .* from 0 to 1: 0.7 is 70 %"
    ):
        rules.check(("none", "cut"), "sigmoid")
    rules.check(("none", "cut"), "none")
