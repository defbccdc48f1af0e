"""Frames as JPEG or PNG files in memory."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image
from timesformer_runtime.pictures import data_url, jpeg, png

GRADIENT = np.broadcast_to(np.arange(90, dtype=np.uint8)[:, None, None], (90, 160, 3)).copy()


def test_png_keeps_every_pixel() -> None:
    image = Image.open(io.BytesIO(png(GRADIENT)))
    assert image.format == "PNG"
    np.testing.assert_array_equal(np.asarray(image), GRADIENT)


@pytest.mark.parametrize(("height", "size"), [(None, (160, 90)), (45, (80, 45)), (500, (160, 90))])
def test_jpeg_never_enlarges_and_keeps_the_shape(height: int | None, size: tuple[int, int]) -> None:
    image = Image.open(io.BytesIO(jpeg(GRADIENT, height=height, quality=95)))
    assert (image.format, image.size) == ("JPEG", size)
    difference = np.asarray(image)[:, :, 0].mean() - GRADIENT.mean()
    assert abs(float(difference)) < 1


def test_a_data_url_holds_the_bytes() -> None:
    head, _, body = data_url(b"\x00picture", "png").partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(body) == b"\x00picture"
