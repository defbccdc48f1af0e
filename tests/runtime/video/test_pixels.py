"""Tests how a decoded frame becomes an array: scaled, with square pixels, upright."""

import os
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from timesformer_runtime.errors import InvalidVideoError, VideoLimitError
from timesformer_runtime.input.sampling import FrameIndices
from timesformer_runtime.video import DecodeLimits
from timesformer_runtime.video.live.address import live_address
from timesformer_runtime.video.live.source import LiveSource
from timesformer_runtime.video.pixels import Rendering, RgbFrame, Size
from timesformer_runtime.video.playback import play

from tests.patience import PATIENCE
from tests.video_files import RATE, decode_plainly, read_clip, write_video

CLIPS = Path(os.environ.get("TIMESFORMER_TEST_CLIPS", ""))
SMOOTH = np.random.default_rng(0).integers(0, 256, (5, 9, 12, 3), dtype=np.uint8)


def textured_frames(height: int = 270, width: int = 360) -> npt.NDArray[np.uint8]:
    """Makes frames, uint8 [5, height, width, 3], with soft and with hard edges."""
    frames = [
        np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
        for small in SMOOTH
    ]
    for number, frame in enumerate(frames):
        frames[number] = frame.copy()
        frames[number][40:90, 60 + 20 * number : 130 + 20 * number] = 255, 0, 40
    return np.stack(frames)


def every(count: int) -> FrameIndices:
    return np.arange(count)


def by_pillow(frame: RgbFrame, size: Size) -> npt.NDArray[np.int64]:
    image = Image.fromarray(frame).resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(image).astype(np.int64)


def write_with_shape(path: Path, shape: Fraction, codec: str = "libx264") -> Path:
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=RATE)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = 270, 360, "yuv420p"
        stream.codec_context.sample_aspect_ratio = shape
        for pixels in textured_frames():
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("size", [(224, 299), (112, 149), (300, 400), (270, 200)])
def test_scaling_by_ffmpeg_is_nearly_that_of_pillow(size: Size, tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", textured_frames())
    asked = []

    def scale_to(height: int, width: int) -> Size:
        asked.append((height, width))
        return size

    clip = read_clip(path, every, scale_to=scale_to)
    assert set(asked) == {(270, 360)}
    for frame, whole in zip(clip.frames, decode_plainly(path), strict=True):
        assert frame.shape == (*size, 3)
        difference = np.abs(frame.astype(np.int64) - by_pillow(whole, size))
        assert difference.mean() < 0.3
        assert np.quantile(difference, 0.99) <= 2
        assert difference.max() <= 32


def test_fields_are_scaled_together(tmp_path: Path) -> None:
    fields = {"x264-params": "tff=1"}
    path = write_video(tmp_path / "fields.mp4", textured_frames(272, 360), options=fields)
    clip = read_clip(path, every, scale_to=lambda height, width: (height // 2, width // 2))
    assert clip.interlaced
    for frame, whole in zip(clip.frames, decode_plainly(path), strict=True):
        difference = np.abs(frame.astype(np.int64) - by_pillow(whole, (136, 180)))
        assert difference.mean() < 0.6


@pytest.mark.parametrize("shape", [Fraction(4, 3), Fraction(2, 3)])
def test_square_pixels(shape: Fraction, tmp_path: Path) -> None:
    path = write_with_shape(tmp_path / "shape.mp4", shape)
    size = 270, round(360 * shape)
    expected = decode_plainly(path)
    stored = read_clip(path, every)
    square = read_clip(path, every, square_pixels=True)
    scaled = read_clip(path, every, square_pixels=True, scale_to=lambda h, w: (h // 2, w // 2))
    for number, whole in enumerate(expected):
        np.testing.assert_array_equal(stored.frames[number], whole)
        np.testing.assert_array_equal(square.frames[number], by_pillow(whole, size))
        half = 135, size[1] // 2
        difference = scaled.frames[number].astype(np.int64) - by_pillow(whole, half)
        assert scaled.frames[number].shape == (*half, 3)
        assert np.abs(difference).mean() < 0.3


def test_the_shape_of_pixels_that_only_the_container_states(tmp_path: Path) -> None:
    """VP9 itself does not say how wide a pixel is."""
    path = write_with_shape(tmp_path / "shape.mp4", Fraction(2), "libvpx-vp9")
    clip = read_clip(path, every, square_pixels=True)
    assert {frame.shape for frame in clip.frames} == {(270, 720, 3)}
    with play(path) as video:
        assert {frame.sample_aspect_ratio for frame in video.frames()} == {2}
    live = LiveSource(
        live_address(path, format="mp4"), timeout=PATIENCE, reconnect=0, notify=lambda _: None
    )
    assert {frame.sample_aspect_ratio for frame in live.frames(threading.Event())} == {2}


@pytest.mark.parametrize("shape", [None, Fraction(1), Fraction(0), Fraction(1, 10_000)])
def test_pixels_of_an_impossible_shape_stay_as_they_are(shape: Fraction | None) -> None:
    rgb = textured_frames()[0]
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
    np.testing.assert_array_equal(Rendering(square_pixels=True)(frame, shape), rgb)


def test_pixels_that_would_make_a_frame_enormous() -> None:
    frame = av.VideoFrame(4000, 4000, "gray")
    with pytest.raises(InvalidVideoError, match=r"would have 64000x4000 square .* leave out"):
        Rendering(square_pixels=True)(frame, Fraction(16))


def test_the_limit_of_memory_counts_scaled_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", textured_frames())
    limits = DecodeLimits(max_bytes=5 * 27 * 36 * 3)
    assert read_clip(path, every, scale_to=lambda h, w: (h // 10, w // 10), limits=limits)
    with pytest.raises(VideoLimitError, match="max_bytes"):
        read_clip(path, every, limits=limits)


@pytest.mark.skipif("TIMESFORMER_TEST_CLIPS" not in os.environ, reason="needs the clips")
@pytest.mark.parametrize("name", ["video_90.mov", "video_180.mov", "video_270.mov"])
def test_turned_frames_are_scaled_upright(name: str) -> None:
    def scale_to(height: int, width: int) -> Size:
        return height // 2, width // 4

    whole = read_clip(CLIPS / name, every)
    scaled = read_clip(CLIPS / name, every, scale_to=scale_to)
    for frame, upright in zip(scaled.frames, whole.frames, strict=True):
        size = scale_to(*upright.shape[:2])
        assert frame.shape == (*size, 3)
        difference = np.abs(frame.astype(np.int64) - by_pillow(upright, size))
        assert difference.mean() < 0.3
