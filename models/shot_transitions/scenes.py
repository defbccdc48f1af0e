"""Procedural scenes: textures and shapes with natural statistics, camera, objects and light."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Frame = npt.NDArray[np.uint8]
Curve = Callable[[float], float]  # a value over time in seconds

KINDS = ("shot", "still", "fast", "flash", "light", "crossing")
"""What happens in a scene; all but the first two are easily mistaken for a transition.

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
        rng: Where chance comes from; the scene is drawn from it now, its noise later.
        height: Height of the frames.
        width: Width of the frames.
        seconds: How long it will be looked at; motion is planned for this time.
        kind: One of ``KINDS``.
    """

    rng: np.random.Generator
    height: int
    width: int
    seconds: float
    kind: str = "shot"
    _sprites: list[_Sprite] = field(default_factory=list)
    _last_matrix: tuple[float, ...] = ()  # a camera at rest need not look twice
    _last_view: Image.Image = field(default_factory=lambda: Image.new("RGB", (1, 1)))

    def __post_init__(self) -> None:
        rng = self.rng
        self._unit = float(min(self.height, self.width))  # geometry scales with the frame
        self._palette = _Palette(rng)
        reach = 2.6 if self.kind == "fast" else 1.5
        size = (int(self.width * reach), int(self.height * reach))
        self._canvas = _canvas(rng, size, self._unit, self._palette)
        self._plan_camera()
        self._plan_light()
        for _ in range(int(rng.choice((0, 1, 1, 2, 3, 5)))):
            self._sprites.append(self._random_sprite())
        if self.kind == "crossing":
            self._sprites.append(self._crossing_sprite())
        self._noise = float(rng.choice((0.0, 1.5, 3.0, 6.0), p=(0.4, 0.3, 0.2, 0.1)))

    @property
    def source(self) -> str:
        """Every scene is new."""
        return ""

    def frame(self, time: float) -> Frame:
        """The picture at a time in seconds, RGB uint8 [height, width, 3]."""
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
        drift: Curve = _still
        drift_y: Curve = _still
        turn: Curve = _still
        zoom: Curve = _still
        style = rng.random()
        if self.kind == "fast":
            drift, drift_y = _fast(rng, seconds, room_x), _fast(rng, seconds, room_y * 0.5)
            if rng.random() < 0.3:
                zoom = _ramp(rng, seconds, 0.5)
        elif self.kind != "still" and style < 0.7:
            drift, drift_y = _ramp(rng, seconds, room_x), _ramp(rng, seconds, room_y * 0.6)
            if rng.random() < 0.35:
                zoom = _ramp(rng, seconds, 0.3)
            if rng.random() < 0.2:
                turn = _ramp(rng, seconds, 0.15)
        shake = self._unit * float(rng.choice((0.0, 0.006, 0.02), p=(0.5, 0.35, 0.15)))
        if self.kind == "still":
            shake = min(shake, self._unit * 0.006)
        shake_x, shake_y = _shake(rng, shake), _shake(rng, shake)
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
        gain: Curve = _still
        veil: Curve = _still
        if self.kind == "flash":
            veil = _flashes(rng, seconds)
        elif self.kind == "light":
            gain = _light_change(rng, seconds)
        elif rng.random() < 0.3:
            gain = _ramp(rng, seconds, 0.2)
        if rng.random() < 0.08:
            flicker, base = _shake(rng, 0.08, fastest=12.0), gain
            gain = lambda t: base(t) + flicker(t)  # noqa: E731 (curves are values here)
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
        picture = _object(rng, size, unit, self._palette)
        speed = 0.0 if self.kind == "still" and rng.random() < 0.7 else rng.exponential(0.25) * unit
        angle = rng.uniform(0, 2 * math.pi)
        x0, y0 = rng.uniform(0, self.width), rng.uniform(0.2 * self.height, self.height)
        sway_x, sway_y = _shake(rng, 0.03 * unit), _shake(rng, 0.03 * unit)
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
        picture = _canvas(rng, size, self._unit, _Palette(rng)).convert("RGBA")
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
        first, duration = _interval(rng, self.seconds)
        other = across * rng.uniform(0.3, 0.7)
        path: Curve = lambda t: begin + (end - begin) * min(max((t - first) / duration, 0), 1)  # noqa: E731
        rest: Curve = lambda t: other  # noqa: E731, ARG005
        return _Sprite(picture, *((path, rest) if horizontal else (rest, path)))


class _Palette:
    """A few colours that go together: around a mean, with the contrast of a day or a night."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._centre = rng.uniform(45, 210) + rng.normal(0, 18, 3)
        self._contrast = rng.uniform(22, 75)
        self._saturation = rng.uniform(0.15, 0.9)

    @property
    def mean(self) -> tuple[int, int, int]:
        return _rgb(self._centre)

    @property
    def contrast(self) -> float:
        return float(self._contrast)

    def random(self) -> tuple[int, int, int]:
        light, tint = self._rng.normal(0, 1), self._rng.normal(0, self._saturation, 3)
        return _rgb(self._centre + self._contrast * (light + tint))


