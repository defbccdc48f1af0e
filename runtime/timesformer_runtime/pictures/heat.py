"""Heat: a map of numbers laid over a picture, in colours from violet to yellow."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from timesformer_runtime.extras import evaluate_extra

with evaluate_extra():
    from PIL import Image

Rgb = npt.NDArray[np.uint8]  # [height, width, 3]
Heat = npt.NDArray[np.float32]  # [rows, columns]

# Even steps of brightness, so that the map is also read without seeing colours.
_COLOURS = np.array(
    [
        (40, 11, 84),
        (101, 21, 110),
        (159, 42, 99),
        (212, 72, 66),
        (245, 125, 21),
        (250, 193, 39),
        (252, 255, 164),
    ]
)
_MOST_COVER = 0.72  # of a picture by the hottest colour
_LEVELS = np.linspace(0, 1, 256)
_TABLE = np.stack(
    [np.interp(_LEVELS, np.linspace(0, 1, len(_COLOURS)), part) for part in _COLOURS.T], axis=1
)
_COVER = _MOST_COVER * _LEVELS**0.8


def heat_colours(heat: Heat) -> Rgb:
    """The colours of heat from 0 to 1, of any shape: uint8 [..., 3]."""
    return _TABLE[_indices(heat)].round().astype(np.uint8)


def stretched(heat: Heat, size: tuple[int, int]) -> Heat:
    """Stretches a map to a height and width in pixels, smoothly."""
    image = Image.fromarray(np.ascontiguousarray(heat, dtype=np.float32))
    resized = image.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.float32)


def under_heat(picture: Rgb, heat: Heat) -> Rgb:
    """Lays heat over a picture, whose own colours are weakened: the hotter, the less of it is seen.

    Args:
        picture: The picture [height, width, 3].
        heat: From 0 to 1, [height, width].
    """
    indices = _indices(heat)
    picture = _half_grey(picture)
    kept = ((1 - _COVER) * 256).astype(np.uint16)[indices]
    colours = (_TABLE * _COVER[:, None]).round().astype(np.uint8)[indices]
    faded = (picture * kept[..., None]) >> 8  # uint16
    return np.asarray(faded, dtype=np.uint8) + colours


def _half_grey(picture: Rgb) -> Rgb:
    """Takes half of the colour out of a picture."""
    image = Image.fromarray(picture)
    return np.asarray(Image.blend(image, image.convert("L").convert("RGB"), 0.5))


def _indices(heat: Heat) -> npt.NDArray[np.uint8]:
    return (np.clip(heat, 0, 1) * 255 + 0.5).astype(np.uint8)
