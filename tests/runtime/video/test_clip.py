"""Tests that any file gives exactly the chosen frames, or one clear error."""

import concurrent.futures
import errno
import io
import os
import socket
import struct
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import numpy.typing as npt
import pytest
from timesformer_runtime.errors import (
    ClosedError,
    InvalidOptionError,
    InvalidVideoError,
    TimesformerError,
    VideoNotFoundError,
)
from timesformer_runtime.input.preprocess import Preprocessing
from timesformer_runtime.input.sampling import uniform
from timesformer_runtime.reading import check_array
from timesformer_runtime.video import DecodeLimits, VideoDecoder, pixels

from tests.video_files import (
    RATE,
    Clip,
    damage,
    decode_plainly,
    moving_pictures,
    plain_frames,
    read_clip,
    remux,
    to_rgb,
    write_matroska_of_avi,
    write_video,
)

FRAMES = moving_pictures(40)
# Compresses badly: most of a file is then data, not headers.
NOISE = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), dtype=np.uint8)
B_FRAMES = {"x264-params": "keyint=12:bframes=3:b-pyramid=normal:scenecut=0"}
OPEN_GOPS = {"x264-params": "keyint=12:bframes=3:open-gop=1:scenecut=0"}
Choice = Callable[[int], npt.NDArray[np.int64]]


def evenly(num_frames: int) -> Choice:
    return lambda count: uniform(count, num_frames)


def exactly(*indices: int) -> Choice:
    return lambda _: np.array(indices)


def assert_exact(path: Path, choices: tuple[int, ...] = (1, 3, 8, 60), **options: Any) -> Clip:
    """Asserts that the frames are those of a plain decoder; gives the last clip."""
    expected = decode_plainly(path)
    for num_frames in choices:
        clip = read_clip(path, evenly(num_frames), **options)
        assert clip.count == len(expected)
        assert clip.indices == tuple(uniform(len(expected), num_frames).tolist())
        for index, frame in zip(clip.indices, clip.frames, strict=True):
            assert frame.dtype == np.uint8
            np.testing.assert_array_equal(frame, expected[index])
    return clip


FILES: dict[str, dict[str, Any]] = {
    "b_frames.mp4": {"options": B_FRAMES},
    "b_frames.mkv": {"options": B_FRAMES},
    "b_frames.ts": {"options": B_FRAMES},
    "b_frames.flv": {"options": B_FRAMES},
    "b_frames.avi": {"options": B_FRAMES},
    "b_frames.h264": {"options": B_FRAMES},
    "open_gops.mp4": {"options": OPEN_GOPS},
    "open_gops.ts": {"options": OPEN_GOPS},
    "one_gop.mp4": {"options": {"x264-params": "keyint=250:bframes=16:b-adapt=0"}},
    "intra_refresh.mp4": {"options": {"x264-params": "keyint=10:intra-refresh=1"}},
    "only_keyframes.mp4": {"options": {"x264-params": "keyint=1"}},
    "interlaced.mp4": {"options": {"x264-params": "tff=1:keyint=12"}},
    "slices.mp4": {"options": {"x264-params": "slices=3:keyint=12"}},
    "10_bits.mp4": {"options": B_FRAMES, "pixels": "yuv420p10le"},
    "4_4_4.mp4": {"options": B_FRAMES, "pixels": "yuv444p"},
    "fragments.mp4": {
        "options": B_FRAMES,
        "container_options": {"movflags": "frag_keyframe+empty_moov"},
    },
    "fragment_per_frame.mp4": {
        "options": B_FRAMES,
        "container_options": {"movflags": "frag_every_frame+empty_moov+default_base_moof"},
    },
    "late.mp4": {"options": B_FRAMES, "times": range(500, 540)},
    "late.ts": {"options": B_FRAMES, "times": range(500, 540)},
    "variable_rate.mp4": {"options": B_FRAMES, "times": [i * i // 7 + i for i in range(40)]},
    "variable_rate.mkv": {"options": B_FRAMES, "times": [i * i // 7 + i for i in range(40)]},
    "hevc.mp4": {
        "codec": "libx265",
        "options": {"x265-params": "keyint=12:bframes=3:open-gop=0:log-level=none"},
    },
    "hevc_open_gops.ts": {
        "codec": "libx265",
        "options": {"x265-params": "keyint=12:bframes=3:open-gop=1:log-level=none"},
    },
    "hevc_layers.mkv": {
        "codec": "libx265",
        "options": {"x265-params": "keyint=12:bframes=3:temporal-layers=3:log-level=none"},
    },
    "vp8.webm": {
        "codec": "libvpx",
        "options": {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "10"},
    },
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"g": "12", "lag-in-frames": "10"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"bf": "2", "g": "12"}},
    "mpeg4.mp4": {"codec": "mpeg4", "options": {"bf": "2", "g": "12"}},
    "mpeg2.ts": {"codec": "mpeg2video", "options": {"bf": "2", "g": "12"}},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"bf": "2", "g": "12"}},
    "motion_jpeg.mov": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "lossless.mkv": {"codec": "ffv1"},
    "animation.gif": {"codec": "gif", "pixels": "rgb8"},
    "windows.asf": {"codec": "wmv2"},
}


