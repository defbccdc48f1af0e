"""Opens video files safely: they may come from anyone.

FFmpeg follows what a file says, even into other files or onto the network, and it decodes a
picture of any size. So only local files in plain video containers are opened, and the size of a
picture is limited. FFmpeg's log stays as PyAV leaves it: silent.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import av
import av.container
import av.stream

from timesformer_runtime.errors import InvalidVideoError, unreadable
from timesformer_runtime.video.file import VideoFile
from timesformer_runtime.video.guard.units import CountedFile, check_packet
from timesformer_runtime.video.limits import DecodeLimits, Watch
from timesformer_runtime.video.opening import READABLE, InputContainer, open_container

MAX_PIXELS = DecodeLimits.max_pixels

if TYPE_CHECKING:  # the class cannot be subscripted at run time
    Packet = av.Packet[av.VideoStream]
VideoStream = av.VideoStream


class OpenVideo(NamedTuple):
    """A file that is open, its video stream, and what follows the cost of reading it."""

    container: InputContainer
    stream: VideoStream
    watch: Watch
    file: CountedFile

    @property
    def tells_times(self) -> bool:
        """Whether timestamps say when frames are shown; in AVI files they only count packets."""
        return self.container.format.name != "avi"

    def packets(self) -> Iterator[Packet]:
        """As ``packets``, within the limits."""
        return packets(self.container, self.stream, self.watch, self.file)

    def decode(self, packet: Packet | None) -> list[av.VideoFrame]:
        """The pictures that come out when a packet goes in; None for the end.

        Raises:
            av.FFmpegError: It does not decode.
            VideoLimitError: It has far too many units.
            MemoryError: There is not enough memory for it.
        """
        decoder = self.stream.codec_context
        check_packet(packet, decoder, self.watch)
        try:
            return decoder.decode(packet)
        except av.FFmpegError:
            self.watch.check_memory(decoder.width, decoder.height)
            raise


@contextlib.contextmanager
def open_video(video_file: VideoFile, *, threads: int = 1) -> Iterator[OpenVideo]:
    """Opens a file and its best video stream, ready to be decoded from the start.

    Args:
        video_file: The file.
        threads: Number of decoding threads.

    Raises:
        InvalidVideoError: It is not a video, it has no video stream that can be decoded, or
            its pictures are larger than the limit.
    """
    watch = video_file.watch
    with open_streams(video_file) as (container, file):
        stream = prepare(container, video_file.name, watch, threads=threads)
        yield OpenVideo(container, stream, watch, file)


@contextlib.contextmanager
def open_streams(video_file: VideoFile) -> Iterator[tuple[InputContainer, CountedFile]]:
    """Opens a file with all its streams; also gives what counts the NAL units in its packets.

    Raises:
        InvalidVideoError: It is not a video.
        VideoLimitError: It has far too many NAL units in a picture, or the time is over.
    """
    with contextlib.ExitStack() as stack:
        try:
            target = stack.enter_context(video_file.opened())
            container, file = open_container(video_file, target)
        except OSError as error:  # it was there a moment ago
            raise unreadable(video_file.name, error) from error
        stack.enter_context(container)
        try:
            yield container, file
        except Exception:
            file.raise_error()
            raise
        file.raise_error()


def prepare(container: InputContainer, name: str, watch: Watch, *, threads: int = 1) -> VideoStream:
    """Gives the best video stream, its decoder bounded and open, and leaves out the other streams.

    Args:
        container: What was opened.
        name: Its name, for errors.
        watch: Limits the size of a frame.
        threads: Number of decoding threads.

    Raises:
        InvalidVideoError: It has no video stream that can be decoded, or its frames are larger
            than the limit.
    """
    stream = _best_video_stream(container, name)
    _discard_other_streams(container, stream)
    decoder = stream.codec_context
    watch.check_pixels(decoder.width, decoder.height)
    decoder.options = {"max_pixels": str(_with_margins(watch.limits.max_pixels))}
    decoder.thread_count = threads
    decoder.thread_type = "AUTO" if threads > 1 else "NONE"
    try:  # PyAV 19 crashes where a decoder is used that failed to open
        decoder.open(strict=False)
    except av.FFmpegError as error:
        raise _does_not_decode(name) from error
    return stream


def _with_margins(pixels: int) -> int:
    """The pixels of a frame as a decoder counts them, which may add 64 on each side."""
    return pixels + 128 * 5 * math.isqrt(pixels) + 128 * 128


def packets(
    container: InputContainer,
    stream: VideoStream,
    watch: Watch | None = None,
    file: CountedFile | None = None,
) -> Iterator[Packet]:
    """The packets of a stream that hold something, from where the container stands to its end.

    Raises:
        av.FFmpegError: The file breaks off in a way that its format does not allow.
        VideoLimitError: The limits that ``watch`` knows are reached.
        MemoryError: There is not enough memory for them.
    """
    count = 0
    try:
        for packet in container.demux(stream):
            count += 1
            if file is not None:
                file.expect_packet()
            if watch is not None and (count > watch.limits.max_packets or count % 16 == 0):
                watch.check_packets(count)
            if packet.size > 0:
                yield packet
    except IndexError:
        pass  # PyAV's own end of a file in which another stream began after its header
    except av.FFmpegError:
        if file is not None:
            file.raise_error()
        if watch is not None:  # the time or memory is over, and FFmpeg calls it another error
            watch.seconds_left()
            watch.check_memory(stream.codec_context.width, stream.codec_context.height)
        raise
    if file is not None:  # FFmpeg may have taken an error for the end
        file.raise_error()


def _best_video_stream(container: InputContainer, name: str) -> VideoStream:
    stream = container.streams.best("video")
    cover_art = av.stream.Disposition.attached_pic
    if not isinstance(stream, VideoStream) or stream.disposition & cover_art:
        raise InvalidVideoError(f"{name} has no video stream; {READABLE}")
    if stream.codec_context is None:
        raise _does_not_decode(name)
    return stream


def _does_not_decode(name: str) -> InvalidVideoError:
    return InvalidVideoError(
        f"{name} is damaged or in a codec that cannot be decoded here; "
        "check that it is complete, or convert it to H.264"
    )


def _discard_other_streams(container: InputContainer, stream: VideoStream) -> None:
    for other in container.streams:
        if other.index != stream.index:
            other.discard = av.stream.Discard.all
