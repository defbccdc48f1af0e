"""Decodes a whole video, and keeps the wanted frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, NamedTuple

import av
import av.error

from timesformer_runtime.errors import InvalidVideoError
from timesformer_runtime.video.container import OpenVideo, VideoStream
from timesformer_runtime.video.limits import Watch
from timesformer_runtime.video.pixels import ConvertedFrame, Rendering

if TYPE_CHECKING:
    from timesformer_runtime.video.container import Packet

_USUAL_RATE = 25  # frames per second of a raw stream that says nothing: FFmpeg's own assumption
_LOWEST_RATE = 1 / 3600  # frames per second; a time-lapse of plants has more
SPARE_PIXELS = 1 << 25  # about 50 MB as they are decoded
_HOPELESS = 100  # after so many failed packets, more than frames, reading on is a waste


class Picture(NamedTuple):
    """A frame as it is kept, and its time in seconds from the video's first frame."""

    pixels: ConvertedFrame
    seconds: float


@dataclasses.dataclass
class Decoded:
    """The frames that came out of a file, and what went wrong.

    Attributes:
        count: Number of frames that decode.
        pictures: The wanted frames by index.
        failed_packets: Number of packets that did not decode.
        patched: Number of frames that decoded in spite of damage.
        sizes: Heights and widths of the frames; those of the wanted ones where only they are known.
        in_order: Whether no timestamp of a frame is before that of the frame before.
        interlaced: Whether a wanted frame consists of two fields.
        times: When each frame is shown, in seconds from the first; only where all were decoded.
        spare: Frames as decoded that were not wanted, of a small video that was decoded in whole.
        start: Timestamp of the first frame, where timestamps tell times.
    """

    count: int = 0
    pictures: dict[int, Picture] = dataclasses.field(default_factory=dict)
    failed_packets: int = 0
    patched: int = 0
    sizes: set[tuple[int, int]] = dataclasses.field(default_factory=set)
    in_order: bool = True
    interlaced: bool = False
    times: list[float] = dataclasses.field(default_factory=list)
    spare: dict[int, av.VideoFrame] = dataclasses.field(default_factory=dict)
    start: int | None = None


class Keeper:
    """Renders the wanted frames of a video and keeps them.

    Args:
        stream: The video's stream.
        watch: Follows what they cost.
        rendering: Makes of a decoded frame the array that is kept.
        decoded: Gets the frames.
    """

    def __init__(
        self, stream: VideoStream, watch: Watch, rendering: Rendering, decoded: Decoded
    ) -> None:
        self._stream = stream
        self._watch = watch
        self._rendering = rendering
        self._decoded = decoded
        self._bytes = sum(picture.pixels.nbytes for picture in decoded.pictures.values())

    def keep(self, number: int, picture: av.VideoFrame) -> None:
        """Adds a frame.

        Raises:
            VideoLimitError: The frames take too much memory together.
            InvalidVideoError: Its colours cannot be converted.
        """
        pixels = self._rendering(picture, self._stream.codec_context.sample_aspect_ratio)
        self._bytes += pixels.nbytes
        self._watch.check_bytes(self._bytes)
        self._watch.seconds_left()
        seconds = frame_seconds(self._stream, number, picture.pts, self._decoded.start)
        self._decoded.pictures[number] = Picture(pixels, seconds)
        self._decoded.interlaced |= picture.interlaced_frame


