"""The letters of pictures: DejaVu Sans, which comes with matplotlib."""

from __future__ import annotations

import functools
from pathlib import Path

from timesformer_runtime.extras import evaluate_extra

with evaluate_extra():
    import matplotlib
    from PIL import ImageFont


@functools.lru_cache(maxsize=8)
def font(size: int) -> ImageFont.FreeTypeFont:
    """Loads the font in a size in pixels."""
    return _load("DejaVuSans.ttf", size)


@functools.lru_cache(maxsize=8)
def bold_font(size: int) -> ImageFont.FreeTypeFont:
    """Loads the bold font in a size in pixels."""
    return _load("DejaVuSans-Bold.ttf", size)


def _load(name: str, size: int) -> ImageFont.FreeTypeFont:
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", name)
    return ImageFont.truetype(str(path), size)


def text_width(text: str, size: int) -> float:
    """Measures a line of text, in pixels."""
    return float(font(size).getlength(text))


def shortened(text: str, size: int, room: float) -> str:
    """Cuts a text that does not fit into a room of so many pixels, and ends it with an ellipsis."""
    if text_width(text, size) <= room:
        return text
    while text and text_width(f"{text}\N{HORIZONTAL ELLIPSIS}", size) > room:
        text = text[:-1]
    return f"{text.rstrip()}\N{HORIZONTAL ELLIPSIS}"