@pytest.mark.parametrize("name", FILES)
def test_the_frames_of_a_plain_decoder(name: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, FRAMES, **FILES[name])
    assert len(decode_plainly(path)) == len(FRAMES)
    assert_exact(path)


@pytest.mark.parametrize("name", ["b_frames.mp4", "hevc.mp4", "vp8.webm"])
def test_threads_change_nothing(name: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, FRAMES, **FILES[name])
    assert_exact(path, threads=3)


@pytest.mark.parametrize("name", ["b_frames.mp4", "b_frames.avi"])
def test_any_choice_and_one_conversion_for_each_chosen_frame(name: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, FRAMES, **FILES[name])
    expected = decode_plainly(path)
    indices = (3, 3, 17, 16, 39, 3)
    converted = []

    def convert(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        converted.append(frame)
        return np.asarray(frame.mean(axis=2, dtype=np.float32))

    clip = read_clip(path, exactly(*indices), convert=convert)
    assert clip.indices == indices
    for index, frame in zip(indices, clip.frames, strict=True):
        np.testing.assert_array_equal(frame, expected[index].mean(axis=2, dtype=np.float32))
    assert len(converted) == 4
    assert clip.frames[0] is clip.frames[1]


@pytest.mark.parametrize("shift", [-5, -17, 30])
def test_edit_lists(shift: int, tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", FRAMES, options=B_FRAMES)
    edited = remux(whole, tmp_path / "edited.mp4", shift=shift)
    assert_exact(edited)
    assert read_clip(edited, exactly(0)).count == len(FRAMES) + min(shift, 0)


def test_matroska_with_avi_packets_has_the_right_times(tmp_path: Path) -> None:
    """Such packets have only decoding times, which are one frame ahead of the display times."""
    plain = write_video(tmp_path / "plain.avi", FRAMES, codec="mpeg4", options={"bf": "2"})
    times = [20 * i + i * i for i in range(40)]
    clip = assert_exact(write_matroska_of_avi(plain, tmp_path / "old.mkv", times))
    found = dict(zip(clip.indices, clip.times or (), strict=True))
    shown = [(time - times[1]) / 1000 for time in times[1:]]
    assert [found[index] for index in range(39)] == pytest.approx(shown)


def test_the_size_changes_within_a_video(tmp_path: Path) -> None:
    first = write_video(tmp_path / "first.ts", FRAMES, options=B_FRAMES)
    small = moving_pictures(20, 32, 48)
    second = write_video(tmp_path / "second.ts", small, options=B_FRAMES, times=range(50, 70))
    both = tmp_path / "both.ts"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    clip = assert_exact(both)
    assert clip.count == 60
    assert {frame.shape for frame in clip.frames} == {(48, 64, 3), (32, 48, 3)}
    assert Preprocessing()(clip.frames).shape == (60, 3, 224, 224)
    with pytest.raises(InvalidVideoError, match="changes its size"):
        clip.array()


@pytest.mark.parametrize(
    ("matrix", "turns"),
    [
        ((0, 1, 0, -1, 0, 0), -1),
        ((-1, 0, 0, 0, -1, 0), 2),
        ((0, -1, 0, 1, 0, 0), 1),
        ((0, 0, 0, 0, 0, 0), 0),
        ((0.7, 0.7, 0, -0.7, 0.7, 0), 0),
    ],
)
def test_rotation(matrix: tuple[float, ...], turns: int, tmp_path: Path) -> None:
    """The display matrix of an MP4 track: x' = a x + c y, y' = b x + d y, rows (a, b), (c, d)."""
    path = write_video(tmp_path / "turned.mp4", FRAMES[:5], options=B_FRAMES)
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 44
    fixed_point = [round(value * 65536) for value in matrix]
    data[start : start + 36] = struct.pack(">9i", *fixed_point, 0, 0, 1 << 30)
    path.write_bytes(data)
    expected = decode_plainly(path)
    for index, frame in enumerate(read_clip(path, exactly(0, 1, 2, 3, 4)).frames):
        np.testing.assert_array_equal(frame, np.rot90(expected[index], turns))
        assert frame.flags.c_contiguous


def test_colours_that_cannot_be_converted(tmp_path: Path) -> None:
    options = {"x264-params": "colormatrix=YCgCo"}
    path = write_video(tmp_path / "ycgco.mp4", FRAMES[:5], options=options)
    with pytest.raises(InvalidVideoError, match=r"colours \(yuv420p, matrix 8\)"):
        read_clip(path, evenly(2))


def test_a_reserved_colour_matrix_counts_as_none() -> None:
    tagged, untagged = (av.VideoFrame.from_ndarray(FRAMES[0], "rgb24") for _ in range(2))
    tagged, untagged = (frame.reformat(format="yuv420p") for frame in (tagged, untagged))
    tagged.colorspace, untagged.colorspace = 3, 2
    np.testing.assert_array_equal(pixels.Rendering()(tagged, None), to_rgb(untagged))


def test_times_count_from_the_first_frame(tmp_path: Path) -> None:
    ticks = [500 + i * i // 7 + i for i in range(40)]
    path = write_video(tmp_path / "late.mp4", FRAMES, options=B_FRAMES, times=ticks)
    clip = read_clip(path, exactly(0, 20, 39))
    assert clip.times == pytest.approx([(ticks[i] - 500) / RATE for i in (0, 20, 39)], abs=1e-4)
    raw = write_video(tmp_path / "raw.h264", FRAMES, options=B_FRAMES)
    assert read_clip(raw, exactly(0, 20)).times == pytest.approx((0, 20 / RATE))
    untimed = write_video(tmp_path / "untimed.avi", FRAMES, options=B_FRAMES)
    assert read_clip(untimed, evenly(40)).times == pytest.approx([i / RATE for i in range(40)])


def test_a_short_video_repeats_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "short.mp4", FRAMES[:3], options=B_FRAMES)
    clip = read_clip(path, evenly(8))
    assert clip.indices == (0, 0, 0, 0, 1, 1, 1, 2)
    assert clip.frames[0] is clip.frames[3]
    assert clip.array().shape == (8, 48, 64, 3)


def test_metadata_that_is_not_utf8(tmp_path: Path) -> None:
    # PyAV writes only UTF-8, so bytes of Latin-1 take the place of the title afterwards. "XXXX"
    # makes it a text that the file has nowhere else.
    path = tmp_path / "titled.mkv"
    with av.open(str(path), "w") as output:
        output.metadata["title"] = "XXXXcafe"
        stream = output.add_stream("mpeg4", rate=RATE)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for pixel_values in FRAMES[:5]:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixel_values, format="rgb24")))
        output.mux(stream.encode(None))
    data = path.read_bytes()
    assert data.count(b"XXXXcafe") == 1
    path.write_bytes(data.replace(b"XXXXcafe", b"XXXXcaf\xe9"))
    assert read_clip(path, evenly(8)).count == 5


