"""The decoders that the benchmark of decoding compares, with one thread each."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import av
import numpy as np

from tests.video_files import Clip, read_clip

Decoder = Callable[[str, Sequence[int]], object]
_LIBRARIES = ("avutil", "avcodec", "avformat", "avdevice", "avfilter", "swscale", "swresample")
_MARK = "TIMESFORMER_BENCHMARK_FFMPEG"  # the folder with links to PyAV's FFmpeg, once it is lent


def timesformer(path: str, indices: Sequence[int]) -> Clip:
    """Decodes with this project, which also counts the frames to choose the indices."""
    return read_clip(path, lambda count: np.linspace(0, count - 1, len(indices)).astype(np.int64))


def plain_pyav(path: str, indices: Sequence[int]) -> object:
    """Decodes from the start to the last of the given indices."""
    wanted, last, count = set(indices), max(indices), 0
    frames = []
    with av.open(path) as container:
        stream = container.streams.best("video")
        assert isinstance(stream, av.VideoStream)
        stream.codec_context.thread_count = 1
        for packet in container.demux(stream):
            try:
                decoded = packet.decode()
            except av.FFmpegError:
                continue
            for frame in decoded:
                if count in wanted:
                    frames.append(frame.to_ndarray(format="rgb24"))
                count += 1
            if count > last:
                break
    return frames


def torchcodec(mode: str) -> Decoder:
    """torchcodec, which trusts the file's header (``approximate``) or scans it (``exact``)."""
    from torchcodec.decoders import (  # type: ignore[import-not-found]  # noqa: PLC0415
        VideoDecoder,
    )

    def decode(path: str, indices: Sequence[int]) -> object:
        decoder = VideoDecoder(path, seek_mode=mode, num_ffmpeg_threads=1)
        count = decoder.metadata.num_frames
        return decoder.get_frames_at(np.linspace(0, count - 1, len(indices)).astype(int).tolist())

    return decode


def opencv(path: str, indices: Sequence[int]) -> object:
    """Decodes with OpenCV: seeks to each of the given indices."""
    import cv2  # type: ignore[import-not-found]  # noqa: PLC0415

    frames = []
    video = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    for index in indices:
        video.set(cv2.CAP_PROP_POS_FRAMES, index)
        found, frame = video.read()
        if found:
            frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    video.release()
    if len(frames) < len(indices):
        raise ValueError("frames are missing")
    return frames


def available() -> Iterator[tuple[str, Decoder | str]]:
    """Yields the name of each decoder, with the decoder or the reason why it is not available."""
    yield "plain PyAV", plain_pyav
    yield "timesformer", timesformer
    for mode in ("exact", "approximate"):
        try:
            yield f"torchcodec {mode}", torchcodec(mode)
        except (ImportError, RuntimeError, OSError) as error:
            yield f"torchcodec {mode}", str(error).strip().splitlines()[0]
    if importlib.util.find_spec("cv2"):
        yield "OpenCV", opencv
    else:
        yield "OpenCV", "pip install opencv-python-headless"


def lend_ffmpeg_to_torchcodec() -> None:
    """Starts the program again with PyAV's FFmpeg, where torchcodec finds none on the system.

    torchcodec comes without FFmpeg. With PyAV's FFmpeg, torchcodec and PyAV run equal code.
    """
    lent = os.environ.pop(_MARK, None)
    libraries = Path(av.__file__).parent.parent / "av.libs"
    if lent is None and not (libraries.is_dir() and importlib.util.find_spec("torchcodec")):
        return
    works = False
    with contextlib.suppress(ImportError, RuntimeError, OSError):
        torchcodec("exact")
        works = True
    if lent is not None:
        shutil.rmtree(lent)  # the loaded libraries stay in memory
    if works or lent is not None:
        return
    folder = Path(tempfile.mkdtemp(prefix="ffmpeg-"))
    for name in _LIBRARIES:
        for library in libraries.glob(f"lib{name}-*.so.*"):
            version = library.name.split(".so.")[1].split(".")[0]
            (folder / f"lib{name}.so.{version}").symlink_to(library)
    path = os.pathsep.join([str(folder), str(libraries), os.environ.get("LD_LIBRARY_PATH", "")])
    os.environ |= {"LD_LIBRARY_PATH": path, _MARK: str(folder)}
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
