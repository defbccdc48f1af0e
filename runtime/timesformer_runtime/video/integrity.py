"""Compares the metadata that a container states with the packets and frames that are in it."""

from __future__ import annotations

from typing import NamedTuple

from timesformer_runtime.video.container import OpenVideo, VideoStream, open_streams
from timesformer_runtime.video.decoding import Decoded
from timesformer_runtime.video.file import VideoFile
from timesformer_runtime.video.guard.nal_units import GuardedFile
from timesformer_runtime.video.index.frame_index import Extent
from timesformer_runtime.video.opening import InputContainer
from timesformer_runtime.video.pyav import av

# Containers that state a duration, of each stream or of the longest one. For others FFmpeg derives
# the duration from the packets that it finds.
_STREAM_DURATION = ("mov", "avi")
_COMMON_DURATION = ("matroska", "flv", "asf")
# The stated duration of an intact file may be wrong by the larger of these two: seconds, and a
# share of the duration.
_TOLERANCE_SECONDS, _TOLERANCE_RATIO = 0.2, 0.03
# An intact file may last up to this many times its stated duration: muxers understate the duration
# of videos with a variable rate.
_MAX_UNDERSTATEMENT = 1.5


class StatedMetadata(NamedTuple):
    """The metadata that a container states about itself.

    Attributes:
        seconds: Duration in seconds; None where the container states none.
        packets: Number of packets of the video stream; None where the container does not list them.
        bytes: Size of the file; None where the container states none.
        is_common: True if the container has several streams, and states only the duration of the
            longest one.
    """

    seconds: float | None
    packets: int | None
    bytes: int | None
    is_common: bool


class Verdict(NamedTuple):
    """The problems of a file.

    Attributes:
        problems: A short sentence for each problem; empty for an intact file.
        truncated: True if the file ends earlier than it states.
    """

    problems: tuple[str, ...]
    truncated: bool


def read_stated_metadata(video_file: VideoFile, video: OpenVideo) -> StatedMetadata:
    """Reads the metadata that a file states about itself and its video stream."""
    container, stream = video.container, video.stream
    name = container.format.name
    # An MP4 file lists the packets of the parts that its edit list plays. ``frames`` is 0 for a
    # fragmented file, which lists its packets fragment by fragment.
    listed = len(stream.index_entries) if name.startswith("mov") and stream.frames else None
    size = _riff_size(video_file) if name == "avi" else None
    if name.startswith(_STREAM_DURATION):
        return StatedMetadata(_duration(stream), listed, size, is_common=False)
    if name.startswith(_COMMON_DURATION) and container.duration:
        is_common = len(container.streams) > 1
        return StatedMetadata(container.duration / av.time_base, listed, size, is_common)
    return StatedMetadata(None, listed, size, is_common=False)


def judge(
    video_file: VideoFile, stated: StatedMetadata, extent: Extent, decoded: Decoded
) -> Verdict:
    """Compares the stated metadata of a file with its content.

    Args:
        video_file: The file.
        stated: The metadata that the file states.
        extent: How much of the video stream is in the file.
        decoded: The result of decoding, as far as it went.
    """
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
        is_short = found < stated.seconds - tolerance
        if is_short and not _another_stream_lasts(video_file, stated, tolerance):
            truncated = True
            problems.append(
                f"it ends after {found:.2f} of the {stated.seconds:.2f} seconds that it states"
            )
        elif found > _MAX_UNDERSTATEMENT * stated.seconds + tolerance:
            problems.append(f"it states {stated.seconds:.2f} seconds and has {found:.2f}")
    return Verdict((*problems, *_decoding_problems(decoded)), truncated)


def _decoding_problems(decoded: Decoded) -> list[str]:
    problems = []
    if decoded.failed_packets:
        problems.append(f"{_counted(decoded.failed_packets, 'packet')} did not decode")
    if decoded.corrupt_frames:
        problems.append(f"{_counted(decoded.corrupt_frames, 'frame')} decoded in spite of damage")
    return [*problems, *frame_problems(decoded)]


def frame_problems(decoded: Decoded) -> tuple[str, ...]:
    """Lists the problems that the frames show among themselves, as far as decoding went."""
    problems = []
    if len(decoded.sizes) > 1:
        problems.append("its frames change their size")
    if not decoded.in_order:
        problems.append("its timestamps are not in order")
    return tuple(problems)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _found_seconds(stated: float | None, extent: Extent) -> float | None:
    """Computes the duration of the packets in the file, in the way that fits the stated one."""
    if extent.first is None or extent.end is None or stated is None:
        return None
    # Some files include the time before the first frame in their duration, others do not.
    with_start, without = extent.end, extent.end - extent.first
    return with_start if abs(with_start - stated) < abs(without - stated) else without


def _another_stream_lasts(video_file: VideoFile, stated: StatedMetadata, tolerance: float) -> bool:
    """True if another stream, such as the audio, has the duration that the file states."""
    if not stated.is_common or stated.seconds is None:
        return False
    with open_streams(video_file) as (container, file):
        return _end_of_all_streams(container, file, video_file) >= stated.seconds - tolerance


def _end_of_all_streams(
    container: InputContainer, file: GuardedFile, video_file: VideoFile
) -> float:
    """Reads all packets, and computes when the longest stream ends, in seconds."""
    end = 0.0
    try:
        for count, packet in enumerate(container.demux()):
            file.begin_packet()
            if count % 16 == 0:
                video_file.watch.check_time()
            if packet.pts is not None and packet.time_base is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    except (av.FFmpegError, IndexError):
        file.raise_error()
        video_file.watch.check_time()
    return end


def _riff_size(video_file: VideoFile) -> int | None:
    """Reads the file size that an AVI file's header states; FFmpeg's demuxer ignores it."""
    header = video_file.first_bytes(8)
    size = int.from_bytes(header[4:], "little")
    return size + 8 if header[:4] == b"RIFF" and size else None


def _duration(stream: VideoStream) -> float | None:
    if stream.duration is None or stream.time_base is None:
        return None
    return float(stream.duration * stream.time_base)
