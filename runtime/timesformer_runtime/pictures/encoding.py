"""Frames as JPEG or PNG files in memory."""

from __future__ import annotations

import base64
import io
from typing import Literal

import numpy as np
import numpy.typing as npt

from timesformer_runtime.extras import evaluate_extra

with evaluate_extra():
    from PIL import Image


def jpeg(frame: npt.NDArray[np.uint8], *, height: int | None = None, quality: int = 80) -> bytes:
    """Encodes a frame as JPEG.

    Args:
        frame: RGB, [height, width, 3].
        height: Height of the picture, in pixels, where it is to be smaller than the frame. The
            width follows.
        quality: JPEG's quality, 1 to 95.
    """
    return _encoded(frame, height, "JPEG", quality=quality, optimize=True)


def png(frame: npt.NDArray[np.uint8], *, height: int | None = None) -> bytes:
    """Encodes a frame as PNG; see ``jpeg``."""
    return _encoded(frame, height, "PNG", optimize=True)


def data_url(picture: bytes, kind: Literal["jpeg", "png", "svg+xml"]) -> str:
    """Writes a picture into the address of an HTML element, so that a page needs no other file."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode('ascii')}"


def resized(frame: npt.NDArray[np.uint8], scale: float) -> npt.NDArray[np.uint8]:
    """Enlarges or shrinks a frame by a factor; at least one pixel remains of each side."""
    height, width = (max(1, round(side * scale)) for side in frame.shape[:2])
    if (height, width) == frame.shape[:2]:
        return frame
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))


def _encoded(
    frame: npt.NDArray[np.uint8], height: int | None, kind: str, **options: int | bool
) -> bytes:
    image = Image.fromarray(frame)
    if height is not None and height < image.height:
        width = max(1, round(image.width * height / image.height))
        image = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
