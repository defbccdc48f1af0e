"""Real footage: shots taken at random from a folder of videos, instead of drawn scenes."""

from __future__ import annotations

import functools
import io
import itertools
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.error import FFmpegError
from PIL import Image

Frame = npt.NDArray[np.uint8]

_SUFFIXES = {".mp4", ".mkv", ".mov", ".webm", ".avi", ".flv", ".ts", ".m4v"}
_SHORT_SIDE = 128  # pixels, after shrinking
_RATE = 15.0  # frames a second that are kept
_MOST_SECONDS = 40.0  # of each video, from its start
_LEAST_FRAMES = 12  # of a shot
_JUMP = 12.0  # least mean difference of neighbouring frames at a cut, in grey levels


@dataclass(frozen=True)
class Shot:
    """Consecutive frames without a cut, uint8 [N, H, W, 3], at the rate of the footage."""

    name: str
    frames: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ShotScene:
    """A part of a shot that serves as a scene: it gives a frame of any size at any time.

    Attributes:
        source: The name of the video.
        frames: The frames of the part, uint8 [N, H, W, 3].
        height: Height of the frames that it gives.
        width: Width of the frames that it gives.
        speed: Frames of ``frames`` that pass in a second.
        mirrored: True to exchange left and right.
    """

    source: str
    frames: npt.NDArray[np.uint8]
    height: int
    width: int
    speed: float
    mirrored: bool

    def frame(self, time: float) -> Frame:
        """RGB uint8 [height, width, 3]; after the end of the shot, its last frame."""
        index = min(int(time * self.speed), len(self.frames) - 1)
        frame = _resized_to_cover(self.frames[index], self.height, self.width)
        return frame[:, ::-1] if self.mirrored else frame


@dataclass(frozen=True)
class Footage:
    """The shots of a folder of videos."""

    shots: tuple[Shot, ...]

    @property
    def names(self) -> list[str]:
        """The names of the videos that have shots."""
        return sorted({shot.name for shot in self.shots})

    def random_scene(
        self, rng: np.random.Generator, height: int, width: int, seconds: float, kind: str
    ) -> ShotScene:
        """Takes a part of a random shot; ``kind`` is ignored, as real footage does not have it."""
        del kind
        name = str(rng.choice(self.names))  # all videos equally often, however many shots they have
        shots = [shot for shot in self.shots if shot.name == name]
        frames = shots[int(rng.integers(len(shots)))].frames
        wanted = int(seconds * _RATE) + 1
        start = int(rng.integers(max(1, len(frames) - wanted + 1)))
        part = frames[start : start + wanted]
        speed = min(_RATE, (len(part) - 1) / seconds)  # a short shot is played more slowly
        return ShotScene(name, part, height, width, speed, bool(rng.random() < 0.5))


@functools.lru_cache(maxsize=1)
def load_footage(
    folder: Path,
    *,
    short_side: int = _SHORT_SIDE,
    rate: float = _RATE,
    most_seconds: float = _MOST_SECONDS,
) -> Footage:
    """Reads the videos of a folder; videos that do not decode are left out.

    Args:
        folder: The folder.
        short_side: Pixels of the shorter side of the frames, after shrinking.
        rate: About how many frames of a second to keep.
        most_seconds: How much of each video to read, from its start.

    Raises:
        ValueError: There are fewer than two videos with a usable shot.
    """
    shots: list[Shot] = []
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES):
        frames = _read(path, short_side, rate, most_seconds)
        shots += [Shot(path.name, part) for part in _split(frames)]
    if len({shot.name for shot in shots}) < 2:
        raise ValueError(
            f"{folder} has fewer than two videos with a shot of {_LEAST_FRAMES} frames; add some"
        )
    return Footage(tuple(shots))


def _read(path: Path, short_side: int, rate: float, most_seconds: float) -> list[Frame]:
    """Reads the frames of a video at about a rate, shrunk, up to the first damage."""
    frames: list[Frame] = []
    try:
        with av.open(io.BytesIO(path.read_bytes()), "r") as container:
            stream = container.streams.best("video")
            if stream is None:
                return []
            step = max(1, round(float(stream.average_rate or rate) / rate))
            for index, frame in enumerate(container.decode(stream)):
                if index % step == 0 and isinstance(frame, av.VideoFrame):
                    rgb = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
                    frames.append(_small(rgb, short_side))
                if len(frames) >= most_seconds * rate:
                    break
    except FFmpegError:
        pass  # the frames before the damage are good
    return [frame for frame in frames if frame.shape == frames[0].shape]


def _small(frame: Frame, short_side: int) -> Frame:
    scale = short_side / min(frame.shape[:2])
    size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR))


def _split(frames: list[Frame]) -> list[npt.NDArray[np.uint8]]:
    """Splits frames at cuts: where two neighbours differ much more than those around them."""
    if len(frames) < _LEAST_FRAMES:
        return []
    tiny = np.stack([frame[::8, ::8] for frame in frames]).astype(np.float32)
    jumps = np.abs(np.diff(tiny, axis=0)).mean(axis=(1, 2, 3))
    cuts = [
        i + 1
        for i, jump in enumerate(jumps)
        if jump > _JUMP and jump > 3 * np.median(jumps[max(0, i - 5) : i + 6])
    ]
    bounds = [0, *cuts, len(frames)]
    parts = [np.stack(frames[a:b]) for a, b in itertools.pairwise(bounds) if b > a]
    return [part for part in parts if len(part) >= _LEAST_FRAMES]


def _resized_to_cover(frame: Frame, height: int, width: int) -> Frame:
    """Resizes the largest centred part of a frame that has the aspect ratio of the new size."""
    scale = max(height / frame.shape[0], width / frame.shape[1])
    part_h, part_w = height / scale, width / scale
    top, left = (frame.shape[0] - part_h) / 2, (frame.shape[1] - part_w) / 2
    box = (left, top, left + part_w, top + part_h)
    resized = Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR, box=box)
    return np.asarray(resized)