def _rgb(values: npt.NDArray[np.float64]) -> tuple[int, int, int]:
    red, green, blue = (int(v) for v in np.clip(values, 0, 255))
    return red, green, blue


def _canvas(
    rng: np.random.Generator, size: tuple[int, int], unit: float, palette: _Palette
) -> Image.Image:
    """A textured picture, width x height pixels."""
    style = rng.choice(("clouds", "leaves", "land", "rooms", "flat"), p=(0.15, 0.3, 0.2, 0.25, 0.1))
    if style == "clouds":
        picture = Image.new("RGB", size, palette.mean)
    elif style == "leaves":
        picture = _leaves(rng, size, unit, palette)
    elif style == "land":
        picture = _land(rng, size, unit, palette)
    elif style == "rooms":
        picture = _rooms(rng, size, unit, palette)
    else:
        picture = Image.new("RGB", size, palette.random())
        _scatter(rng, picture, unit, palette, count=int(rng.integers(2, 9)))
    strength = palette.contrast * (1.0 if style == "clouds" else rng.uniform(0, 0.5))
    picture = _textured(rng, picture, strength)
    blur = float(rng.choice((0.0, 0.005, 0.015), p=(0.6, 0.3, 0.1))) * unit
    return picture.filter(ImageFilter.GaussianBlur(blur)) if blur else picture


def _textured(rng: np.random.Generator, picture: Image.Image, strength: float) -> Image.Image:
    """Adds noise with the power spectrum of natural images, partly coloured."""
    width, height = picture.width // 2 + 1, picture.height // 2 + 1
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    falloff = (frequency ** -rng.uniform(0.8, 1.8)).astype(np.float32)
    planes = []
    for _ in range(2):
        spectrum = np.fft.rfft2(rng.standard_normal((height, width), dtype=np.float32))
        plane = np.fft.irfft2(spectrum * falloff, (height, width))
        planes.append(plane / (plane.std() + 1e-6))
    tint = rng.normal(0, 0.4, 3)
    noise = strength * (planes[0][..., None] + planes[1][..., None] * tint)
    field = Image.fromarray(np.clip(noise * 0.5 + 128, 0, 255).astype(np.uint8))
    grown = np.asarray(field.resize(picture.size, Image.Resampling.BILINEAR), dtype=np.float32)
    total = np.asarray(picture, dtype=np.float32) + 2 * (grown - 128)
    return Image.fromarray(np.clip(total, 0, 255).astype(np.uint8))


def _leaves(
    rng: np.random.Generator, size: tuple[int, int], unit: float, palette: _Palette
) -> Image.Image:
    """Dead leaves: shapes of all sizes that hide each other, as objects in the world do."""
    picture = Image.new("RGB", size, palette.mean)
    _scatter(rng, picture, unit, palette, count=int(rng.integers(60, 220)))
    return picture


