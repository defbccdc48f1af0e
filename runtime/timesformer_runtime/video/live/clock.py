"""LiveClock: when a live frame is shown, whatever its timestamp says."""

from __future__ import annotations

_AHEAD = 5.0  # seconds; frames come in bursts, but one frame is not shown that much after another


class LiveClock:
    """Seconds from a stream's first frame, ascending also where its timestamps are not.

    A timestamp counts by how far it is from the one before. Where that is missing, goes back or
    jumps ahead, as after a sender's restart, the time that passed here counts instead; also
    between frames with one timestamp, of which the next one takes no notice.
    """

    def __init__(self) -> None:
        self._stamp: float | None = None
        self._stamp_seconds = 0.0  # of the first frame with that timestamp
        self._arrived: float | None = None
        self._seconds = 0.0

    def seconds(self, stamp: float | None, arrived: float) -> float:
        """The time of the next frame.

        Args:
            stamp: Its timestamp in seconds, where it has one.
            arrived: When it came, in seconds of the monotonic clock.
        """
        if self._arrived is not None:
            passed = arrived - self._arrived
            step = None if stamp is None or self._stamp is None else stamp - self._stamp
            if step is not None and 0 < step <= passed + _AHEAD:
                self._seconds = max(self._seconds, self._stamp_seconds + step)
            else:
                self._seconds += passed
        if stamp != self._stamp:
            self._stamp, self._stamp_seconds = stamp, self._seconds
        self._arrived = arrived
        return self._seconds

    def restart(self) -> None:
        """The next timestamp has nothing to do with those before."""
        self._stamp = None
