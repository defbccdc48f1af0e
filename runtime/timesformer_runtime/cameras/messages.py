"""Messages: the events of all sources as JSON objects."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from timesformer_runtime.cameras.events import EventChange, EventTracker, Reason
from timesformer_runtime.cameras.watching import CameraResult

Message: TypeAlias = dict[str, Any]


class Messages:
    """Makes messages of results, with a tracker of events for each source."""

    def __init__(self) -> None:
        self._trackers: dict[str, EventTracker] = {}
        self._origins: dict[str, float | None] = {}  # as in the newest result
        self._begun: dict[str, float] = {}  # the moments of starts that were told, by event

    def of(self, result: CameraResult) -> list[Message]:
        """Gives the starts and ends of events that a result brings."""
        source = result.source
        if result.ended:
            return self.finish([source.name], "ended")
        tracker = self._trackers.setdefault(source.name, EventTracker(source.rules))
        tracker.rules = source.rules
        if result.result is None:
            return self._messages(source.name, tracker.silence(result.silent or 0.0))
        self._origins[source.name] = result.origin
        window = result.result
        scores = {each["label"]: each["score"] for each in window.predictions}
        changes = tracker.window(
            window.start,
            window.end,
            scores,
            is_first_of_connection=result.is_first_of_connection,
        )
        return self._messages(source.name, changes)

    def finish(self, sources: Iterable[str] | None, reason: Reason) -> list[Message]:
        """Ends the events of these sources; of all sources for None."""
        names = list(self._trackers) if sources is None else sources
        return [
            message
            for name in names
            if name in self._trackers
            for message in self._messages(name, self._trackers.pop(name).finish(reason))
        ]

    def _messages(self, source: str, changes: Iterable[EventChange]) -> list[Message]:
        return [self._message(source, change, self._origins.get(source)) for change in changes]

    def _message(self, source: str, change: EventChange, origin: float | None) -> Message:
        start, end = self._moments(change, origin)
        return {
            "id": change.id,
            "type": change.change,
            "event": change.event,
            "source": source,
            "label": change.label,
            "score": round(change.score, 6),
            "start": round(change.start, 3),
            "end": round(change.end, 3),
            "start_time": _time(start),
            "end_time": _time(end),
            "reason": change.reason,
        }

    def _moments(
        self, change: EventChange, origin: float | None
    ) -> tuple[float | None, float | None]:
        """Gives the start and the end of an event as seconds since the epoch; None for a file.

        The origin changes a little from window to window. The end has the start that was told, and
        is not before it.
        """
        if origin is None:
            return None, None
        start = self._begun.pop(change.event, origin + change.start)
        if change.change == "start":
            self._begun[change.event] = start
        return start, max(start, origin + change.end)


def end_after_restart(start: Mapping[str, Any]) -> Message:
    """Makes the end of an event whose program ended before it could tell the end.

    Args:
        start: The message of the event's start.
    """
    reason: Reason = "restarted"
    return {**start, "id": f"{start['event']}:end", "type": "end", "reason": reason}


def _time(moment: float | None) -> str | None:
    """Writes a moment as UTC."""
    if moment is None:
        return None
    written = datetime.datetime.fromtimestamp(moment, datetime.UTC).isoformat(
        timespec="milliseconds"
    )
    return written.replace("+00:00", "Z")