def decode_all(
    video: OpenVideo,
    wanted: Collection[int],
    rendering: Rendering | None = None,
    *,
    keeps_spare: bool = False,
    demuxed: Iterator[Packet] | None = None,
) -> Decoded:
    """Decodes the whole stream in order, and keeps the wanted frames.

    Gives up early where far more packets fail than frames come out.

    Args:
        video: The open file, at its start.
        wanted: Indices of frames.
        rendering: Makes of a decoded frame the array that is kept.
        keeps_spare: Whether the other frames stay as decoded, as long as they are few and small.
        demuxed: The stream's packets where they were read already; the file then may stand
            anywhere.
    """
    decoded = Decoded()
    keeper = Keeper(video.stream, video.watch, rendering or Rendering(), decoded)
    spare = _Spare(decoded.spare) if keeps_spare else None
    for picture in decode_in_order(video, decoded, demuxed):
        if decoded.count == 0 and video.tells_times:
            decoded.start = picture.pts
        seconds = frame_seconds(video.stream, decoded.count, picture.pts, decoded.start)
        decoded.times.append(seconds)
        if decoded.count in wanted:
            keeper.keep(decoded.count, picture)
        elif spare is not None:
            spare.add(decoded.count, picture)
    return decoded


def check_decoded(name: str, decoded: Decoded) -> None:
    """Makes sure that a file that was decoded in whole gave frames.

    Raises:
        InvalidVideoError: It gave none, or fewer than there are packets that failed.
    """
    if decoded.failed_packets > decoded.count:
        raise InvalidVideoError(
            f"{name} is damaged or encrypted: it gave {decoded.failed_packets} packets that fail "
            f"to decode and {decoded.count} frames; repair or decrypt it"
        )
    if decoded.count == 0:
        raise InvalidVideoError(f"{name} has no frame that decodes; check that it is complete")


def decode_in_order(
    video: OpenVideo, decoded: Decoded, demuxed: Iterator[Packet] | None = None
) -> Iterator[av.VideoFrame]:
    """Every picture of the stream, while ``decoded`` tells what came before it.

    Gives up early where far more packets fail than frames come out.

    Args:
        video: The open file.
        decoded: Is kept up to date, but gets no pictures.
        demuxed: The packets of ``video``, for those who want to see them pass.
    """
    previous = None
    tells_times = video.tells_times
    for packet in _packets_to_the_end(demuxed or video.packets(), decoded):
        try:
            pictures = video.decode(packet)
        except av.FFmpegError:
            decoded.failed_packets += 1
            if decoded.failed_packets > max(_HOPELESS, decoded.count):
                return
            continue
        for picture in pictures:
            if (picture.height, picture.width) not in decoded.sizes:
                video.watch.check_pixels(picture.width, picture.height)
                decoded.sizes.add((picture.height, picture.width))
            decoded.patched += picture.is_corrupt
            yield picture
            time = picture.pts if tells_times else None
            if time is not None and previous is not None and time < previous:
                decoded.in_order = False
            previous = time
            decoded.count += 1


class _Spare:
    """All frames of a video as long as they are few, so that it need not be decoded again."""

    def __init__(self, pictures: dict[int, av.VideoFrame]) -> None:
        self._pictures = pictures
        self._pixels = 0

    def add(self, number: int, picture: av.VideoFrame) -> None:
        self._pixels += picture.width * picture.height
        if self._pixels <= SPARE_PIXELS:
            self._pictures[number] = picture
        else:
            self._pictures.clear()


def _packets_to_the_end(demuxed: Iterator[Packet], decoded: Decoded) -> Iterator[Packet | None]:
    """The packets of a stream, and None at the end: the decoder then gives its last frames."""
    try:
        yield from demuxed
    except av.FFmpegError:  # a broken end: what is there still counts
        decoded.failed_packets += 1
    yield None


def frame_seconds(stream: VideoStream, number: int, time: int | None, start: int | None) -> float:
    """When a frame is shown, in seconds from the first.

    Args:
        stream: The video's stream.
        number: How many frames come before it.
        time: Its timestamp, if it has one.
        start: That of the first frame, where timestamps tell times.
    """
    if time is not None and start is not None and stream.time_base is not None:
        return float((time - start) * stream.time_base)
    return number / frame_rate(stream)


def frame_rate(stream: VideoStream) -> float:
    """Frames per second, as the file stated, unless no video would have so few."""
    claimed = float(stream.average_rate or stream.guessed_rate or _USUAL_RATE)
    return claimed if claimed >= _LOWEST_RATE else _USUAL_RATE
