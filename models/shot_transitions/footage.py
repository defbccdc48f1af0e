"""Real footage: shots taken at random from a folder of videos, in the place of drawn scenes."""

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
_SHORT_SIDE = 128  # kept of each frame
_RATE = 15.0  # frames a second that are kept
_MOST_SECONDS = 40.0  # kept of each video
_LEAST_FRAMES = 12
_JUMP = 12.0  # mean grey levels between kept neighbours from which it may be a cut


@dataclass(frozen=True)
class Shot:
    """Consecutive frames without a cut, uint8 [N, H, W, 3], at ``_RATE``."""

    name: str
    frames: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ShotScene:
    """A part of a shot, as a scene: frames of the asked size at any time."""

    source: str
    frames: npt.NDArray[np.uint8]
    height: int
    width: int
    speed: float
    mirrored: bool

    def frame(self, time: float) -> Frame:
        """RGB uint8 [height, width, 3]; the last picture stands when the shot is over."""
        index = min(int(time * self.speed), len(self.frames) - 1)
        picture = _cover(self.frames[index], self.height, self.width)
        return picture[:, ::-1] if self.mirrored else picture


@dataclass(frozen=True)
class Footage:
    """The shots of a folder of videos."""

    shots: tuple[Shot, ...]

    @property
    def names(self) -> list[str]:
        """The files that have shots."""
        return sorted({shot.name for shot in self.shots})

    def random_scene(
        self, rng: np.random.Generator, height: int, width: int, seconds: float, kind: str
    ) -> ShotScene:
        """A part of a random shot; ``kind`` is of no use here, reality does what it wants."""
        del kind
        name = str(rng.choice(self.names))  # each video alike, however many shots it has
        shots = [shot for shot in self.shots if shot.name == name]
        frames = shots[int(rng.integers(len(shots)))].frames
        wanted = int(seconds * _RATE) + 1
        start = int(rng.integers(max(1, len(frames) - wanted + 1)))
        part = frames[start : start + wanted]
        speed = min(_RATE, (len(part) - 1) / seconds)  # a short shot is slowed down
        return ShotScene(name, part, height, width, speed, bool(rng.random() < 0.5))


@functools.lru_cache(maxsize=1)
def load_footage(folder: Path) -> Footage:
    """Reads the videos of a folder; those that do not decode are left out.

    Raises:
        ValueError: There are fewer than two videos with a usable shot.
    """
    shots: list[Shot] = []
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES):
        shots += [Shot(path.name, part) for part in _split(_read(path))]
    if len({shot.name for shot in shots}) < 2:
        raise ValueError(
            f"{folder} has fewer than two videos with a shot of {_LEAST_FRAMES} frames; add some"
        )
    return Footage(tuple(shots))


def _read(path: Path) -> list[Frame]:
    """The frames of a video at about ``_RATE``, small; those before the first damage."""
    frames: list[Frame] = []
    try:
        with av.open(io.BytesIO(path.read_bytes()), "r") as container:
            stream = container.streams.best("video")
            if stream is None:
                return []
            step = max(1, round(float(stream.average_rate or _RATE) / _RATE))
            for index, frame in enumerate(container.decode(stream)):
                if index % step == 0 and isinstance(frame, av.VideoFrame):
                    rgb = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
                    frames.append(_small(rgb))
                if len(frames) >= _MOST_SECONDS * _RATE:
                    break
    except FFmpegError:
        pass  # odd files are part of such folders; what came before is good
    return [frame for frame in frames if frame.shape == frames[0].shape]


def _small(frame: Frame) -> Frame:
    scale = _SHORT_SIDE / min(frame.shape[:2])
    size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR))


def _split(frames: list[Frame]) -> list[npt.NDArray[np.uint8]]:
    """Parts without a cut: where the picture jumps much more than around it, a new one begins."""
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


def _cover(frame: Frame, height: int, width: int) -> Frame:
    """The largest centred part of a frame with the aspect of the size, resized to it."""
    scale = max(height / frame.shape[0], width / frame.shape[1])
    part_h, part_w = height / scale, width / scale
    top, left = (frame.shape[0] - part_h) / 2, (frame.shape[1] - part_w) / 2
    box = (left, top, left + part_w, top + part_h)
    picture = Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR, box=box)
    return np.asarray(picture)