# Damage


@pytest.mark.parametrize("name", ["b_frames.mkv", "b_frames.ts", "b_frames.avi", "vp9.webm"])
def test_a_truncated_file_gives_what_is_there(name: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, FRAMES, **FILES[name])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    clip = assert_exact(path)
    assert 0 < clip.count < len(FRAMES)


def test_the_beginning_is_missing(tmp_path: Path) -> None:
    path = write_video(tmp_path / "tail.ts", FRAMES, options=B_FRAMES)
    data = path.read_bytes()
    path.write_bytes(data[len(data) // 4 :])
    assert 0 < assert_exact(path).count < len(FRAMES)


@pytest.mark.parametrize("name", ["b_frames.mp4", "b_frames.mkv", "hevc.mp4", "mpeg4.mp4"])
@pytest.mark.parametrize("at", [0.35, 0.6])
def test_a_hole_in_a_file(name: str, at: float, tmp_path: Path) -> None:
    """A part of a download may never arrive."""
    path = write_video(tmp_path / name, NOISE, **FILES[name])
    data = bytearray(path.read_bytes())
    start, length = int(len(data) * at), len(data) // 10
    data[start : start + length] = bytes(length)
    path.write_bytes(data)
    assert 0 < assert_exact(path).count < len(NOISE)


def test_a_time_that_is_far_behind_all_others(tmp_path: Path) -> None:
    """A damaged header can move a frame to the end of the display order, though others need it."""
    options = {"x264-params": "keyint=8:bframes=2:scenecut=0"}
    plain = write_video(tmp_path / "plain.mp4", FRAMES, options=options)
    path = tmp_path / "moved.ts"
    with av.open(str(plain)) as given, av.open(str(path), "w") as output:
        copy = output.add_stream_from_template(given.streams.video[0])
        for number, packet in enumerate(given.demux(video=0)):
            if packet.dts is None or packet.pts is None:
                continue
            packet.pts += 1_000_000 if number == 4 else 0
            packet.stream = copy
            output.mux(packet)
    assert_exact(path)


def test_broken_packets_are_counted_and_passed_over(tmp_path: Path) -> None:
    path = damage(write_video(tmp_path / "noise.mp4", NOISE, options=B_FRAMES))
    clip = assert_exact(path)
    assert clip.failed_packets > 0
    assert clip.count < 40


def test_a_file_of_which_most_is_broken_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "encrypted.mp4", FRAMES, options=B_FRAMES)
    data = bytearray(path.read_bytes())
    start, stop = data.index(b"mdat") + 900, data.index(b"moov") - 4
    data[start:stop] = np.random.default_rng(0).bytes(stop - start)
    path.write_bytes(data)
    with pytest.raises(InvalidVideoError, match=r"encrypted\.mp4 is damaged or encrypted"):
        read_clip(path, evenly(8))


def test_a_truncated_mp4_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "cut.mp4", FRAMES, options=B_FRAMES)
    data = path.read_bytes()
    path.write_bytes(data[:-1500])  # without its index, which comes last
    with pytest.raises(InvalidVideoError, match="cannot be opened as a video"):
        read_clip(path, evenly(8))
    path.write_bytes(data[:-900])  # with half of it
    with pytest.raises(InvalidVideoError, match="check that it is complete"):
        read_clip(path, evenly(8))


