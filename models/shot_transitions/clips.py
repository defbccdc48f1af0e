"""Makes clips: joins two scenes by a transition, encodes as H.264, decodes and samples."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter
from PIL import Image

from models.shot_transitions.labels import LABELS
from models.shot_transitions.scenes import KINDS, Scene
from models.shot_transitions.transitions import Transition, random_transition

Frame = npt.NDArray[np.uint8]

NUM_FRAMES = 8
_SHORT_SIDES = (96, 112)
_ASPECTS = ((16, 9), (16, 9), (4, 3), (1, 1), (9, 16))
_LEAST_DIFFERENCE = 22.0  # mean grey levels between two scenes; with less they may look like one
_LEAST_CONTRAST = 9.0  # standard deviation of a scene; with less it may look like a flat card
_MOST_SCENES = 100


class Moving(Protocol):
    """A scene: it has a frame at any time."""

    @property
    def source(self) -> str:
        """The name of the video that the scene is from; "" for a drawn scene."""

    def frame(self, time: float) -> Frame:
        """RGB uint8 [height, width, 3] at a time in seconds."""


MakeScene = Callable[[np.random.Generator, int, int, float, str], Moving]
"""Makes a scene from (rng, height, width, seconds, kind); it lasts ``seconds``."""


@dataclass(frozen=True)
class Plan:
    """The properties of a clip, chosen before its scenes are made.

    Attributes:
        label: One of ``LABELS``.
        kind: One of ``KINDS``, for both scenes.
        height: Height of the frames in pixels.
        width: Width of the frames in pixels.
        frames: Number of frames.
        rate: Frames a second.
        crf: H.264's quality: x264's constant rate factor.
        preset: x264's preset.
        bars: Height of the black bars at the top and at the bottom, in pixels; 0 for none.
    """

    label: str
    kind: str
    height: int
    width: int
    frames: int
    rate: int
    crf: int
    preset: str
    bars: int

    @property
    def sampled(self) -> npt.NDArray[np.int64]:
        """The frames that the model sees: evenly spread, from the first to the last."""
        return np.linspace(0, self.frames - 1, NUM_FRAMES).astype(np.int64)


def random_plan(rng: np.random.Generator, label: str) -> Plan:
    """Chooses size, length, quality and kind of a clip with the given label."""
    across, up = _ASPECTS[int(rng.integers(len(_ASPECTS)))]
    short = int(rng.integers(_SHORT_SIDES[0] // 2, _SHORT_SIDES[1] // 2 + 1)) * 2
    height = short * up // min(across, up) // 2 * 2
    width = short * across // min(across, up) // 2 * 2
    shares = (0.2, 0.12, 0.2, 0.16, 0.16, 0.16) if label == "none" else (0.66, 0.26, 0, 0, 0.08, 0)
    return Plan(
        label=label,
        kind=str(rng.choice(KINDS, p=shares)),
        height=height,
        width=width,
        frames=int(rng.integers(14, 37)),
        rate=int(rng.choice((5, 8, 10, 12, 15, 24, 30))),
        crf=int(rng.integers(16, 37)),
        preset=str(rng.choice(("ultrafast", "superfast", "veryfast"))),
        bars=int(height * rng.uniform(0.04, 0.12)) if rng.random() < 0.06 else 0,
    )


def joined_frames(
    rng: np.random.Generator, plan: Plan, make_scene: MakeScene = Scene
) -> tuple[list[Frame], Transition]:
    """Makes the clip's frames before encoding, and the transition that joins its scenes."""
    transition = random_transition(rng, plan.label, plan.sampled, plan.height, plan.width)
    before, after = _two_scenes(rng, plan, transition, make_scene)
    frames = []
    for index in range(plan.frames):
        time = index / plan.rate
        old = functools.partial(before.frame, time)
        frame = transition.join(index, old, functools.partial(after.frame, time))
        if plan.bars:
            frame = frame.copy()
            frame[: plan.bars] = frame[-plan.bars :] = 0
        frames.append(frame)
    return frames, transition