def _scatter(
    rng: np.random.Generator, picture: Image.Image, unit: float, palette: _Palette, count: int
) -> None:
    draw = ImageDraw.Draw(picture)
    radii = unit * 0.03 / np.sqrt(rng.uniform(0.0025, 1.0, count))  # density falls with r^-3
    for radius in sorted(radii, reverse=True):
        _shape(
            rng,
            draw,
            (rng.uniform(0, picture.width), rng.uniform(0, picture.height)),
            radius,
            palette.random(),
        )


def _shape(
    rng: np.random.Generator,
    draw: ImageDraw.ImageDraw,
    centre: tuple[float, float],
    radius: float,
    fill: tuple[int, ...],
) -> None:
    x, y = centre
    stretch = math.exp(rng.normal(0, 0.4))
    across, up = radius * stretch, radius / stretch
    kind = rng.random()
    if kind < 0.35:
        draw.ellipse((x - across, y - up, x + across, y + up), fill=fill)
    elif kind < 0.7:
        draw.rectangle((x - across, y - up, x + across, y + up), fill=fill)
    else:
        corners = np.sort(rng.uniform(0, 2 * math.pi, int(rng.integers(3, 8))))
        draw.polygon([(x + across * math.cos(a), y + up * math.sin(a)) for a in corners], fill=fill)


def _land(
    rng: np.random.Generator, size: tuple[int, int], unit: float, palette: _Palette
) -> Image.Image:
    """A sky that changes colour to the horizon, hills before it, things on the ground."""
    width, height = size
    top, low = np.array(palette.random()), np.array(palette.random())
    share = np.linspace(0, 1, height)[:, None, None]
    rows = np.broadcast_to(top * (1 - share) + low * share, (height, width, 3))
    picture = Image.fromarray(rows.astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for level in np.sort(rng.uniform(0.3, 0.85, int(rng.integers(1, 4)))):
        xs = np.linspace(0, width, 24)
        waves = sum(
            rng.normal(0, 0.06 / k) * np.sin(xs / unit * k * 2 + rng.uniform(0, 7))
            for k in (1, 2, 4, 8)
        )
        ys = height * level + unit * waves
        outline = [(0, height), *zip(xs.tolist(), np.asarray(ys).tolist(), strict=True)]
        draw.polygon([*outline, (width, height)], fill=palette.random())
    _scatter(rng, picture, unit, palette, count=int(rng.integers(0, 15)))
    return picture


def _rooms(
    rng: np.random.Generator, size: tuple[int, int], unit: float, palette: _Palette
) -> Image.Image:
    """Man-made: walls, windows, stripes and writing, with straight edges."""
    width, height = size
    picture = Image.new("RGB", size, palette.random())
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(2, 8))):
        x, y = rng.uniform(-0.2, 1, 2) * size
        across, up = unit * rng.uniform(0.1, 1.2, 2)
        draw.rectangle((x, y, x + across, y + up), fill=palette.random())
    for _ in range(int(rng.integers(0, 4))):
        x, y = rng.uniform(0, 1, 2) * size
        step, fill = unit * rng.uniform(0.04, 0.2), palette.random()
        columns, rows = rng.integers(1, 9, 2)
        box = step * rng.uniform(0.3, 0.9, 2)
        for i in range(int(columns)):
            for j in range(int(rows)):
                left, top = x + i * step, y + j * step
                draw.rectangle((left, top, left + box[0], top + box[1]), fill=fill)
    for _ in range(int(rng.integers(0, 3))):
        x, y = rng.uniform(0, 0.8, 2) * (width, height)
        text = "".join(chr(c) for c in rng.integers(33, 123, int(rng.integers(3, 14))))
        fill, size_in_pixels = palette.random(), float(unit * rng.uniform(0.08, 0.3))
        draw.text((x, y), text, fill=fill, font_size=size_in_pixels)
    return picture


