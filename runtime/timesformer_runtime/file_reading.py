"""Reads the frames that a model needs of a video file. Importing this module needs PyAV."""

from __future__ import annotations

import time
from collections.abc import Iterator

from timesformer_runtime.input.model_input import ModelInput
from timesformer_runtime.reading import Reading, Timed, views_of
from timesformer_runtime.video.decoder import DecodedFrames, VideoDecoder
from timesformer_runtime.video.limits import DecodeLimits
from timesformer_runtime.video.source import Source


def read_file(
    video: Source,
    model_input: ModelInput,
    *,
    threads: int,
    limits: DecodeLimits,
) -> Iterator[Reading]:
    """Gives one reading: the frames of a file, each converted as soon as it is decoded.

    The function is a generator, because ``Readers`` expect one for work in another process.

    Args:
        video: The file.
        model_input: Chooses and converts the frames.
        threads: Threads of the decoder.
        limits: The limits of the reading.
    """
    convert = Timed(model_input.convert)
    start = time.perf_counter()
    rendering = model_input.rendering(convert)
    with VideoDecoder(
        video,
        threads=threads,
        limits=limits,
        convert=rendering.convert,
        scale_to=rendering.scale_to,
        square_pixels=rendering.square_pixels,
    ) as decoder:
        frames = _chosen_frames(decoder, model_input)
        verdict = decoder.verdict()
        seconds = time.perf_counter() - start
        yield Reading(
            frames=frames.pixels,
            views=views_of(frames.indices, frames.times, model_input),
            count=len(decoder),
            decode=seconds - convert.seconds,
            preprocess=convert.seconds,
            failed_packets=decoder.failed_packets,
            problems=verdict.problems,
            truncated=verdict.truncated,
            interlaced=frames.interlaced,
        )


def _chosen_frames(decoder: VideoDecoder, model_input: ModelInput) -> DecodedFrames:
    """Decodes the frames that the model needs; chooses again if decoding corrects the count."""
    count = decoder.likely_count
    # A file in which no packet seems to hold a frame may have frames all the same.
    frames = decoder.frames_if_there(model_input.choose(max(count, 1), decoder.rate))
    if frames is None or decoder.likely_count != count:
        frames = decoder.frames(model_input.choose(decoder.likely_count, decoder.rate))
    return frames
