"""Two ways to the same frames: decode the whole file, or only what the wanted frames need."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import av
import av.error
import numpy as np
import numpy.typing as npt

from timesformer_runtime.errors import InvalidVideoError
from timesformer_runtime.video.container import InputContainer, VideoStream, packets
from timesformer_runtime.video.frame_index import FrameIndex

if TYPE_CHECKING:
    from timesformer_runtime.video.container import Packet

Frame = npt.NDArray[np.uint8]  # [H, W, 3], RGB

_RESERVED_COLOUR_SPACE, _UNSPECIFIED_COLOUR_SPACE = 3, 2
_USUAL_RATE = 25  # frames per second of a raw stream that says nothing: FFmpeg's own assumption
_HOPELESS = 100  # after so many failed packets, more than frames, reading on is a waste


class Picture(NamedTuple):
    """A frame and its time in seconds from the video's first frame."""

    pixels: Frame
    seconds: float


@dataclasses.dataclass
class Decoded:
    """What came out of a file.

    Attributes:
        count: Number of frames that decode.
        pictures: The wanted frames by index.
        failed_packets: Number of packets that did not decode.
    """

    count: int = 0
    pictures: dict[int, Picture] = dataclasses.field(default_factory=dict)
    failed_packets: int = 0


def decode_all(container: InputContainer, stream: VideoStream, wanted: Collection[int]) -> Decoded:
    """Decodes the whole stream in order, and keeps the wanted frames.

    Gives up early where far more packets fail than frames come out.
    """
    decoded = Decoded()
    start = None
    for packet in _packets_to_the_end(container, stream, decoded):
        try:
            frames = stream.codec_context.decode(packet)
        except av.FFmpegError:
            decoded.failed_packets += 1
            if decoded.failed_packets > max(_HOPELESS, decoded.count):
                return decoded
            continue
        for frame in frames:
            number = decoded.count
            if number == 0:
                start = frame.pts
            if number in wanted:
                seconds = _seconds(stream, number, frame.pts, start)
                decoded.pictures[number] = Picture(to_rgb(frame), seconds)
            decoded.count += 1
    return decoded


def _packets_to_the_end(
    container: InputContainer, stream: VideoStream, decoded: Decoded
) -> Iterator[Packet | None]:
    """The packets of a stream, and None at the end: the decoder then gives its last frames."""
    try:
        yield from packets(container, stream)
    except av.FFmpegError:  # a broken end: what is there still counts
        decoded.failed_packets += 1
    yield None


def decode_selected(
    container: InputContainer, stream: VideoStream, index: FrameIndex, wanted: Sequence[int]
) -> Decoded | None:
    """Decodes only what the wanted frames need.

    Args:
        container: The open file; it may stand anywhere.
        stream: Its video stream.
        index: Which packet gives which frame.
        wanted: Indices of frames, ascending.

    Returns:
        The same frames as ``decode_all``; None where something was not as the index promised.
    """
    decoded = Decoded(count=len(index.times))
    for run in _runs(index, wanted):
        try:
            pictures = _decode_run(container, stream, index, run)
        except av.FFmpegError:
            return None
        if pictures is None:
            return None
        decoded.pictures |= pictures
    return decoded


@dataclasses.dataclass
class _Run:
    """Packets that are decoded one after the other, for the sake of some frames."""

    start: int
    last: int
    frame_of_time: dict[int, int]  # the wanted frames by presentation timestamp


def _runs(index: FrameIndex, wanted: Sequence[int]) -> list[_Run]:
    runs: list[_Run] = []
    for frame in wanted:
        packet = int(index.packet_of_frame[frame])
        entry = index.entry_for(packet)
        if not runs or entry > runs[-1].last:
            runs.append(_Run(entry, packet, {}))
        runs[-1].last = max(runs[-1].last, packet)
        runs[-1].frame_of_time[int(index.times[packet])] = frame
    return runs


