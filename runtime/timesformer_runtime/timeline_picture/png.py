"""The picture of a timeline as PNG."""

from __future__ import annotations

import io

from timesformer_runtime.extras import evaluate_extra
from timesformer_runtime.timeline_picture.drawing import WIDTH, Drawing
from timesformer_runtime.timeline_picture.fonts import bold_font, font
from timesformer_runtime.timeline_picture.svg import LIGHT

with evaluate_extra():
    from PIL import Image, ImageColor, ImageDraw, ImageOps

_SCALE = 2  # pixels of the file for a pixel of the drawing
_ANCHORS = {"start": "ls", "middle": "ms", "end": "rs"}


def png(drawing: Drawing) -> bytes:
    """Draws the picture on white paper, twice as large as SVG states it."""
    image = Image.new("RGB", (WIDTH * _SCALE, drawing.height * _SCALE), LIGHT["paper"])
    canvas = ImageDraw.Draw(image, "RGBA")
    for one in drawing.rectangles:
        colour = ImageColor.getrgb(LIGHT.get(one.colour, one.colour))
        left, top = round(one.x * _SCALE), round(one.y * _SCALE)
        right, bottom = round((one.x + one.width) * _SCALE), round((one.y + one.height) * _SCALE)
        box = (left, top, max(right, left + 1) - 1, max(bottom, top + 1) - 1)
        canvas.rectangle(box, fill=(*colour[:3], round(255 * one.opacity)))
    for frame in drawing.thumbnails:
        size = round(frame.width * _SCALE), round(frame.height * _SCALE)
        picture = ImageOps.fit(Image.open(io.BytesIO(frame.jpeg)), size)
        image.paste(picture, (round(frame.x * _SCALE), round(frame.y * _SCALE)))
    for text in drawing.texts:
        canvas.text(
            (text.x * _SCALE, text.y * _SCALE),
            text.text,
            fill=LIGHT[text.colour],
            font=(bold_font if text.is_bold else font)(text.size * _SCALE),
            anchor=_ANCHORS[text.anchor],
        )
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