def test_a_decoder_that_does_not_open(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "video.mp4", FRAMES, codec="libx265", options={"x265-params": "log-level=0"}
    )
    path.write_bytes(path.read_bytes().replace(b"hev1", b"vvc1"))  # another codec's settings
    with pytest.raises(InvalidVideoError, match="in a codec that cannot be decoded here"):
        read_clip(path, evenly(8))


# Paths, pipes and file objects


class Pipe(io.RawIOBase):
    """A file object that cannot seek."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._data.readinto(buffer)


@pytest.mark.parametrize("wrap", [io.BytesIO, Pipe])
@pytest.mark.parametrize("name", ["b_frames.mp4", "b_frames.ts", "b_frames.avi"])
def test_file_objects(wrap: Callable[[bytes], BinaryIO], name: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, FRAMES, **FILES[name])
    expected = read_clip(path, evenly(8))
    file = wrap(path.read_bytes())
    clip = read_clip(file, evenly(8))
    assert clip.times == expected.times
    np.testing.assert_array_equal(clip.array(), expected.array())
    assert not file.closed


def test_a_seekable_file_object_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mkv", FRAMES, options=B_FRAMES)
    with path.open("rb") as file:
        file.seek(777)
        assert read_clip(file, exactly(0)).count == 40
        assert read_clip(file, exactly(0)).count == 40


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe(tmp_path: Path) -> None:
    data = write_video(tmp_path / "video.ts", FRAMES, options=B_FRAMES).read_bytes()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    clip = read_clip(pipe, exactly(39))
    writer.join()
    assert clip.count == 40


def test_a_relative_path_is_never_one_of_ffmpegs_prefixes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_video(tmp_path / "video.mp4", FRAMES, options=B_FRAMES).read_bytes()
    (tmp_path / "concat:video.mp4").write_bytes(data)
    monkeypatch.chdir(tmp_path)
    assert read_clip("concat:video.mp4", exactly(0)).count == 40
    with pytest.raises(VideoNotFoundError):
        read_clip("file:video.mp4", exactly(0))


def playlist(folder: Path) -> Path:
    (folder / "list.m3u8").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n"
    )
    return folder / "list.m3u8"


def concat_list(folder: Path) -> Path:
    (folder / "z.mp4").write_text("ffconcat version 1.0\nfile secret.ts\n")
    return folder / "z.mp4"


def text(folder: Path) -> Path:
    (folder / "notes.mp4").write_text("These are notes. " * 999)
    return folder / "notes.mp4"


def empty(folder: Path) -> Path:
    (folder / "empty.mp4").touch()
    return folder / "empty.mp4"


def image(folder: Path) -> Path:
    return write_video(
        folder / "image.png", FRAMES[:1], codec="png", pixels="rgb24", container="image2"
    )


def audio(folder: Path) -> Path:
    with av.open(str(folder / "audio.m4a"), "w") as output:
        stream = output.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        frame.sample_rate = 44100
        output.mux([*stream.encode(frame), *stream.encode(None)])
    return folder / "audio.m4a"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (playlist, "cannot be opened as a video"),
        (concat_list, "cannot be opened as a video"),
        (text, "cannot be opened as a video"),
        (image, "cannot be opened as a video"),
        (empty, "is empty"),
        (audio, "has no video stream"),
        (lambda folder: folder, "is a folder"),
        (lambda _: "", "the path of a video is empty; give a file"),
        (lambda _: "https://example.org/video.mp4", "is a URL; download it first"),
        (lambda _: "rtsp://camera/1", "is a URL; download it first"),
        (lambda _: "nul\0byte", "not a path that can be read"),
        (lambda _: "x" * 5000, "not a path that can be read"),
        (lambda _: io.BytesIO(), "is empty"),
        (lambda _: Pipe(b""), "is empty"),
        (lambda _: io.BytesIO(b"no video" * 99), "cannot be opened as a video"),
        (lambda _: io.StringIO("text"), "mode 'rb'"),
        (lambda _: 42, "cannot be a int"),
    ],
)
def test_what_is_not_a_video(make: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    write_video(tmp_path / "secret.ts", FRAMES[:5], options=B_FRAMES)
    with pytest.raises(InvalidVideoError, match=message) as caught:
        read_clip(make(tmp_path), evenly(8))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (
            "a.png",
            {"codec": "png", "pixels": "rgb24", "container": "image2"},
            "a PNG image; give",
        ),
        (
            "a.mp4",
            {"codec": "apng", "pixels": "rgb24", "container": "apng"},
            "an animated PNG; con",
        ),
        (
            "a.jpg",
            {"codec": "mjpeg", "pixels": "yuvj420p", "container": "image2"},
            "a JPEG image, or",
        ),
        (
            "a.mjpg",
            {"codec": "mjpeg", "pixels": "yuvj420p", "container": "mjpeg"},
            "a JPEG image, or several; give",
        ),
        ("a.webp", {"codec": "libwebp", "container": "webp"}, "a WebP image; give a video file"),
        ("b.webp", {"codec": "libwebp_anim", "container": "webp"}, "an animated WebP; convert it"),
        (
            "a.bmp",
            {"codec": "bmp", "pixels": "bgr24", "container": "image2"},
            "a BMP image; give",
        ),
        (
            "a.tif",
            {"codec": "tiff", "pixels": "rgb24", "container": "image2"},
            "a TIFF image; gi",
        ),
    ],
)
def test_the_error_says_that_it_is_an_image(
    name: str, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    several = settings["container"] in {"apng", "mjpeg"} or settings["codec"] == "libwebp_anim"
    path = write_video(tmp_path / name, FRAMES[: 5 if several else 1], **settings)
    for video in (path, io.BytesIO(path.read_bytes())):
        with pytest.raises(
            InvalidVideoError, match=f"cannot be opened as a video: it is {message}"
        ) as caught:
            read_clip(video, evenly(8))
        assert "Invalid argument" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing.mp4", "missing/video.mp4"])
def test_a_missing_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(VideoNotFoundError, match="there is no such file"):
        read_clip(tmp_path / name, evenly(8))
    with pytest.raises(FileNotFoundError):
        read_clip(str(tmp_path / name), evenly(8))


class BrokenPipe(Pipe):
    """A file object that fails before its end."""

    def readinto(self, buffer: Any) -> int:
        raise OSError(errno.EIO, "Input/output error")


def closed_file(_: Path) -> BinaryIO:
    file = io.BytesIO(b"video")
    file.close()
    return file


def bound_socket(folder: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "s"))
    return folder / "s"


@pytest.mark.skipif(os.name != "posix", reason="this system has no such files")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: BrokenPipe(b""), "the file object cannot be read: Input/output error"),
        (closed_file, "the file object cannot be read: I/O operation on closed file"),
        (bound_socket, "s is not a regular file"),
        (lambda _: "/dev/zero", "/dev/zero is not a regular file"),
        (lambda _: "/dev/null", "/dev/null is empty"),
    ],
)
def test_a_source_that_cannot_be_read(
    make: Callable[[Path], Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with pytest.raises(InvalidVideoError, match=message) as caught:
        read_clip(make(Path()), evenly(8))
    assert "\n" not in str(caught.value)


def test_no_room_for_the_copy_of_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe: Any = Pipe(b"video")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(InvalidVideoError, match="the file object cannot be read: No such file"):
        read_clip(pipe, evenly(8))


def test_errors_of_the_reader_stay_as_they_are(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", FRAMES, options=B_FRAMES)

    def choose(_: int) -> npt.NDArray[np.int64]:
        raise OSError("of the caller")

    with pytest.raises(OSError, match="of the caller"):
        read_clip(path, choose)


def test_after_close_what_is_known_stays_readable_and_decoding_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", FRAMES)
    with VideoDecoder(path) as decoder:
        decoder.frames([0])
        known = (len(decoder), decoder.times, decoder.problems)
    decoder.close()  # once more does nothing
    assert (len(decoder), decoder.times, decoder.problems) == known
    for use in (lambda: decoder.frames([0]), lambda: decoder.frames([3]), decoder.__enter__):
        with pytest.raises(ClosedError, match="the decoder is closed; open the video again"):
            use()


def test_the_copy_of_a_pipe_is_gone_after_close(tmp_path: Path) -> None:
    data = write_video(tmp_path / "clip.mkv", FRAMES).read_bytes()

    class Unseekable(io.BytesIO):
        def seekable(self) -> bool:
            return False

    with VideoDecoder(Unseekable(data)) as decoder:
        decoder.frames([0])
    with pytest.raises(ClosedError, match="the decoder is closed"):
        decoder.verdict()


def test_large_frames_are_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", FRAMES, options=B_FRAMES)
    with pytest.raises(InvalidVideoError, match="64x48 pixels, above the limit of 3000"):
        read_clip(path, evenly(8), limits=DecodeLimits(max_pixels=3000))
    assert read_clip(path, evenly(8), limits=DecodeLimits(max_pixels=64 * 48)).count == 40


@pytest.mark.parametrize("scale", [2, 8])
def test_frames_that_grow_beyond_the_limit(scale: int, tmp_path: Path) -> None:
    small = write_video(tmp_path / "small.ts", FRAMES[:10], options=B_FRAMES)
    large = moving_pictures(10, scale * 48, scale * 64)
    later = write_video(tmp_path / "large.ts", large, options=B_FRAMES, times=range(20, 30))
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + later.read_bytes())
    limits = DecodeLimits(max_pixels=scale**2 * 48 * 64)
    assert read_clip(both, evenly(8), limits=limits).count == 20
    limits = DecodeLimits(max_pixels=48 * 64)
    if scale == 2:
        with pytest.raises(InvalidVideoError, match="128x96 pixels, above the limit of 3072"):
            read_clip(both, evenly(8), limits=limits)
    else:  # these are not even decoded
        clip = read_clip(both, evenly(8), limits=limits)
        assert (clip.count, clip.failed_packets) == (10, 10)


def test_several_threads_may_read_at_once(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", FRAMES, options=B_FRAMES)
    expected = read_clip(path, evenly(8)).array()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        clips = list(pool.map(lambda _: read_clip(path, evenly(8)), range(16)))
    for clip in clips:
        np.testing.assert_array_equal(clip.array(), expected)


@pytest.mark.parametrize(
    ("choice", "options", "message"),
    [
        (exactly(0), {"threads": 0}, "`threads` is 0; it must be an integer from 1 to 1024"),
        (exactly(0), {"threads": 1.5}, "`threads` is 1.5; it must be an integer"),
        (exactly(0), {"threads": "2"}, "`threads` is '2'; it must be an integer"),
        (exactly(0), {"threads": 100_000}, "`threads` is 100000; it must be an integer"),
        (exactly(0), {"limits": 5}, "`limits` is 5; it must be a DecodeLimits"),
        (exactly(0), {"square_pixels": "no"}, "`square_pixels` is 'no'; it must be True or False"),
        (exactly(40), {}, "frame 40 was chosen; a video of 40 frames has 0 to 39"),
        (exactly(-1), {}, "frame -1 was chosen"),
    ],
)
def test_invalid_options(
    choice: Choice, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = write_video(tmp_path / "video.mp4", FRAMES, options=B_FRAMES)
    with pytest.raises(InvalidOptionError, match=message):
        read_clip(path, choice, **options)


@pytest.mark.parametrize(
    "indices",
    [
        *([1.7], ["1"], "01", [True, False], [None], [float("nan")], 5, None),
        *(np.array([1.5]), np.array([True, False]), np.array(3), np.array([[1, 2]])),
    ],
    ids=repr,
)
def test_indices_that_are_no_integers(indices: Any, tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", FRAMES[:3])
    with (
        VideoDecoder(path) as video,
        pytest.raises(InvalidOptionError, match=r"`indices` is .*; it must be a list of integers"),
    ):
        video.frames(indices)


def test_indices_of_any_kind_and_none_at_all(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", FRAMES[:3])
    with VideoDecoder(path) as video:
        for indices in (range(3), np.arange(3, dtype=np.uint8), iter([0, 1, 2])):
            assert video.frames(indices).indices == (0, 1, 2)  # type: ignore[arg-type]
        with pytest.raises(InvalidOptionError, match="frame 3 was chosen"):
            video.frames(iter([3]))  # type: ignore[arg-type]
        frames = video.frames([])
        assert (frames.pixels, frames.indices, frames.times) == ((), (), ())
        with pytest.raises(InvalidVideoError, match="there are no frames; choose at least one"):
            frames.array()


# Frames in memory


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (FRAMES.astype(np.float32), "float32"),
        (FRAMES[0], r"shape \(48, 64, 3\)"),
        (FRAMES[..., :1], r"shape \(40, 48, 64, 1\)"),
        (FRAMES[:0], r"shape \(0, 48, 64, 3\)"),
    ],
)
def test_an_array_that_is_not_a_video(array: Any, message: str) -> None:
    with pytest.raises(InvalidVideoError, match=message):
        check_array(array)


# Files of others

CLIPS = Path(os.environ.get("TIMESFORMER_TEST_CLIPS", ""))
CLIP_FILES = sorted(CLIPS.iterdir()) if "TIMESFORMER_TEST_CLIPS" in os.environ else []


@pytest.mark.parametrize("path", CLIP_FILES, ids=lambda path: path.name)
def test_every_clip_of_the_folder_gives_exact_frames_or_one_clear_error(path: Path) -> None:
    try:
        clip = read_clip(path, evenly(8))
    except TimesformerError as error:
        message = str(error)
    else:
        anywhere = np.random.default_rng(0).integers(0, clip.count, 5).tolist()
        scattered = read_clip(path, exactly(*anywhere, clip.count - 1))
        assert_upright_frames_of(path, [clip, scattered])
        assert Preprocessing()(clip.frames).shape == (8, 3, 224, 224)
        return
    assert path.name in message
    assert "\n" not in message


def assert_upright_frames_of(path: Path, clips: list[Clip]) -> None:
    found = [pair for clip in clips for pair in zip(clip.indices, clip.frames, strict=True)]
    wanted = {index for index, _ in found}
    expected, count = {}, 0
    for index, av_frame in enumerate(plain_frames(path)):
        count += 1
        if index in wanted:
            turns = av_frame.rotation // 90 if abs(av_frame.rotation) in {90, 180} else 0
            expected[index] = np.rot90(to_rgb(av_frame), turns)
    for index, frame in found:
        np.testing.assert_array_equal(frame, expected[index])
    assert {clip.count for clip in clips} == {count}
