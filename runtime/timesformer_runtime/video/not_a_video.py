"""Recognises an image, an animation or a playlist that a user gave in place of a video."""

from __future__ import annotations

import re

HEAD_BYTES = 4096  # from the start of a file; they show if an image file holds an animation

_IMAGE = "it is a {} image; give a video file, such as MP4, MKV or GIF"
_ANIMATION = "it is an animated {}; convert it to MP4, WebM or GIF first"
_SIGNATURES = (  # the first match counts
    (rb"\x89PNG\r\n\x1a\n(?:(?!IDAT).)*acTL", _ANIMATION.format("PNG")),
    (rb"\x89PNG\r\n\x1a\n", _IMAGE.format("PNG")),
    (rb"RIFF....WEBP(?:(?!VP8[ L]).)*ANIM", _ANIMATION.format("WebP")),
    (rb"RIFF....WEBP", _IMAGE.format("WebP")),
    (
        rb"\xff\xd8\xff",
        "it is a JPEG image, or several; give a video file, such as MKV or AVI with these in it",
    ),
    (rb"BM....\0\0\0\0", _IMAGE.format("BMP")),
    (rb"II\*\0|MM\0\*", _IMAGE.format("TIFF")),
    (rb"8BPS", _IMAGE.format("Photoshop")),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", _IMAGE.format("JPEG XL")),
    (rb"#EXTM3U", "it is a playlist; give one of the video files that it names"),
)


def describe_other_file(head: bytes) -> str | None:
    """Names the kind of a file that is not a video, and what to give in place of it.

    Args:
        head: The first bytes of the file, up to ``HEAD_BYTES``.

    Returns:
        Words that follow "NAME cannot be opened as a video: "; None for an unknown kind of file.
    """
    matches = (text for signature, text in _SIGNATURES if re.match(signature, head, re.DOTALL))
    return next(matches, None)
