"""Writes a video again, with heat over its frames."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Generator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from timesformer_runtime.errors import MissingDependencyError, unwritable
from timesformer_runtime.explain.moving_heat import MovingHeat
from timesformer_runtime.pictures.drawing import clock, labelled
from timesformer_runtime.pictures.heat import Rgb
from timesformer_runtime.pipeline import Pipeline
from timesformer_runtime.video.limits import DecodeLimits
from timesformer_runtime.video.pixels import Rendering
from timesformer_runtime.video.playback import play
from timesformer_runtime.video.pyav import av
from timesformer_runtime.video.source import Source

# Gets a frame's time and the video's stated duration, in seconds.
OnFrame = Callable[[float, float | None], None]

_LONGEST_SIDE = 1280  # pixels of the overlay
_CODECS = ("libx264", "libopenh264", "mpeg4")  # the first one that this PyAV has
_OPTIONS = {"libx264": {"crf": "20", "preset": "veryfast"}, "mpeg4": {"qscale": "3"}}
_TICKS = 90_000  # a second
_BT709 = 1  # in FFmpeg's lists of matrices, primaries and curves


class UprightFrame(NamedTuple):
    """A frame of a video as it is shown: upright, with square pixels.

    Attributes:
        seconds: When it is shown.
        pixels: uint8 [height, width, 3], scaled to at most 1280 pixels a side.
        size: Height and width of the upright frame before that.
    """

    seconds: float
    pixels: Rgb
    size: tuple[int, int]


def write_overlay(
    pipeline: Pipeline,
    video: Source,
    heat: MovingHeat,
    path: Path,
    answer_at: Callable[[float], str],
    on_frame: OnFrame = lambda _seconds, _duration: None,
) -> float:
    """Writes the whole video as MP4 with heat, answer and time; at its own rate, without sound.

    Args:
        pipeline: The model; its limits apply.
        video: The video.
        heat: The heat.
        path: The file to write.
        answer_at: Gives for a time in seconds the answer in words, or "".
        on_frame: Called with each frame's time and the video's stated duration, in seconds.

    Returns:
        When the last frame ends, in seconds.

    Raises:
        OutputError: The file cannot be written.
        TimesformerError: As for reading the video.
    """
    frames, end = _frames(pipeline, video), 0.0
    with contextlib.closing(frames):
        rate, duration = next(frames)
        with _Encoder(path, rate, pipeline.model.session.threads) as encoder:
            for frame in frames:
                seen = frame.size if not pipeline.views.square_pixels else frame.pixels.shape[:2]
                picture = heat.over(frame.pixels, frame.seconds, seen)
                text = filter(None, (answer_at(frame.seconds), clock(frame.seconds)))
                encoder.add(labelled(picture, " · ".join(text)), frame.seconds)
                on_frame(frame.seconds, duration)
                end = frame.seconds + 1 / rate
    return end


def _frames(pipeline: Pipeline, video: Source) -> Generator[Any, None, None]:
    """Gives the rate and duration, then all frames; with ``isolated`` from another process."""
    threads = pipeline.model.session.threads
    limits = pipeline.limits.for_long_videos()
    job = functools.partial(_upright_frames, threads=threads, limits=limits.in_reader_process())
    with contextlib.closing(pipeline.new_readers()) as readers:
        yield from readers.answers(job, video, limits, threads=threads)


def _upright_frames(
    video: Source, *, threads: int, limits: DecodeLimits
) -> Generator[tuple[float, float | None] | UprightFrame, None, None]:
    with play(video, threads=threads, limits=limits) as playback:
        yield playback.rate, playback.duration
        shown: list[tuple[int, int]] = []  # the size of the first frame, which all frames get

        def size_of(height: int, width: int) -> tuple[int, int]:
            if not shown:
                scale = min(1.0, _LONGEST_SIDE / max(height, width))
                shown.append((_even(height * scale), _even(width * scale)))
            return shown[0]

        rendering = Rendering(scale_to=size_of, square_pixels=True)
        for frame in playback.frames():
            stored = frame.av_frame.height, frame.av_frame.width
            upright = stored[::-1] if frame.av_frame.rotation % 180 else stored
            yield UprightFrame(frame.seconds, frame.render(rendering), upright)


def _even(length: float) -> int:
    """Rounds to an even number of pixels, as yuv420p needs."""
    return max(2, round(length / 2) * 2)


class _Encoder:
    """An MP4 that is written frame by frame."""

    def __init__(self, path: Path, rate: float, threads: int) -> None:
        self._path = path
        self._rate = Fraction(rate).limit_denominator(1001)
        self._threads = threads
        self._last = -1  # the latest timestamp
        self._stream: Any = None

    def __enter__(self) -> _Encoder:
        with self._errors():
            options = {"movflags": "+faststart"}
            self._container = av.open(str(self._path), "w", format="mp4", options=options)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with contextlib.suppress(av.FFmpegError) if kind else self._errors():
            if self._stream is not None and kind is None:
                self._container.mux(self._stream.encode())
            self._container.close()

    def add(self, picture: Rgb, seconds: float) -> None:
        """Adds a frame that is shown from this time on."""
        with self._errors():
            if self._stream is None:
                self._stream = self._opened(*picture.shape[:2])
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
                format="yuv420p", dst_colorspace="ITU709"
            )
            self._last = max(round(seconds * _TICKS), self._last + 1)
            frame.pts, frame.time_base = self._last, Fraction(1, _TICKS)
            self._container.mux(self._stream.encode(frame))

    def _opened(self, height: int, width: int) -> Any:
        codec = encoder_name()
        stream: Any = self._container.add_stream(codec, self._rate, options=_OPTIONS.get(codec, {}))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, _TICKS)
        stream.codec_context.thread_count = self._threads
        stream.codec_context.colorspace = _BT709
        stream.codec_context.color_primaries = stream.codec_context.color_trc = _BT709
        return stream

    @contextlib.contextmanager
    def _errors(self) -> Generator[None, None, None]:
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            raise unwritable(self._path.name, error) from error


def encoder_name() -> str:
    """Names the encoder of overlays.

    Raises:
        MissingDependencyError: This PyAV has none.
    """
    for name in _CODECS:
        if _has_encoder(name):
            return name
    raise MissingDependencyError(
        f"this PyAV has none of the encoders {', '.join(_CODECS)}; install its wheel: "
        "pip install --force-reinstall av"
    )


def _has_encoder(name: str) -> bool:
    try:
        return bool(av.Codec(name, "w").is_encoder)
    except (av.FFmpegError, ValueError):
        return False
