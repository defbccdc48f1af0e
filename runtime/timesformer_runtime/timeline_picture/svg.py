"""The picture of a timeline as SVG."""

from __future__ import annotations

from html import escape

from timesformer_runtime.pictures import data_url
from timesformer_runtime.timeline_picture.drawing import WIDTH, Drawing, Rectangle, Text, Thumbnail

LIGHT = {
    "paper": "#ffffff",
    "ink": "#1d2129",
    "soft": "#5b6472",
    "track": "#eef0f4",
    "grid": "#d4d8df",
}
DARK = {
    "paper": "#14171c",
    "ink": "#e8eaee",
    "soft": "#9aa3b2",
    "track": "#232830",
    "grid": "#3a414c",
}


def svg(drawing: Drawing) -> str:
    """Writes the picture on white paper."""
    rules = "".join(f".{name}{{fill:{colour}}}" for name, colour in LIGHT.items())
    return svg_element(drawing, f"<style>{rules}</style>")


def svg_element(drawing: Drawing, head: str = "") -> str:
    """Writes the picture without the rules for the colours of ink and paper, and adds a head."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {drawing.height}" '
        f'width="{WIDTH}" height="{drawing.height}" role="img" '
        "font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\">",
        f"<title>{_escaped(drawing.title)}</title>",
        head,
        *map(_rectangle, drawing.rectangles),
        *map(_thumbnail, drawing.thumbnails),
        *map(_text, drawing.texts),
        "</svg>\n",
    ]
    return "\n".join(filter(None, parts))


def _thumbnail(one: Thumbnail) -> str:
    return (
        f'<image x="{one.x:.1f}" y="{one.y:.1f}" width="{one.width:.1f}" '
        f'height="{one.height:.1f}" preserveAspectRatio="xMidYMid slice" '
        f'href="{data_url(one.jpeg, "jpeg")}"/>'
    )


def _rectangle(one: Rectangle) -> str:
    fill = f'fill="{one.colour}"' if one.colour.startswith("#") else f'class="{one.colour}"'
    opacity = f' fill-opacity="{one.opacity:g}"' if one.opacity < 1 else ""
    return (
        f'<rect x="{one.x:.1f}" y="{one.y:.1f}" width="{one.width:.2f}" '
        f'height="{one.height:.1f}" {fill}{opacity}/>'
    )


def _text(one: Text) -> str:
    title = f"<title>{_escaped(one.full)}</title>" if one.full else ""
    weight = ' font-weight="600"' if one.is_bold else ""
    return (
        f'<text class="{one.colour}" x="{one.x:.1f}" y="{one.y:.1f}" font-size="{one.size}" '
        f'text-anchor="{one.anchor}"{weight}>{_escaped(one.text)}{title}</text>'
    )


def _escaped(text: str) -> str:
    return escape(text, quote=True)
