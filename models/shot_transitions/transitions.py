"""The transitions: how they join two scenes, and which of them 8 sampled frames still show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.shot_transitions.labels import WIPES

Frame = npt.NDArray[np.uint8]
Alpha = npt.NDArray[np.float32]

PURE = 0.03  # a scene with a smaller share of a frame counts as not shown
CLEAR = 0.12  # a frame in which both scenes have at least this share is clearly in between
_MOST_TRIES = 1000

_EASINGS: tuple[Callable[[float], float], ...] = (
    lambda p: p,
    lambda p: p,  # twice, because linear is the default of most editing programs
    lambda p: p * p * (3 - 2 * p),
    lambda p: p**1.7,
    lambda p: 1 - (1 - p) ** 1.7,
)


@dataclass(frozen=True)
class Transition:
    """The transition that joins the scenes of one clip.

    Attributes:
        label: One of ``LABELS``.
        start: The time at which the transition begins, in frames, not rounded.
        length: The length of the transition in frames, above 0.
        easing: Index of the curve of progress over time.
        softness: Width of a wipe's edge, as a part of the frame's width or height.
        colour: RGB of a fade's flat frames, 0 to 255; also of a card before or after a cut.
        card: For a cut: which scene is a flat card instead, "before", "after" or "".
    """

    label: str
    start: float
    length: float
    easing: int = 0
    softness: float = 0.0
    colour: tuple[int, int, int] = (0, 0, 0)
    card: str = ""

    def progress(self, frame: int) -> float:
        """The progress of the transition at a frame: 0 before it, 1 after it."""
        if self.label == "none":
            return 0.0
        linear = min(max((frame - self.start) / self.length, 0.0), 1.0)
        return _EASINGS[self.easing](linear)

    def alpha(self, frame: int, height: int, width: int) -> Alpha:
        """The new scene's share of each pixel, float32 [height, width], 0 to 1."""
        progress = self.progress(frame)
        if self.label not in WIPES:
            return np.full((height, width), progress, dtype=np.float32)
        across = self.label in ("wipe_left", "wipe_right")
        pixels = (np.arange(width if across else height, dtype=np.float32) + 0.5) / (
            width if across else height
        )
        if self.label in ("wipe_left", "wipe_up"):
            pixels = 1 - pixels
        edge = progress * (1 + self.softness) - self.softness / 2
        shape = (1, width) if across else (height, 1)
        line = np.clip((edge - pixels) / max(self.softness, 1e-4) + 0.5, 0, 1)
        return np.broadcast_to(line.reshape(shape), (height, width)).astype(np.float32)

    def join(self, frame: int, before: Callable[[], Frame], after: Callable[[], Frame]) -> Frame:
        """Makes a frame of the joined clip; a scene is only drawn where it is visible."""
        flat = self._flat_scene()
        if flat:
            other = before if flat == "after" else after
            picture = other()
            height, width = picture.shape[:2]
            card = np.broadcast_to(np.array(self.colour, np.uint8), picture.shape)
            first, second = (picture, card) if flat == "after" else (card, picture)
            return _mix(first, second, self.alpha(frame, height, width))
        progress = self.progress(frame)
        if progress <= 0:
            return before()
        if progress >= 1:
            return after()
        first = before()
        return _mix(first, after(), self.alpha(frame, *first.shape[:2]))

    def _flat_scene(self) -> str:
        """The scene that is one flat colour: "before", "after" or "" for none."""
        return {"fade_in": "before", "fade_out": "after"}.get(self.label, self.card)


def visible_label(
    transition: Transition, sampled: npt.NDArray[np.int64], height: int, width: int
) -> str:
    """The label that a person would give who sees only the centre squares of the sampled frames.

    Returns "" where no label is certain: only one frame is in between, or the clip does not begin
    with the old scene alone and end with the new one alone.
    """
    if transition.label == "none":
        return "none"
    top, left = max(0, (height - width) // 2), max(0, (width - height) // 2)
    side = min(height, width)
    shares = np.array(
        [
            transition.alpha(int(i), height, width)[top : top + side, left : left + side].mean()
            for i in sampled
        ]
    )
    if shares[0] > PURE or shares[-1] < 1 - PURE:
        return ""
    between = int(((shares > PURE) & (shares < 1 - PURE)).sum())
    if between == 0:
        return "cut"
    clear = int(((shares >= CLEAR) & (shares <= 1 - CLEAR)).sum())
    return transition.label if clear >= 2 and transition.label != "cut" else ""


def random_transition(
    rng: np.random.Generator, label: str, sampled: npt.NDArray[np.int64], height: int, width: int
) -> Transition:
    """A random transition that looks like ``label`` in the sampled frames.

    Args:
        rng: The source of randomness.
        label: One of ``LABELS``.
        sampled: Indices of the frames that the model sees, ascending; the last is the clip's last.
        height: Height of the clip's frames.
        width: Width of the clip's frames.

    Raises:
        RuntimeError: No such transition was found: the clip is too short for it.
    """
    if label == "none":
        return Transition("none", 0.0, 1.0)
    for _ in range(_MOST_TRIES):
        transition = _draw(rng, label, float(sampled[-1]))
        if visible_label(transition, sampled, height, width) == label:
            return transition
    raise RuntimeError(f"no {label} fits into {sampled[-1] + 1} frames; make the clip longer")


def _draw(rng: np.random.Generator, label: str, last: float) -> Transition:
    if label == "cut":
        # Most cuts are abrupt; a transition that fits between two sampled frames is a cut, too.
        kind = "cut" if rng.random() < 0.8 else str(rng.choice(("dissolve", *WIPES)))
        length = 1e-3 if kind == "cut" else rng.uniform(0.5, 0.12 * last)
        card = str(rng.choice(("before", "after"))) if kind == "cut" and rng.random() < 0.06 else ""
    else:
        kind, card = label, ""
        length = last * rng.uniform(0.15, 1.0)
    start = rng.uniform(-0.05 * last, last) if label == "cut" else rng.uniform(0, last - length)
    return Transition(
        label=kind,
        start=start,
        length=length,
        easing=int(rng.integers(len(_EASINGS))),
        softness=0.0 if rng.random() < 0.5 else float(rng.uniform(0.01, 0.35)),
        colour=_flat_colour(rng),
        card=card,
    )


def _flat_colour(rng: np.random.Generator) -> tuple[int, int, int]:
    kind = rng.random()
    if kind < 0.55:
        return (0, 0, 0)
    if kind < 0.75:
        return (255, 255, 255)
    red, green, blue = (int(c) for c in rng.integers(0, 256, 3))
    return (red, green, blue)


def _mix(first: Frame, second: Frame, alpha: Alpha) -> Frame:
    share = alpha[..., None]
    return (first * (1 - share) + second * share + 0.5).astype(np.uint8)
