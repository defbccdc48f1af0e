"""Tells, by its first bytes, what was given in place of a video, and what to give."""

from __future__ import annotations

import re

HEAD = 4096  # bytes; in so many an animation says that it is one

_PICTURE = "it is a {} picture; give a video file, such as MP4, MKV or GIF"
_ANIMATION = "it is an animated {}; convert it to MP4, WebM or GIF first"
_SIGNS = (  # the first that is found counts
    (rb"\x89PNG\r\n\x1a\n(?:(?!IDAT).)*acTL", _ANIMATION.format("PNG")),
    (rb"\x89PNG\r\n\x1a\n", _PICTURE.format("PNG")),
    (rb"RIFF....WEBP(?:(?!VP8[ L]).)*ANIM", _ANIMATION.format("WebP")),
    (rb"RIFF....WEBP", _PICTURE.format("WebP")),
    (
        rb"\xff\xd8\xff",
        "it is a JPEG picture, or several; give a video file, such as MKV or AVI with these in it",
    ),
    (rb"BM....\0\0\0\0", _PICTURE.format("BMP")),
    (rb"II\*\0|MM\0\*", _PICTURE.format("TIFF")),
    (rb"8BPS", _PICTURE.format("Photoshop")),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", _PICTURE.format("JPEG XL")),
    (rb"#EXTM3U", "it is a playlist; give one of the video files that it names"),
)


def what_it_is(head: bytes) -> str | None:
    """Says what a file is that is not a video, and what to give; None where it is unknown.

    Args:
        head: Its first bytes, up to ``HEAD``.
    """
    return next((what for sign, what in _SIGNS if re.match(sign, head, re.DOTALL)), None)
