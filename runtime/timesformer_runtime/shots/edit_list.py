"""EditList: the shots of a video, and the transitions between them."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Transition:
    """How one shot becomes the next.

    Attributes:
        kind: A label of the model, such as ``cut`` or ``dissolve``; ``fade`` for a fade out and in.
        first: Index of the first frame that shows the transition; of a cut, the first frame after
            it.
        last: Index of the last frame that shows the transition; of a cut, ``first``.
        score: How sure the model is, 0 to 1.
    """

    kind: str
    first: int
    last: int
    score: float

    @property
    def is_cut(self) -> bool:
        """True for a change from one frame to the next."""
        return self.kind == "cut"

    @property
    def split(self) -> int:
        """The first frame that counts to the later shot: the middle of a gradual transition."""
        return (self.first + self.last + 1) // 2


@dataclasses.dataclass(frozen=True)
class Shot:
    """A part of a video between two transitions.

    Attributes:
        first: Index of the first frame.
        last: Index of the last frame.
        start: Seconds from the video's first frame to the shot's first frame.
        end: Seconds to the end of the shot's last frame.
        opening: The transition that leads into the shot; None for the first shot.
    """

    first: int
    last: int
    start: float
    end: float
    opening: Transition | None


@dataclasses.dataclass(frozen=True)
class EditList:
    """All transitions of a video, in order. Every frame belongs to one shot.

    Attributes:
        rate: Frames per second that the video states.
        times: When each frame is shown, in seconds from the first.
        transitions: The transitions; no two of them share a frame.
        problems: A sentence for each thing that is wrong with the file; empty for a sound video.
    """

    rate: float
    times: tuple[float, ...]
    transitions: tuple[Transition, ...]
    problems: tuple[str, ...] = ()

    @property
    def shots(self) -> tuple[Shot, ...]:
        """The shots; a gradual transition counts half to each of its two shots."""
        count = len(self.times)
        inner = [found for found in self.transitions if 0 < found.split < count]
        starts = [0, *(found.split for found in inner)]
        ends = [*starts[1:], count]
        return tuple(
            Shot(first, end - 1, self.times[first], self._time(end), opening)
            for first, end, opening in zip(starts, ends, [None, *inner], strict=True)
        )

    def to_dict(self) -> dict[str, Any]:
        """The edit list as JSON types; times in seconds."""
        return {
            "rate": self.rate,
            "frames": len(self.times),
            "duration": round(self._time(len(self.times)), 6),
            "shots": [
                {
                    "first": shot.first,
                    "last": shot.last,
                    "start": round(shot.start, 6),
                    "end": round(shot.end, 6),
                }
                for shot in self.shots
            ],
            "transitions": [
                {
                    **dataclasses.asdict(found),
                    "start": round(self._time(found.first), 6),
                    "end": round(self._time(found.first if found.is_cut else found.last + 1), 6),
                }
                for found in self.transitions
            ],
            "problems": list(self.problems),
        }

    def _time(self, frame: int) -> float:
        """When a frame is shown; for the number of frames, the end of the video."""
        if frame < len(self.times):
            return self.times[frame]
        return self.times[-1] + 1 / self.rate
