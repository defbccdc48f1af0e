"""Films of real shots, joined by cuts and gradual transitions at known frames.

A fixed list names the shots of real clips. Two halves of the list have no video in common: on one
of them the thresholds of the search were chosen, on the other one they are measured.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.shot_transitions.clips import encode, square
from models.shot_transitions.footage import load_footage
from models.shot_transitions.labels import WIPES
from models.shot_transitions.transitions import PURE, Transition

Frame = npt.NDArray[np.uint8]
Half = Literal["tuning", "test"]

HEIGHT, WIDTH = 180, 320
RATES = (25, 30)  # frames a second, one film after the other

# Name of the video, number of its shot, first frame and end. What is left out of a video has a
# transition, or a flat colour and nothing else.
PARTS: dict[Half, tuple[tuple[str, int, int, int], ...]] = {
    "tuning": (
        ("60fps.mp4", 0, 0, 48),
        ("60fps.mp4", 1, 0, 77),
        ("bottle-detection.mp4", 0, 0, 1189),
        ("sintel-captions.ts", 0, 130, 240),
        ("walk.mkv", 0, 0, 89),
    ),
    "test": (
        ("again.mkv", 0, 0, 77),
        ("man-on-green-screen.mp4", 0, 100, 700),
        ("nasa_13013.mp4", 0, 0, 120),
        ("nasa_13013.mp4", 0, 208, 240),
        ("nasa_13013.mp4", 1, 0, 150),
        ("one-by-one-person-detection.mp4", 0, 0, 1394),
        ("test-025.ts", 0, 0, 61),
    ),
}
_LEAST_DIFFERENCE = 22.0  # mean grey levels between neighbouring shots, as for the training clips
_KINDS = ("cut", "dissolve", "fade", "wipe")
_SHARES = (0.5, 0.2, 0.15, 0.15)


@dataclasses.dataclass(frozen=True)
class Known:
    """A transition whose frames are known.

    Attributes:
        kind: ``cut``, ``dissolve``, ``fade`` (out and in) or ``wipe``.
        first: The first frame of a gradual transition; of a cut, the first frame after it.
        last: The last frame of a gradual transition; of a cut, ``first``.
    """

    kind: str
    first: int
    last: int


@dataclasses.dataclass(frozen=True)
class Film:
    """A video file, and its transitions in order."""

    path: Path
    frames: int
    rate: int
    transitions: tuple[Known, ...]


def make_films(
    clips: Path,
    folder: Path,
    half: Half,
    films: int,
    shots: int,
    seed: int,
    *,
    short: bool = False,
) -> list[Film]:
    """Writes films into a folder; equal arguments give equal films.

    Args:
        clips: The folder of the real clips.
        folder: Where to write.
        half: Which of the videos to take shots from.
        films: How many films.
        shots: How many shots a film has.
        seed: Chooses the parts of the shots, and the transitions.
        short: True for dissolves and wipes of 2 to 7 frames, which last 8 to 40 otherwise.
    """
    footage = load_footage(clips, short_side=HEIGHT, rate=30.0, most_seconds=150.0)
    sources = []
    for name, number, start, end in PARTS[half]:
        found = [shot for shot in footage.shots if shot.name == name]
        sources.append((name, found[number].frames[start:end]))
    made = []
    for number in range(films):
        rng = np.random.default_rng([seed, number, len(PARTS[half])])
        rate = RATES[number % len(RATES)]
        frames, transitions = _film(rng, sources, shots, short=short)
        path = folder / f"{half}-{number:02}.mp4"
        path.write_bytes(encode(frames, rate, crf=int(rng.integers(18, 31)), preset="veryfast"))
        made.append(Film(path, len(frames), rate, tuple(transitions)))
    return made


def _film(
    rng: np.random.Generator, sources: list[tuple[str, Frame]], shots: int, *, short: bool
) -> tuple[list[Frame], list[Known]]:
    """Joins shots; each lasts 25 to 75 frames besides its transitions."""
    frames: list[Frame] = []
    known: list[Known] = []
    overlap = 0  # frames of the shot that the transition before it has shown
    name, shot = _random_shot(rng, sources, "")
    for number in range(shots):
        kind = str(rng.choice(_KINDS, p=_SHARES)) if number < shots - 1 else "end"
        pure = int(rng.integers(25, 76))
        frames += [shot.frame(overlap + index) for index in range(pure)]
        if kind == "end":
            break
        next_name, following = _different_shot(rng, sources, name, shot.frame(overlap + pure))
        at = overlap + pure
        joined = list(_joined(rng, kind, shot, at, following, short=short))
        if kind == "cut":
            known.append(Known(kind, len(frames), len(frames)))
        else:
            seen = [i for i, (_, share) in enumerate(joined) if PURE < share < 1 - PURE]
            known.append(Known(kind, len(frames) + seen[0], len(frames) + seen[-1]))
        frames += [frame for frame, _ in joined]
        name, shot, overlap = next_name, following, len(joined)
    return frames, known


def _joined(
    rng: np.random.Generator,
    kind: str,
    before: MovingShot,
    at: int,
    after: MovingShot,
    *,
    short: bool,
) -> Iterator[tuple[Frame, float]]:
    """Gives the frames of a transition, each with the share of the new scene, or of a fade."""
    if kind == "cut":
        return
    easing = int(rng.integers(5))
    if kind == "fade":
        colour = (0, 0, 0) if rng.random() < 0.8 else (255, 255, 255)
        out, hold, into = rng.integers((8, 0, 8), (26, 9, 26)).tolist()
        length = out + hold + into
        fade_out = Transition("fade_out", -1, out + 1, easing, colour=colour)
        fade_in = Transition("fade_in", out + hold - 1, into + 1, easing, colour=colour)
        for index in range(length):
            old = functools.partial(before.frame, at + index)
            new = functools.partial(after.frame, index)
            if index < out + hold:
                share = fade_out.progress(index) / 2
                frame = fade_out.join(index, old, old)
            else:
                share = 0.5 + fade_in.progress(index) / 2
                frame = fade_in.join(index, new, new)
            yield frame, share
        return
    limits = (2, 8) if short else (8, 41) if kind == "dissolve" else (8, 31)
    length = int(rng.integers(*limits))
    label = "dissolve" if kind == "dissolve" else str(rng.choice(WIPES))
    softness = 0.0 if rng.random() < 0.5 else float(rng.uniform(0.01, 0.35))
    transition = Transition(label, -1, length + 1, easing, softness)
    for index in range(length):
        old = functools.partial(before.frame, at + index)
        frame = transition.join(index, old, functools.partial(after.frame, index))
        yield frame, float(transition.alpha(index, HEIGHT, WIDTH).mean())


@dataclasses.dataclass(frozen=True)
class MovingShot:
    """A part of a shot through a window that moves a little, as a camera does.

    Attributes:
        frames: uint8 [N, H, W, 3]; after the last one they go backwards.
        start: The corner (top, left) of the window in the first frame, 0 to 1 of what is free.
        end: The corner in frame 150.
        zoom: Size of the window, as a part of the frame.
        mirrored: True to exchange left and right.
    """

    frames: Frame
    start: tuple[float, float]
    end: tuple[float, float]
    zoom: float
    mirrored: bool

    def frame(self, index: int) -> Frame:
        """RGB uint8 [HEIGHT, WIDTH, 3]."""
        count = len(self.frames)
        turn = index % (2 * count - 2)
        picture = self.frames[turn if turn < count else 2 * count - 2 - turn]
        scale = max(HEIGHT / picture.shape[0], WIDTH / picture.shape[1]) / self.zoom
        height, width = HEIGHT / scale, WIDTH / scale
        part = min(index / 150, 1.0)
        top, left = (
            (a + (b - a) * part) * (size - room)
            for a, b, size, room in zip(
                self.start, self.end, picture.shape[:2], (height, width), strict=True
            )
        )
        box = (left, top, left + width, top + height)
        resized = np.asarray(
            Image.fromarray(picture).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR, box=box)
        )
        return resized[:, ::-1] if self.mirrored else resized


def _random_shot(
    rng: np.random.Generator, sources: list[tuple[str, Frame]], but: str
) -> tuple[str, MovingShot]:
    """Takes a part of a shot of any other video; all videos equally often."""
    names = sorted({name for name, _ in sources} - {but})
    name = str(rng.choice(names))
    of_video = [frames for source, frames in sources if source == name]
    frames = of_video[int(rng.integers(len(of_video)))]
    start = int(rng.integers(max(1, len(frames) - 130)))
    corners = rng.random(4).tolist()
    is_still = rng.random() < 0.4
    first = (corners[0], corners[1])
    last = first if is_still else (corners[2], corners[3])
    zoom = float(rng.uniform(0.7, 1.0))
    return name, MovingShot(frames[start : start + 130], first, last, zoom, rng.random() < 0.5)


def _different_shot(
    rng: np.random.Generator, sources: list[tuple[str, Frame]], name: str, before: Frame
) -> tuple[str, MovingShot]:
    """Takes a shot that a person can tell from the frame before it."""
    while True:
        other, shot = _random_shot(rng, sources, name)
        pair = square(before).astype(np.float32), square(shot.frame(0)).astype(np.float32)
        if np.abs(pair[0] - pair[1]).mean() >= _LEAST_DIFFERENCE:
            return other, shot
