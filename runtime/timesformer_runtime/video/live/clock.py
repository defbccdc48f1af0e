"""LiveClock: computes when live frames are shown, even where their timestamps are wrong."""

from __future__ import annotations

# Seconds by which the step between two timestamps may exceed the step between the arrivals: frames
# come in bursts.
_MAX_AHEAD = 5.0


class LiveClock:
    """Computes the seconds from a stream's first frame to each frame; they never decrease.

    The clock adds the step from one timestamp to the next. Where a timestamp is missing, goes back
    or jumps ahead, as after a restart of the sender, the clock adds the time between the arrivals
    of the two frames instead. The clock does so for equal timestamps, too; the step to the next
    timestamp then counts from the first of the frames with equal timestamps.
    """

    def __init__(self) -> None:
        self._timestamp: float | None = None
        self._timestamp_seconds = 0.0  # the time of the first frame with this timestamp
        self._arrived: float | None = None
        self._seconds = 0.0  # the time of the last frame

    def seconds(self, timestamp: float | None, arrived: float) -> float:
        """Computes the time of the next frame.

        Args:
            timestamp: The frame's timestamp in seconds, if it has one.
            arrived: When the frame arrived, by ``time.monotonic()``.
        """
        if self._arrived is not None:
            passed = arrived - self._arrived
            step = None
            if timestamp is not None and self._timestamp is not None:
                step = timestamp - self._timestamp
            if step is not None and 0 < step <= passed + _MAX_AHEAD:
                self._seconds = max(self._seconds, self._timestamp_seconds + step)
            else:
                self._seconds += passed
        if timestamp != self._timestamp:
            self._timestamp, self._timestamp_seconds = timestamp, self._seconds
        self._arrived = arrived
        return self._seconds

    def restart(self) -> None:
        """Forgets the last timestamp: the timestamps of another connection are unrelated to it."""
        self._timestamp = None