def _two_scenes(
    rng: np.random.Generator,
    plan: Plan,
    transition: Transition,
    make_scene: MakeScene,
) -> tuple[Moving, Moving]:
    """Makes two scenes that a person can tell from each other and from a flat card."""
    middle = plan.frames / plan.rate / 2

    def draw() -> tuple[Moving, Frame]:
        scene = make_scene(rng, plan.height, plan.width, 2 * middle, plan.kind)
        return scene, square(scene.frame(middle))

    card = np.array(transition.colour, dtype=np.uint8)
    for _ in range(_MOST_SCENES):
        before, first = draw()
        if plan.label == "none":
            return before, before
        if first.std() < _LEAST_CONTRAST or _difference(first, card) < _LEAST_DIFFERENCE:
            continue
        after, second = draw()
        if before.source and before.source == after.source:
            continue
        if second.std() < _LEAST_CONTRAST or _difference(second, card) < _LEAST_DIFFERENCE:
            continue
        if _difference(first, second) >= _LEAST_DIFFERENCE:
            return before, after
    raise RuntimeError(f"no two different scenes in {_MOST_SCENES} tries; add other footage")


def _difference(first: Frame, second: Frame) -> float:
    return float(np.abs(first.astype(np.float32) - second.astype(np.float32)).mean())


def square(frame: Frame) -> Frame:
    """The centre square of a frame, which the models' centre crop keeps."""
    height, width = frame.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return frame[top : top + side, left : left + side]


def encode(frames: Sequence[Frame], rate: int, crf: int, preset: str) -> bytes:
    """Encodes frames (RGB uint8 [H, W, 3], even sides) as H.264 in an MP4 file."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        # Without the macroblock tree, because with it x264's output for odd sizes varies from run
        # to run.
        stream.options = {"crf": str(crf), "preset": preset, "x264-params": "mbtree=0"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def decode(video: bytes, wanted: npt.NDArray[np.int64]) -> list[Frame]:
    """Decodes the frames of a video at the wanted, sorted indices: RGB uint8."""
    positions = set(wanted.tolist())
    frames: dict[int, Frame] = {}
    with av.open(io.BytesIO(video), "r") as container:
        container.streams.video[0].thread_count = 1
        reformatter = VideoReformatter()
        for index, frame in enumerate(container.decode(video=0)):
            if index in positions:
                rgb = reformatter.reformat(frame, format="rgb24", threads=1)
                frames[index] = rgb.to_ndarray().astype(np.uint8, copy=False)
    return [frames[index] for index in wanted.tolist()]


def shrink(frames: Sequence[Frame], size: int) -> npt.NDArray[np.uint8]:
    """Resizes the short side to ``size`` and cuts out the centre square: [T, size, size, 3].

    The arithmetic, an antialiased bilinear resize, is that of the models' preprocessing.
    """
    height, width = frames[0].shape[:2]
    short = min(height, width)
    new = (int(size * width / short), int(size * height / short))
    left, top = (new[0] - size) // 2, (new[1] - size) // 2
    box = (left, top, left + size, top + size)
    return np.stack(
        [
            np.asarray(Image.fromarray(f).resize(new, Image.Resampling.BILINEAR).crop(box))
            for f in frames
        ]
    )


def render_clip(
    rng: np.random.Generator, label: str, size: int, make_scene: MakeScene = Scene
) -> npt.NDArray[np.uint8]:
    """Renders a clip and samples it; returns the model's frames, uint8 [8, size, size, 3]."""
    plan = random_plan(rng, label)
    frames, _ = joined_frames(rng, plan, make_scene)
    video = encode(frames, plan.rate, plan.crf, plan.preset)
    return shrink(decode(video, plan.sampled), size)


def random_label(rng: np.random.Generator) -> str:
    """Draws a label; ``none``, the most varied class, twice as often as each of the others."""
    shares = np.array([2.0] + [1.0] * (len(LABELS) - 1))
    return str(rng.choice(LABELS, p=shares / shares.sum()))
