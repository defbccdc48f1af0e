"""Pictures of timelines: SVG, PNG and the page, read by other programs."""

from __future__ import annotations

import html.parser
import io
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from timesformer_runtime import DecodeLimits, VideoClassifier
from timesformer_runtime.pictures import jpeg
from timesformer_runtime.timeline_picture import (
    Bands,
    Drawing,
    Stretch,
    bands_of,
    draw,
    png,
    svg,
    thumbnails,
)
from timesformer_runtime.timeline_picture import (
    html as page,
)
from timesformer_runtime.timeline_picture.drawing import COLOURS, clock

from tests.patience import PATIENCE
from tests.tiny_graphs import write_exported_model, write_video

EVIL = '</script><script>alert(1)</script>"&<b>'
SVG = "{http://www.w3.org/2000/svg}"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def picture(
    seconds: float = 40.0, labels: tuple[str, ...] = ("run", EVIL)
) -> tuple[Bands, Drawing]:
    """Each label is first for an equal part of the time."""
    each = seconds / len(labels)
    stretches = [
        Stretch(row * each, (row + 1) * each, ((label, 1.0),)) for row, label in enumerate(labels)
    ]
    bands = bands_of(stretches, 900)
    frame = np.full((144, 256, 3), (10, 200, 30), np.uint8)
    return bands, draw(bands, f"film {EVIL}", "2 segments", [jpeg(frame), jpeg(frame)])


def test_svg_is_xml_with_bands_at_their_times() -> None:
    bands, drawing = picture()
    root = ET.fromstring(svg(drawing))
    left, top, width, height = drawing.chart
    for row in range(2):
        (band,) = root.findall(f"{SVG}rect[@fill='{COLOURS[row]}']")
        assert float(band.get("x", "")) == pytest.approx(left + row * width / 2, abs=0.1)
        assert float(band.get("width", "")) == pytest.approx(width / 2, abs=0.1)
        assert top <= float(band.get("y", "")) < top + height
    texts = [text.text for text in root.findall(f"{SVG}text")]
    assert {"0:00", "0:05", "0:40", "50%", f"film {EVIL}"} <= set(texts)
    assert len(root.findall(f"{SVG}image")) == 2
    assert bands.labels == ("run", EVIL)


@pytest.mark.parametrize("seconds", [0.5, 2, 40, 600, 3600, 5 * 3600, 20 * 3600, 40 * 86400])
def test_times_on_the_axis_do_not_touch(seconds: float) -> None:
    _, drawing = picture(seconds)
    axis = [text for text in drawing.texts if text.anchor == "middle"]
    places = [text.x for text in axis]
    assert 2 <= len(axis) <= 14
    assert np.diff(places).min() >= 85
    assert len({text.text for text in axis}) == len(axis)


@pytest.mark.parametrize(
    ("time", "step", "last", "text"),
    [
        (65, 5, 100, "1:05"),
        (65, 0.5, 100, "1:05.0"),
        (0.30000000000000004, 0.1, 2, "0:00.3"),
        (65, 5, 3600, "0:01:05"),
        (36_065, 5, 40_000, "10:01:05"),
    ],
)
def test_clock(time: float, step: float, last: float, text: str) -> None:
    assert clock(time, step, last) == text


def test_png_has_the_colours_of_the_bands() -> None:
    _, drawing = picture()
    image = Image.open(io.BytesIO(png(drawing))).convert("RGB")
    assert image.size == (2400, 2 * drawing.height)
    left, top, width, _ = drawing.chart
    for row in range(2):
        x = 2 * (left + (row + 0.4) * width / 2)
        y = 2 * (top + 12 + row * 32)
        colour = tuple(int(COLOURS[row][start : start + 2], 16) for start in (1, 3, 5))
        assert image.getpixel((round(x), round(y))) == colour
    red, green, blue = image.getpixel((round(2 * left + 60), 2 * round(top) - 60))  # type: ignore[misc]
    assert abs(red - 10) + abs(green - 200) + abs(blue - 30) < 15


def test_twelve_long_labels_stay_inside() -> None:
    labels = tuple(f"{chr(97 + row)} label that goes on and on and on and on" for row in range(12))
    _, drawing = picture(labels=labels)
    shown = [text for text in drawing.texts if text.full]
    assert [text.full for text in shown] == list(labels)
    assert all(text.text.endswith("\N{HORIZONTAL ELLIPSIS}") for text in shown)
    assert len(set(COLOURS)) == 12


class _Scripts(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.addresses: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag == "script"
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts.append(data)


def test_the_page_needs_nothing_else_and_escapes_names() -> None:
    bands, drawing = picture()
    text = page(drawing, bands)
    parser = _Scripts()
    parser.feed(text)
    assert len(parser.scripts) == 2
    data = json.loads(parser.scripts[0])
    assert data["labels"] == ["run", EVIL]
    assert len(data["scores"]) == 900
    assert data["scores"][0] == [1, 0]
    assert data["scores"][899] == [0, 1]
    assert all(address.startswith("data:image/jpeg;base64,") for address in parser.addresses)
    assert "prefers-color-scheme:dark" in text


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_the_page_tells_time_and_scores_under_the_pointer(tmp_path: Path) -> None:
    bands, drawing = picture(7200.0)
    move = (
        "<script>window.onerror = (text) => document.title = text;"
        "const box = picture.getBoundingClientRect(), s = box.width / data.width;"
        "const x = box.left + (data.chart[0] + data.chart[2] * 0.75) * s;"
        "const y = box.top + (data.chart[1] + 5) * s;"
        'picture.dispatchEvent(new PointerEvent("pointermove", {clientX: x, clientY: y}));'
        "</script></body>"
    )
    path = tmp_path / "page.html"
    path.write_text(page(drawing, bands).replace("</body>", move), encoding="utf-8")
    done = subprocess.run(
        [
            *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *(f"--user-data-dir={tmp_path / 'profile'}", path.as_uri()),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    (tip,) = re.findall(r'<div id="tip"[^>]*>(.*?)</div></div>', done.stdout, re.DOTALL)
    assert "<b>1:30:00.0</b>" in tip
    assert "<em>1.00</em>" in tip
    assert "&lt;/script&gt;" in tip
    assert "hidden" not in re.findall(r'<div id="tip"[^>]*>', done.stdout)[0]


def test_thumbnails_are_the_frames_at_their_times(tmp_path: Path) -> None:
    frames = np.zeros((100, 90, 160, 3), np.uint8)
    frames += np.linspace(20, 218, 100).astype(np.uint8)[:, None, None, None]
    video = write_video(tmp_path / "ramp.mp4", frames, 10)
    model = write_exported_model(tmp_path / "model")
    bands = bands_of([Stretch(0.0, 10.0, (("run", 1.0),))], 900)
    classifier = VideoClassifier.from_pretrained(model, device="cpu")
    found = thumbnails(classifier, str(video), bands)
    assert 5 <= len(found) <= 9
    for number, one in enumerate(found):
        with Image.open(io.BytesIO(one)) as image:
            assert image.size == (160, 90)
            level = np.asarray(image).mean()
        index = int((number + 0.5) / len(found) * 100)
        assert abs(level - (20 + 2 * index)) < 6
    isolated = VideoClassifier.from_pretrained(
        model, device="cpu", limits=DecodeLimits(isolated=True)
    )
    assert thumbnails(isolated, str(video), bands) == found
