"""A picture of a timeline: bands of labels over time, with frames. Needs the extra ``evaluate``."""

from timesformer_runtime.timeline_picture.bands import MOST_LABELS, Bands, Stretch, bands_of
from timesformer_runtime.timeline_picture.drawing import COLUMNS, Drawing, draw
from timesformer_runtime.timeline_picture.page import html
from timesformer_runtime.timeline_picture.png import png
from timesformer_runtime.timeline_picture.svg import svg
from timesformer_runtime.timeline_picture.thumbnails import thumbnails

__all__ = [
    "COLUMNS",
    "MOST_LABELS",
    "Bands",
    "Drawing",
    "Stretch",
    "bands_of",
    "draw",
    "html",
    "png",
    "svg",
    "thumbnails",
]
