"""Messages of results: times, and sources that are silent."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from timesformer_runtime.cameras.events import EventRule, EventRules
from timesformer_runtime.cameras.messages import Messages
from timesformer_runtime.cameras.settings import SourceSettings
from timesformer_runtime.cameras.watching import CameraResult
from timesformer_runtime.results import Seconds
from timesformer_runtime.workloads.stream import LiveResult

ORIGIN = datetime.datetime(2026, 3, 1, 8, tzinfo=datetime.UTC).timestamp()


def source(usual: EventRule, **own: EventRule) -> SourceSettings:
    return SourceSettings("door", "udp://127.0.0.1:9", rules=EventRules(usual=usual, own=own))


def window(
    camera: SourceSettings,
    start: float,
    scores: dict[str, float],
    origin: float | None = ORIGIN,
    *,
    is_first: bool = False,
) -> CameraResult:
    """A window of one second with these scores."""
    result = LiveResult(
        start=start,
        end=start + 1.0,
        predictions=tuple({"label": label, "score": score} for label, score in scores.items()),
        indices=(0,),
        times=(start,),
        duplicates=0,
        latency=0.0,
        dropped_frames=0,
        skipped_windows=0,
        failed_packets=0,
        problems=(),
        seconds=Seconds(0.0, 0.0, 0.0),
        reconnects=0,
    )
    return CameraResult(camera, result, is_first_of_connection=is_first, origin=origin)


def times(message: dict[str, Any]) -> tuple[str | None, str | None]:
    return message["start_time"], message["end_time"]


@pytest.mark.parametrize(
    ("later", "end"),
    [
        (ORIGIN + 0.25, "2026-03-01T08:00:01.250Z"),
        (ORIGIN - 5.0, "2026-03-01T08:00:00.000Z"),  # not before the start
    ],
)
def test_an_event_keeps_its_start_time(later: float, end: str) -> None:
    """The moment of the first frame is estimated again with each window: packets come late."""
    messages, camera = Messages(), source(EventRule())
    (begun,) = messages.of(window(camera, 0.0, {"cut": 0.9}))
    assert times(begun) == ("2026-03-01T08:00:00.000Z", "2026-03-01T08:00:01.000Z")
    (ended,) = messages.of(window(camera, 1.0, {"cut": 0.1}, later))
    assert times(ended) == (begun["start_time"], end)


def test_files_have_no_dates() -> None:
    messages, camera = Messages(), source(EventRule())
    (begun,) = messages.of(window(camera, 0.0, {"cut": 0.9}, None))
    assert times(begun) == (None, None)
    (ended,) = messages.finish(None, "stopped")
    assert times(ended) == (None, None)


def test_a_silent_source_ends_events_once_the_gap_has_passed() -> None:
    messages, camera = Messages(), source(EventRule(), fade=EventRule(gap=30.0))
    assert len(messages.of(window(camera, 0.0, {"cut": 0.9, "fade": 0.9}))) == 2
    (cut,) = messages.of(CameraResult(camera, silent=12.0))
    assert (cut["label"], cut["type"], cut["reason"], cut["end"]) == ("cut", "end", "lost", 1.0)
    assert messages.of(window(camera, 20.0, {"fade": 0.9}, is_first=True)) == []
    assert messages.of(CameraResult(camera, silent=30.0)) == []
    (fade,) = messages.of(CameraResult(camera, silent=31.0))
    assert (fade["label"], fade["reason"], fade["end"]) == ("fade", "lost", 21.0)
    assert messages.of(CameraResult(camera, silent=32.0)) == []
