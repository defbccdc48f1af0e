"""Frames of a video at some times, for pictures."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Iterator

import numpy as np

from timesformer_runtime.extras import evaluate_extra
from timesformer_runtime.pictures import jpeg
from timesformer_runtime.pipeline import Pipeline
from timesformer_runtime.timeline_picture.bands import Bands
from timesformer_runtime.timeline_picture.drawing import thumbnail_times
from timesformer_runtime.video.decoder import VideoDecoder
from timesformer_runtime.video.limits import DecodeLimits
from timesformer_runtime.video.source import Source

with evaluate_extra():
    from PIL import Image

_HEIGHT = 144  # pixels, twice the height of a thumbnail


def thumbnails(pipeline: Pipeline, video: str, bands: Bands) -> list[bytes]:
    """Reads as many frames as fit above the bands, as JPEG pictures.

    Args:
        pipeline: Its limits apply, and with ``isolated`` another process reads the video.
        video: The path of the video.
        bands: The bands.

    Raises:
        TimesformerError: The video cannot be read.
    """
    (first,) = _pictures(pipeline, video, (bands.start,))
    width, height = Image.open(io.BytesIO(first)).size
    return _pictures(pipeline, video, thumbnail_times(bands, width / height))


def _pictures(pipeline: Pipeline, video: str, times: tuple[float, ...]) -> list[bytes]:
    job = _Job(times, pipeline.limits.in_reader_process().for_long_videos())
    with contextlib.closing(pipeline.new_readers()) as readers:
        read: list[bytes] = readers.single_answer(job.pictures, video, threads=1)
    return read


@dataclasses.dataclass(frozen=True)
class _Job:
    """Reads frames, in this process or, after pickling, in a reader process."""

    times: tuple[float, ...]
    limits: DecodeLimits

    def pictures(self, video: Source) -> Iterator[list[bytes]]:
        """Gives the pictures, all at once."""
        with VideoDecoder(
            video, limits=self.limits, scale_to=_smaller, square_pixels=True
        ) as decoder:
            known = np.array(decoder.times)
            indices = np.maximum(np.searchsorted(known, np.array(self.times) + 1e-6) - 1, 0)
            yield [jpeg(frame, quality=82) for frame in decoder.frames(indices).pixels]


def _smaller(height: int, width: int) -> tuple[int, int]:
    """Computes the size of a thumbnail of a frame."""
    scale = min(1.0, _HEIGHT / height)
    return max(1, round(height * scale)), max(1, round(width * scale))
