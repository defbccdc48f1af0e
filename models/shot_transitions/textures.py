"""Draws the images that scenes show: textures, shapes, landscapes and rooms."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter


class Palette:
    """Colours that fit together: random around a mean, with a random contrast."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._centre = rng.uniform(45, 210) + rng.normal(0, 18, 3)
        self._contrast = rng.uniform(22, 75)
        self._saturation = rng.uniform(0.15, 0.9)

    @property
    def mean(self) -> tuple[int, int, int]:
        """RGB of the middle of the palette."""
        return _rgb(self._centre)

    @property
    def contrast(self) -> float:
        """The standard deviation of the colours' brightness, in grey levels."""
        return float(self._contrast)

    def random(self) -> tuple[int, int, int]:
        """RGB of one of its colours."""
        light, tint = self._rng.normal(0, 1), self._rng.normal(0, self._saturation, 3)
        return _rgb(self._centre + self._contrast * (light + tint))


def _rgb(values: npt.NDArray[np.float64]) -> tuple[int, int, int]:
    red, green, blue = (int(v) for v in np.clip(values, 0, 255))
    return red, green, blue


def textured_canvas(
    rng: np.random.Generator, size: tuple[int, int], unit: float, palette: Palette
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
    rng: np.random.Generator, size: tuple[int, int], unit: float, palette: Palette
) -> Image.Image:
    """The dead-leaves model of natural images: shapes of all sizes that hide each other."""
    picture = Image.new("RGB", size, palette.mean)
    _scatter(rng, picture, unit, palette, count=int(rng.integers(60, 220)))
    return picture


def _scatter(
    rng: np.random.Generator, picture: Image.Image, unit: float, palette: Palette, count: int
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
    rng: np.random.Generator, size: tuple[int, int], unit: float, palette: Palette
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
    rng: np.random.Generator, size: tuple[int, int], unit: float, palette: Palette
) -> Image.Image:
    """Things that people make, with straight edges: walls, windows, stripes and writing."""
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


def cut_out(rng: np.random.Generator, size: float, unit: float, palette: Palette) -> Image.Image:
    """Something that moves: a few joined shapes, textured, on a transparent ground."""
    side = max(4, int(size))
    mask = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(mask)
    for _ in range(int(rng.integers(1, 5))):
        centre = (rng.uniform(0.3, 0.7) * side, rng.uniform(0.3, 0.7) * side)
        _shape(rng, draw, centre, side * rng.uniform(0.15, 0.4), (255,))
    colours = palette if rng.random() < 0.5 else Palette(rng)
    picture = Image.new("RGB", (side, side), colours.random())
    _scatter(rng, picture, min(unit, side), colours, count=int(rng.integers(0, 8)))
    picture.putalpha(mask)
    return picture