def _object(rng: np.random.Generator, size: float, unit: float, palette: _Palette) -> Image.Image:
    """Something that moves: a few joined shapes, textured, on a transparent ground."""
    side = max(4, int(size))
    mask = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(mask)
    for _ in range(int(rng.integers(1, 5))):
        centre = (rng.uniform(0.3, 0.7) * side, rng.uniform(0.3, 0.7) * side)
        _shape(rng, draw, centre, side * rng.uniform(0.15, 0.4), (255,))
    colours = palette if rng.random() < 0.5 else _Palette(rng)
    picture = Image.new("RGB", (side, side), colours.random())
    _scatter(rng, picture, min(unit, side), colours, count=int(rng.integers(0, 8)))
    picture.putalpha(mask)
    return picture


def _still(time: float) -> float:  # noqa: ARG001 (a curve)
    return 0.0


def _ramp(rng: np.random.Generator, seconds: float, most: float) -> Curve:
    """A change by up to ``most``, spread over some of the time, with or without easing."""
    amount, (first, duration) = rng.uniform(-most, most), _interval(rng, seconds)
    eased, begin = rng.random() < 0.5, -amount * rng.uniform(0, 1)

    def curve(time: float) -> float:
        p = min(max((time - first) / duration, 0.0), 1.0)
        return float(begin + amount * (p * p * (3 - 2 * p) if eased else p))

    return curve


def _interval(rng: np.random.Generator, seconds: float) -> tuple[float, float]:
    if rng.random() < 0.4:
        return 0.0, seconds
    duration = seconds * rng.uniform(0.35, 1.0)
    return rng.uniform(0, seconds - duration), duration


def _fast(rng: np.random.Generator, seconds: float, most: float) -> Curve:
    """Quick motion that goes on all the time: there and back, once or a few times."""
    rate = rng.uniform(0.3, 1.5) / seconds
    amount, phase = most * rng.uniform(0.5, 1.0), rng.uniform(0, 1)
    # A triangle wave: constant speed between its turning points.
    return lambda t: amount * (4 * abs((t * rate + phase) % 1 - 0.5) - 1)


def _shake(rng: np.random.Generator, amount: float, fastest: float = 4.0) -> Curve:
    rates, phases = rng.uniform(0.3, fastest, 3), rng.uniform(0, 7, 3)
    weights = rng.uniform(0.2, 1.0, 3) * amount
    return lambda t: float((weights * np.sin(2 * math.pi * rates * t + phases)).sum())


def _flashes(rng: np.random.Generator, seconds: float) -> Curve:
    """Short pulses of light that come and go; the scene is the same before and after."""
    moments = rng.uniform(0.12, 0.88, int(rng.choice((1, 1, 2)))) * seconds
    widths = rng.uniform(0.03, 0.16, len(moments)) * seconds
    heights = rng.uniform(0.4, 1.0, len(moments))

    def curve(time: float) -> float:
        rise = 1 - np.abs(time - moments) / widths
        return float(np.clip(heights * np.clip(rise * 1.5, 0, 1), 0, 1).max())

    return curve


def _light_change(rng: np.random.Generator, seconds: float) -> Curve:
    """Clouds, lamps and apertures: a lasting change by a factor of up to 2.5, quick or slow."""
    amount = rng.uniform(0.35, 0.9) * rng.choice((-1, 1))
    share = rng.uniform(0.2, 0.8)  # how much of it is below the scene's own brightness
    moment, duration = rng.uniform(0.15, 0.85) * seconds, seconds * rng.choice((0.01, 0.2, 0.6))
    back = rng.random() < 0.25

    def curve(time: float) -> float:
        p = min(max((time - moment) / duration + 0.5, 0.0), 1.0)
        if back:
            p = min(2 * p, 2 - 2 * p)
        return float(amount * (p - share))

    return curve
