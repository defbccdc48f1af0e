"""Decodes a video from its first to its last packet, and renders the wanted frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, NamedTuple

from timesformer_runtime.errors import InvalidVideoError
from timesformer_runtime.video.container import OpenVideo, VideoStream
from timesformer_runtime.video.pixels import ConvertedFrame, Rendering
from timesformer_runtime.video.pyav import av

if TYPE_CHECKING:
    from timesformer_runtime.video.container import Packet

_DEFAULT_RATE = 25  # frames per second of a raw stream, as FFmpeg assumes
_LOWEST_RATE = 1 / 3600  # frames per second; a lower stated rate is taken to be wrong
CACHE_PIXELS = 1 << 25  # of all cached frames together: about 50 MB in yuv420p
_MAX_FAILED_PACKETS = 100  # decoding stops after more, if more packets failed than frames came out


class RenderedFrame(NamedTuple):
    """The array that a rendering made of a frame, and when the frame is shown.

    Attributes:
        pixels: The array.
        seconds: Time from the video's first frame.
    """

    pixels: ConvertedFrame
    seconds: float


@dataclasses.dataclass
class Decoded:
    """The frames that came out of a file, and the failures.

    Attributes:
        count: Number of frames that the file has: those that decode, or those that its index lists.
        frames: The wanted frames, by index.
        failed_packets: Number of packets that did not decode.
        corrupt_frames: Number of frames that decoded in spite of damage; FFmpeg flags them.
        sizes: Heights and widths of the decoded frames; after ``decode_selected`` only those of the
            wanted frames.
        in_order: False once a frame's timestamp is lower than that of the frame before.
        interlaced: True if a wanted frame consists of two fields.
        times: When each frame is shown, in seconds from the first; empty after
            ``decode_selected``.
        cached: Decoded frames, by index, that nobody wanted so far; filled only for small videos.
        start: Timestamp of the first frame; None where timestamps are not times.
    """

    count: int = 0
    frames: dict[int, RenderedFrame] = dataclasses.field(default_factory=dict)
    failed_packets: int = 0
    corrupt_frames: int = 0
    sizes: set[tuple[int, int]] = dataclasses.field(default_factory=set)
    in_order: bool = True
    interlaced: bool = False
    times: list[float] = dataclasses.field(default_factory=list)
    cached: dict[int, av.VideoFrame] = dataclasses.field(default_factory=dict)
    start: int | None = None


class FrameCollector:
    """Renders wanted frames and stores them in a ``Decoded``.

    Args:
        video: The open file; its limits count for the memory of all stored frames together.
        rendering: Makes an array of a decoded frame.
        decoded: Receives the rendered frames.
    """

    def __init__(self, video: OpenVideo, rendering: Rendering, decoded: Decoded) -> None:
        self._video = video
        self._rendering = rendering
        self._decoded = decoded
        self._bytes = sum(frame.pixels.nbytes for frame in decoded.frames.values())

    def add(self, index: int, frame: av.VideoFrame) -> None:
        """Renders and stores a frame.

        Raises:
            VideoLimitError: The stored frames take too much memory, or the time is over.
            InvalidVideoError: FFmpeg does not convert the frame's colours to RGB.
        """
        pixels = self._rendering(frame, self._video.sample_aspect_ratio)
        self._bytes += pixels.nbytes
        self._video.watch.check_bytes(self._bytes)
        self._video.watch.check_time()
        seconds = frame_seconds(self._video.stream, index, frame.pts, self._decoded.start)
        self._decoded.frames[index] = RenderedFrame(pixels, seconds)
        self._decoded.interlaced |= frame.interlaced_frame


def decode_all(
    video: OpenVideo,
    wanted: Collection[int],
    rendering: Rendering | None = None,
    *,
    caches_others: bool = False,
    packets: Iterator[Packet] | None = None,
) -> Decoded:
    """Decodes the whole stream in order, and renders the wanted frames.

    Stops early where far more packets fail than frames come out.

    Args:
        video: The open file, at its start.
        wanted: Indices of frames.
        rendering: Makes an array of a decoded frame.
        caches_others: True to store the decoded frames that are not wanted, too, while they have
            few pixels together.
        packets: The stream's packets, if the caller has read them already; the file may then be at
            any offset.
    """
    decoded = Decoded()
    collector = FrameCollector(video, rendering or Rendering(), decoded)
    cache = _FrameCache(decoded.cached) if caches_others else None
    for frame in decode_in_order(video, decoded, packets):
        if decoded.count == 0 and video.has_display_times:
            decoded.start = frame.pts
        seconds = frame_seconds(video.stream, decoded.count, frame.pts, decoded.start)
        decoded.times.append(seconds)
        if decoded.count in wanted:
            collector.add(decoded.count, frame)
        elif cache is not None:
            cache.add(decoded.count, frame)
    return decoded


def check_decoded(name: str, decoded: Decoded) -> None:
    """Checks that decoding a whole file gave frames.

    Raises:
        InvalidVideoError: There are no frames, or more packets failed than frames came out.
    """
    if decoded.failed_packets > decoded.count:
        raise InvalidVideoError(
            f"{name} is damaged or encrypted: it gave {decoded.failed_packets} packets that fail "
            f"to decode and {decoded.count} frames; repair or decrypt it"
        )
    if decoded.count == 0:
        raise InvalidVideoError(f"{name} has no frame that decodes; check that it is complete")


def decode_in_order(
    video: OpenVideo, decoded: Decoded, packets: Iterator[Packet] | None = None
) -> Iterator[av.VideoFrame]:
    """Gives every frame of the stream in order, and counts frames and failures in ``decoded``.

    While the caller has a frame, ``decoded.count`` is its index. Decoding stops early where far
    more packets fail than frames come out.

    Args:
        video: The open file.
        decoded: Receives the counts; its ``frames`` stay as they are.
        packets: The packets of ``video``, if the caller counts or chooses them; by default all.
    """
    previous = None
    has_display_times = video.has_display_times
    for packet in _packets_to_the_end(packets or video.packets(), decoded):
        try:
            frames = video.decode(packet)
        except av.FFmpegError:
            decoded.failed_packets += 1
            if decoded.failed_packets > max(_MAX_FAILED_PACKETS, decoded.count):
                return
            continue
        for frame in frames:
            if (frame.height, frame.width) not in decoded.sizes:
                video.watch.check_pixels(frame.width, frame.height)
                decoded.sizes.add((frame.height, frame.width))
            decoded.corrupt_frames += frame.is_corrupt
            yield frame
            time = frame.pts if has_display_times else None
            if time is not None and previous is not None and time < previous:
                decoded.in_order = False
            previous = time
            decoded.count += 1


class _FrameCache:
    """Holds the frames of a small video that are not wanted yet, so that none is decoded twice.

    Args:
        frames: Receives the frames by index; emptied once the frames have too many pixels together.
    """

    def __init__(self, frames: dict[int, av.VideoFrame]) -> None:
        self._frames = frames
        self._pixels = 0

    def add(self, index: int, frame: av.VideoFrame) -> None:
        self._pixels += frame.width * frame.height
        if self._pixels <= CACHE_PIXELS:
            self._frames[index] = frame
        else:
            self._frames.clear()


def _packets_to_the_end(packets: Iterator[Packet], decoded: Decoded) -> Iterator[Packet | None]:
    """Gives the packets of a stream, and then None, for the decoder's last frames."""
    try:
        yield from packets
    except av.FFmpegError:  # the file ends badly; the frames before that still count
        decoded.failed_packets += 1
    yield None


def frame_seconds(stream: VideoStream, index: int, time: int | None, start: int | None) -> float:
    """Computes when a frame is shown, in seconds from the first.

    Args:
        stream: The video's stream.
        index: Number of frames before this one.
        time: The frame's timestamp, if it has one.
        start: The first frame's timestamp; None where timestamps are not times.
    """
    if time is not None and start is not None and stream.time_base is not None:
        return float((time - start) * stream.time_base)
    return index / frame_rate(stream)


def frame_rate(stream: VideoStream) -> float:
    """Reads how many frames per second the file states; 25 where that is missing or absurd."""
    stated = float(stream.average_rate or stream.guessed_rate or _DEFAULT_RATE)
    return stated if stated >= _LOWEST_RATE else _DEFAULT_RATE
