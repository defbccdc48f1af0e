"""Small pictures of the frames that a model saw. Reader processes import this: no FastAPI here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt

from timesformer_runtime.video.decoder import VideoDecoder
from timesformer_runtime.video.limits import DecodeLimits
from timesformer_runtime.video.source import Source

_HEIGHT = 120  # pixels of a picture

Picture = tuple[int, float, bytes]  # the frame's index, its time in seconds, and a JPEG file


def read_pictures(
    video: Source, *, indices: Sequence[int], limits: DecodeLimits
) -> Iterator[list[Picture]]:
    """Gives one list with a picture for each index.

    The function is a generator, because ``Readers`` expect one for work in another process.

    Args:
        video: The file.
        indices: Indices of frames.
        limits: The limits of the reading.
    """
    with VideoDecoder(video, threads=1, limits=limits, convert=_small) as decoder:
        frames = decoder.frames(indices)
        pictures = (pixels.tobytes() for pixels in frames.pixels)
        yield list(zip(frames.indices, frames.times, pictures, strict=True))


def _small(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Encodes a frame as soon as it is decoded, so that large frames do not add up.

    FFmpeg writes JPEG, too: a service needs no other library for pictures.
    """
    height = min(_HEIGHT, frame.shape[0])
    width = max(1, round(frame.shape[1] * height / frame.shape[0]))
    picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(
        width, height, "yuvj420p", interpolation="AREA"
    )
    encoder = av.CodecContext.create("mjpeg", "w")
    assert isinstance(encoder, av.VideoCodecContext)  # noqa: S101  # for the type checker
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuvj420p"
    encoder.time_base = Fraction(1, 1)
    packets = [*encoder.encode(picture), *encoder.encode(None)]
    return np.frombuffer(b"".join(bytes(packet) for packet in packets), np.uint8)
