"""Compares what a container states about itself with what is in it."""

from __future__ import annotations

from typing import NamedTuple

import av

from timesformer_runtime.video.container import OpenVideo, VideoStream, open_streams
from timesformer_runtime.video.decoding import Decoded
from timesformer_runtime.video.file import VideoFile
from timesformer_runtime.video.guard.units import CountedFile
from timesformer_runtime.video.index.frame_index import Extent
from timesformer_runtime.video.opening import InputContainer

# Containers that state a duration; for the others, FFmpeg derives it from what it finds.
_STREAM_DURATION = ("mov", "avi")
_COMMON_DURATION = ("matroska", "flv", "asf")
# What a statement and a sound file may differ by: the larger of these.
_TOLERANCE_SECONDS, _TOLERANCE_RATIO = 0.2, 0.03
_TOO_MUCH = 1.5  # muxers understate the duration of videos with a variable rate


class Stated(NamedTuple):
    """What a container states about itself, before anything is decoded.

    Attributes:
        seconds: Duration in seconds; None where it states none.
        packets: Number of packets of the video stream; None where it does not list them.
        bytes: Size of the file; None where it states none.
        is_common: Whether the duration is that of the longest stream, of several.
    """

    seconds: float | None
    packets: int | None
    bytes: int | None
    is_common: bool


class Verdict(NamedTuple):
    """The problems of a file.

    Attributes:
        problems: A short sentence for each; empty where it is sound.
        truncated: Whether its end is missing, or it claims one that never was.
    """

    problems: tuple[str, ...]
    truncated: bool


def read_stated(video_file: VideoFile, video: OpenVideo) -> Stated:
    """Reads what a file says about itself and its video stream."""
    container, stream = video.container, video.stream
    name = container.format.name
    # The samples of the parts that are played; fragments are not known before they are read.
    listed = len(stream.index_entries) if name.startswith("mov") and stream.frames else None
    size = _riff_size(video_file) if name == "avi" else None
    if name.startswith(_STREAM_DURATION):
        return Stated(_seconds(stream), listed, size, is_common=False)
    if name.startswith(_COMMON_DURATION) and container.duration:
        is_common = len(container.streams) > 1
        return Stated(container.duration / av.time_base, listed, size, is_common)
    return Stated(None, listed, size, is_common=False)


def judge(video_file: VideoFile, stated: Stated, extent: Extent, decoded: Decoded) -> Verdict:
    """Compares what a file says with what was found in it."""
    problems = []
    truncated = False
    size = video_file.size()
    if stated.bytes is not None and size < stated.bytes:
        truncated = True
        problems.append(f"it ends after {size} of {stated.bytes} bytes")
    if stated.packets is not None and extent.packets < stated.packets:
        truncated = True
        problems.append(f"it ends after {extent.packets} of {stated.packets} packets")
    found = _found_seconds(stated.seconds, extent)
    if stated.seconds is not None and found is not None:
        tolerance = max(_TOLERANCE_SECONDS, _TOLERANCE_RATIO * stated.seconds)
        if found < stated.seconds - tolerance and not _others_last(video_file, stated, tolerance):
            truncated = True
            problems.append(
                f"it ends after {found:.2f} of the {stated.seconds:.2f} seconds that it states"
            )
        elif found > _TOO_MUCH * stated.seconds + tolerance:
            problems.append(f"it states {stated.seconds:.2f} seconds and has {found:.2f}")
    return Verdict((*problems, *_flaws(decoded)), truncated)


def _flaws(decoded: Decoded) -> list[str]:
    flaws = []
    if decoded.failed_packets:
        flaws.append(f"{_counted(decoded.failed_packets, 'packet')} did not decode")
    if decoded.patched:
        flaws.append(f"{_counted(decoded.patched, 'frame')} decoded in spite of damage")
    return [*flaws, *oddities(decoded)]


def oddities(decoded: Decoded) -> tuple[str, ...]:
    """Problems of frames that decode, which are known while others follow."""
    found = []
    if len(decoded.sizes) > 1:
        found.append("its pictures change their size")
    if not decoded.in_order:
        found.append("its timestamps are not in order")
    return tuple(found)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _found_seconds(claimed: float | None, extent: Extent) -> float | None:
    if extent.first is None or extent.end is None or claimed is None:
        return None
    # Some files count the time before the first frame, and some do not.
    with_start, without = extent.end, extent.end - extent.first
    return with_start if abs(with_start - claimed) < abs(without - claimed) else without


def _others_last(video_file: VideoFile, stated: Stated, tolerance: float) -> bool:
    """Whether another stream, such as the sound, has the duration that the file states."""
    if not stated.is_common or stated.seconds is None:
        return False
    with open_streams(video_file) as (container, file):
        return _last_end(container, file, video_file) >= stated.seconds - tolerance


def _last_end(container: InputContainer, file: CountedFile, video_file: VideoFile) -> float:
    end = 0.0
    try:
        for count, packet in enumerate(container.demux()):
            file.expect_packet()
            if count % 16 == 0:
                video_file.watch.seconds_left()
            if packet.pts is not None and packet.time_base is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    except (av.FFmpegError, IndexError):
        file.raise_error()
        video_file.watch.seconds_left()
    return end


def _riff_size(video_file: VideoFile) -> int | None:
    """The file size that the header of an AVI file states; its demuxer does not look at it."""
    header = video_file.first_bytes(8)
    size = int.from_bytes(header[4:], "little")
    return size + 8 if header[:4] == b"RIFF" and size else None


def _seconds(stream: VideoStream) -> float | None:
    if stream.duration is None or stream.time_base is None:
        return None
    return float(stream.duration * stream.time_base)
