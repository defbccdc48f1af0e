"""Procedural scenes: a textured world with its own camera, objects, light and noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from models.shot_transitions import motion
from models.shot_transitions.motion import Curve
from models.shot_transitions.textures import Palette, cut_out, textured_canvas

Frame = npt.NDArray[np.uint8]

KINDS = ("shot", "still", "fast", "flash", "light", "crossing")
"""The kinds of scenes; all but the first two are easily mistaken for a transition.

shot: some motion. still: next to none. fast: the camera moves quickly all the time.
flash: one or two short flashes. light: a strong change of light. crossing: a large object with
straight edges passes before the camera.
"""


@dataclass(frozen=True)
class _Sprite:
    """An object: a picture with transparency, and where its centre is over time."""

    picture: Image.Image
    x: Curve
    y: Curve

    def paste(self, onto: Image.Image, time: float) -> None:
        left = round(self.x(time) - self.picture.width / 2)
        top = round(self.y(time) - self.picture.height / 2)
        onto.paste(self.picture, (left, top), self.picture)


@dataclass
class Scene:
    """One continuous shot.

    Args:
        rng: The source of randomness, for the scene now and for its noise in each frame.
        height: Height of the frames.
        width: Width of the frames.
        seconds: The length of the scene; motion is planned for this time.
        kind: One of ``KINDS``.
    """

    rng: np.random.Generator
    height: int
    width: int
    seconds: float
    kind: str = "shot"
    _sprites: list[_Sprite] = field(default_factory=list)
    # A camera at rest shows the last view again.
    _last_matrix: tuple[float, ...] = ()
    _last_view: Image.Image = field(default_factory=lambda: Image.new("RGB", (1, 1)))

    def __post_init__(self) -> None:
        rng = self.rng
        self._unit = float(min(self.height, self.width))  # geometry scales with the frame
        self._palette = Palette(rng)
        reach = 2.6 if self.kind == "fast" else 1.5
        size = (int(self.width * reach), int(self.height * reach))
        self._canvas = textured_canvas(rng, size, self._unit, self._palette)
        self._plan_camera()
        self._plan_light()
        for _ in range(int(rng.choice((0, 1, 1, 2, 3, 5)))):
            self._sprites.append(self._random_sprite())
        if self.kind == "crossing":
            self._sprites.append(self._crossing_sprite())
        self._noise = float(rng.choice((0.0, 1.5, 3.0, 6.0), p=(0.4, 0.3, 0.2, 0.1)))

    @property
    def source(self) -> str:
        """Empty: a drawn scene is not from a video."""
        return ""

    def frame(self, time: float) -> Frame:
        """Draws the frame at a time in seconds, RGB uint8 [height, width, 3]."""
        picture = self._view(time)
        for sprite in self._sprites:
            sprite.paste(picture, time)
        pixels = np.asarray(self._light(picture, time))
        if not self._noise:
            return pixels
        grain = self.rng.standard_normal(pixels.shape[:2], dtype=np.float32) * self._noise
        noisy: npt.NDArray[np.float32] = np.clip(pixels + grain[..., None], 0, 255)
        return noisy.astype(np.uint8)

    def _plan_camera(self) -> None:
        rng, seconds = self.rng, self.seconds
        room_x = (self._canvas.width - self.width) / 2
        room_y = (self._canvas.height - self.height) / 2
        drift: Curve = motion.still
        drift_y: Curve = motion.still
        turn: Curve = motion.still
        zoom: Curve = motion.still
        style = rng.random()
        if self.kind == "fast":
            drift, drift_y = (
                motion.fast(rng, seconds, room_x),
                motion.fast(rng, seconds, room_y * 0.5),
            )
            if rng.random() < 0.3:
                zoom = motion.ramp(rng, seconds, 0.5)
        elif self.kind != "still" and style < 0.7:
            drift, drift_y = (
                motion.ramp(rng, seconds, room_x),
                motion.ramp(rng, seconds, room_y * 0.6),
            )
            if rng.random() < 0.35:
                zoom = motion.ramp(rng, seconds, 0.3)
            if rng.random() < 0.2:
                turn = motion.ramp(rng, seconds, 0.15)
        shake = self._unit * float(rng.choice((0.0, 0.006, 0.02), p=(0.5, 0.35, 0.15)))
        if self.kind == "still":
            shake = min(shake, self._unit * 0.006)
        shake_x, shake_y = motion.shake(rng, shake), motion.shake(rng, shake)
        self._camera_x: Curve = lambda t: float(np.clip(drift(t), -room_x, room_x)) + shake_x(t)
        self._camera_y: Curve = lambda t: float(np.clip(drift_y(t), -room_y, room_y)) + shake_y(t)
        self._camera_turn, self._camera_zoom = turn, zoom

    def _view(self, time: float) -> Image.Image:
        """The canvas as the camera sees it."""
        scale = math.exp(-self._camera_zoom(time))
        turn = self._camera_turn(time)
        cos, sin = scale * math.cos(turn), scale * math.sin(turn)
        x = self._canvas.width / 2 + self._camera_x(time)
        y = self._canvas.height / 2 + self._camera_y(time)
        half_x, half_y = self.width / 2, self.height / 2
        matrix = (
            *(cos, -sin, x - cos * half_x + sin * half_y),
            *(sin, cos, y - sin * half_x - cos * half_y),
        )
        if matrix != self._last_matrix:
            self._last_matrix, self._last_view = matrix, self._transformed(matrix)
        return self._last_view.copy()

    def _transformed(self, matrix: tuple[float, ...]) -> Image.Image:
        return self._canvas.transform(
            (self.width, self.height),
            Image.Transform.AFFINE,
            matrix,
            Image.Resampling.BILINEAR,
            fillcolor=self._palette.mean,
        )

    def _plan_light(self) -> None:
        rng, seconds = self.rng, self.seconds
        gain: Curve = motion.still
        veil: Curve = motion.still
        if self.kind == "flash":
            veil = motion.flashes(rng, seconds)
        elif self.kind == "light":
            gain = motion.light_change(rng, seconds)
        elif rng.random() < 0.3:
            gain = motion.ramp(rng, seconds, 0.2)
        if rng.random() < 0.08:
            flicker, base = motion.shake(rng, 0.08, fastest=12.0), gain
            gain = lambda t: base(t) + flicker(t)  # noqa: E731 (a def would be longer)
        self._gain, self._veil = gain, veil
        self._veil_colour = (255, 255, 255) if rng.random() < 0.85 else self._palette.random()

    def _light(self, picture: Image.Image, time: float) -> Image.Image:
        gain, veil = math.exp(self._gain(time)), self._veil(time)
        if abs(gain - 1) < 1e-3 and veil <= 0:
            return picture
        levels = np.clip(np.arange(256) * gain, 0, 255)
        table = [levels * (1 - veil) + c * veil for c in self._veil_colour]
        return picture.point(np.concatenate(table).round().astype(int).tolist())

    def _random_sprite(self) -> _Sprite:
        rng, unit = self.rng, self._unit
        size = unit * float(np.exp(rng.uniform(math.log(0.1), math.log(0.6))))
        picture = cut_out(rng, size, unit, self._palette)
        speed = 0.0 if self.kind == "still" and rng.random() < 0.7 else rng.exponential(0.25) * unit
        angle = rng.uniform(0, 2 * math.pi)
        x0, y0 = rng.uniform(0, self.width), rng.uniform(0.2 * self.height, self.height)
        sway_x, sway_y = motion.shake(rng, 0.03 * unit), motion.shake(rng, 0.03 * unit)
        middle = self.seconds / 2
        return _Sprite(
            picture,
            lambda t: x0 + speed * math.cos(angle) * (t - middle) + sway_x(t),
            lambda t: y0 + 0.4 * speed * math.sin(angle) * (t - middle) + sway_y(t),
        )

    def _crossing_sprite(self) -> _Sprite:
        """A large thing that passes before the camera; it never hides all of the scene."""
        rng = self.rng
        horizontal = rng.random() < 0.65
        along, across = (self.width, self.height) if horizontal else (self.height, self.width)
        size = (int(along * rng.uniform(0.2, 0.6)), int(across * rng.uniform(0.7, 1.6)))
        if not horizontal:
            size = size[::-1]
        picture = textured_canvas(rng, size, self._unit, Palette(rng)).convert("RGBA")
        if rng.random() < 0.4:
            mask = Image.new("L", size, 0)
            ImageDraw.Draw(mask).rounded_rectangle((0, 0, *size), size[0] * 0.3, fill=255)
            picture.putalpha(mask)
        length = size[0] if horizontal else size[1]
        begin, end = -length * rng.uniform(0, 0.8), along + length * rng.uniform(0, 0.8)
        if rng.random() < 0.35:  # it comes and stays
            end = along * rng.uniform(0.35, 0.65)
        if rng.random() < 0.5:
            begin, end = along - begin, along - end
        first, duration = motion.interval(rng, self.seconds)
        other = across * rng.uniform(0.3, 0.7)
        path: Curve = lambda t: begin + (end - begin) * min(max((t - first) / duration, 0), 1)  # noqa: E731
        rest: Curve = lambda t: other  # noqa: E731, ARG005
        return _Sprite(picture, *((path, rest) if horizontal else (rest, path)))