def _decode_run(
    container: InputContainer, stream: VideoStream, index: FrameIndex, run: _Run
) -> dict[int, Picture] | None:
    """Seeks, decodes a run and gives its wanted frames; None where it is not as expected."""
    decoder = stream.codec_context
    pictures: dict[int, Picture] = {}
    times: list[int] = []
    for packet in _packets_of_run(container, stream, index, run):
        if packet is not None and index.skips_unreferenced:
            decoder.skip_frame = "DEFAULT" if packet.pts in run.frame_of_time else "NONREF"
        for frame in decoder.decode(packet):
            if frame.pts is None or frame.is_corrupt:
                return None
            times.append(frame.pts)
            number = run.frame_of_time.get(frame.pts)
            if number is not None:
                seconds = _seconds(stream, number, frame.pts, int(index.times[0]))
                pictures[number] = Picture(to_rgb(frame), seconds)
    return pictures if _is_as_expected(times, pictures, index, run) else None


def _packets_of_run(
    container: InputContainer, stream: VideoStream, index: FrameIndex, run: _Run
) -> Iterator[Packet | None]:
    """The packets of a run and None; fewer where the file does not give them in that order."""
    for packet, number in _packets_from(container, stream, index, run.start):
        if packet.pts != index.times[number]:
            return
        if number >= run.start:
            yield packet
        if number == run.last:
            yield None
            return


def _packets_from(
    container: InputContainer, stream: VideoStream, index: FrameIndex, start: int
) -> Iterator[tuple[Packet, int]]:
    """Seeks to a packet or to one before it, and gives the packets from there with their numbers.

    Nothing where the file cannot seek there.
    """
    # Some containers look for a packet by the one time, some by the other.
    for time in (index.times[start], index.decoding_times[start]):
        container.seek(int(time), stream=stream, backward=True)
        following = packets(container, stream)
        first = next(following, None)
        number = None if first is None else index.number_of(first)
        if first is not None and number is not None and number <= start:
            last = len(index.times)
            yield from zip(itertools.chain([first], following), range(number, last), strict=False)
            return


def _is_as_expected(
    times: list[int], pictures: dict[int, Picture], index: FrameIndex, run: _Run
) -> bool:
    if len(pictures) != len(run.frame_of_time) or times != sorted(set(times)):
        return False
    if index.skips_unreferenced:
        return True
    fed = index.times[run.start : run.last + 1]
    # Frames that are shown before the entry may be missing: they need what comes before it.
    return [time for time in times if time >= fed[0]] == sorted(fed[fed >= fed[0]])


def _seconds(stream: VideoStream, number: int, time: int | None, start: int | None) -> float:
    if time is not None and start is not None and stream.time_base is not None:
        return float((time - start) * stream.time_base)
    return number / frame_rate(stream)


def frame_rate(stream: VideoStream) -> float:
    """Frames per second, as the file claims."""
    return float(stream.average_rate or stream.guessed_rate or _USUAL_RATE)


def to_rgb(frame: av.VideoFrame) -> Frame:
    """Converts a frame to uint8 RGB [H, W, 3] and turns it upright.

    Raises:
        InvalidVideoError: Its colours are of a kind that FFmpeg does not convert to RGB.
    """
    if frame.colorspace == _RESERVED_COLOUR_SPACE:
        frame.colorspace = _UNSPECIFIED_COLOUR_SPACE  # FFmpeg refuses to convert from it
    try:
        pixels = frame.reformat(format="rgb24", threads=1).to_ndarray()
    except av.FFmpegError as error:
        raise InvalidVideoError(
            f"the video's colours ({frame.format.name}, matrix {frame.colorspace}) cannot be "
            "converted to RGB; convert it to yuv420p first"
        ) from error
    turns = frame.rotation // 90 if frame.rotation in {-180, -90, 90, 180} else 0
    return np.ascontiguousarray(np.rot90(pixels, turns), dtype=np.uint8)
