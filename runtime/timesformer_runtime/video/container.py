"""Opens video files safely: they may come from strangers.

FFmpeg follows what a file says, even into other files or onto the network, and it decodes frames of
any size. So this module opens only local files in plain video containers, and limits the size of a
frame. FFmpeg's log stays as PyAV leaves it: silent.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from timesformer_runtime.errors import InvalidVideoError, unreadable
from timesformer_runtime.forks import call_in_forks, keep_forever
from timesformer_runtime.video.file import VideoFile
from timesformer_runtime.video.guard.nal_units import GuardedFile, check_packet
from timesformer_runtime.video.limits import DecodeLimits, Watch
from timesformer_runtime.video.opening import GIVE_A_VIDEO, InputContainer, open_container
from timesformer_runtime.video.pyav import av

MAX_PIXELS = DecodeLimits.max_pixels

if TYPE_CHECKING:  # the class cannot be subscripted at run time
    Packet = av.Packet[av.VideoStream]
VideoStream = av.VideoStream


class OpenVideo(NamedTuple):
    """An open video file.

    Attributes:
        container: PyAV's container.
        stream: The best video stream, with its decoder open.
        watch: Enforces the limits for reading the file.
        file: The file object from which the container reads.
        container_ratio: The sample aspect ratio that the container states in place of the codec's;
            None where it states none.
    """

    container: InputContainer
    stream: VideoStream
    watch: Watch
    file: GuardedFile
    container_ratio: Fraction | None

    @property
    def sample_aspect_ratio(self) -> Fraction | None:
        """Width of a pixel divided by its height; None where nothing states it.

        The codec's own may change from one frame to the next.
        """
        return self.container_ratio or self.stream.codec_context.sample_aspect_ratio

    @property
    def has_display_times(self) -> bool:
        """True if timestamps say when frames are shown; in AVI files they only count packets."""
        return self.container.format.name != "avi"

    def packets(self) -> Iterator[Packet]:
        """Gives the packets of the video stream, as the function ``packets`` does."""
        return packets(self.container, self.stream, self.watch, self.file)

    def decode(self, packet: Packet | None) -> list[av.VideoFrame]:
        """Sends a packet to the decoder, and gives the frames that it returns.

        Args:
            packet: The packet; None at the end of the stream.

        Raises:
            av.FFmpegError: The packet does not decode.
            VideoLimitError: The packet has far too many NAL units.
            NotEnoughMemoryError: There is not enough memory for a frame.
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
    """Opens a file and the decoder of its best video stream, at the start of the file.

    Args:
        video_file: The file.
        threads: Number of decoding threads.

    Raises:
        InvalidVideoError: The file is not a video, or has no video stream that FFmpeg decodes.
        VideoLimitError: The frames are larger than the limit, or the file has far too many NAL
            units in a frame, or the time is over.
    """
    watch = video_file.watch
    with open_streams(video_file) as (container, file):
        stream = open_decoder(container, video_file.name, watch, threads=threads)
        yield OpenVideo(container, stream, watch, file, container_ratio(stream))


@contextlib.contextmanager
def open_streams(video_file: VideoFile) -> Iterator[tuple[InputContainer, GuardedFile]]:
    """Opens a file with all its streams.

    Returns:
        The container, and the file object from which it reads.

    Raises:
        InvalidVideoError: The file is not a video.
        VideoLimitError: The file has far too many NAL units in a frame, or the time is over.
    """
    with contextlib.ExitStack() as stack:
        try:
            target = stack.enter_context(video_file.opened())
            container, file = open_container(video_file, target)
        except OSError as error:  # the file was removed or became unreadable meanwhile
            raise unreadable(video_file.name, error) from error
        stack.callback(_Closing(container).close)
        try:
            yield container, file
        except Exception:
            file.raise_error()
            raise
        file.raise_error()


class _Closing:
    """Closes a container, but not in a process that was forked since it was opened.

    The decoder waits at its end for its threads, which a forked process does not have.

    Args:
        container: The open container.
    """

    def __init__(self, container: InputContainer) -> None:
        self._container: InputContainer | None = container
        call_in_forks(self, _Closing._leave_to_parent)

    def close(self) -> None:
        """Closes the container."""
        if self._container is not None:
            self._container.close()

    def _leave_to_parent(self) -> None:
        """Gives up the container, in a forked process."""
        if self._container is not None:
            keep_forever(self._container)
            self._container = None


def open_decoder(
    container: InputContainer, name: str, watch: Watch, *, threads: int = 1
) -> VideoStream:
    """Opens the decoder of the best video stream, and makes FFmpeg discard the other streams.

    Args:
        container: The open container.
        name: The video's name, for errors.
        watch: Limits the size of a frame.
        threads: Number of decoding threads.

    Returns:
        The best video stream.

    Raises:
        InvalidVideoError: The container has no video stream that FFmpeg decodes.
        VideoLimitError: The frames are larger than the limit.
    """
    stream = _best_video_stream(container, name)
    _discard_other_streams(container, stream)
    decoder = stream.codec_context
    watch.check_pixels(decoder.width, decoder.height)
    decoder.options = {"max_pixels": str(_with_margins(watch.limits.max_pixels))}
    decoder.thread_count = threads
    decoder.thread_type = "AUTO" if threads > 1 else "NONE"
    try:  # PyAV 19 crashes when a caller uses a decoder that failed to open
        decoder.open(strict=False)
    except av.FFmpegError as error:
        raise _does_not_decode(name) from error
    return stream


def container_ratio(stream: VideoStream) -> Fraction | None:
    """Reads the sample aspect ratio that the container states in place of the codec's.

    A player follows the container. VP9 and AV1 know no other than square pixels.

    Args:
        stream: The stream, of which no packet is decoded so far.

    Returns:
        None where the container states none, or that of the codec.
    """
    stated = stream.sample_aspect_ratio  # FFmpeg falls back to the codec's ratio
    return None if stated == stream.codec_context.sample_aspect_ratio else stated


def _with_margins(pixels: int) -> int:
    """Adds the margins that a decoder may count to a frame's pixels: 64 on each side."""
    return pixels + 128 * 5 * math.isqrt(pixels) + 128 * 128


def packets(
    container: InputContainer,
    stream: VideoStream,
    watch: Watch | None = None,
    file: GuardedFile | None = None,
) -> Iterator[Packet]:
    """Gives the packets of a stream that are not empty, from the container's offset to its end.

    Args:
        container: The open container.
        stream: The stream.
        watch: Limits the number of packets, and the time.
        file: The guarded file object from which the container reads.

    Raises:
        av.FFmpegError: The file ends where its format does not allow it.
        VideoLimitError: There are too many packets, a packet has far too many NAL units, or the
            time is over.
        NotEnoughMemoryError: There is not enough memory for a packet.
    """
    count = 0
    try:
        for packet in container.demux(stream):
            count += 1
            if file is not None:
                file.begin_packet()
            if watch is not None and (count > watch.limits.max_packets or count % 16 == 0):
                watch.check_packets(count)
            if packet.size > 0:
                yield packet
    except IndexError:
        pass  # PyAV raises it at the end of a file in which a stream began after the header
    except av.FFmpegError:
        if file is not None:
            file.raise_error()
        if watch is not None:  # FFmpeg has no error of its own for the end of time or memory
            watch.check_time()
            watch.check_memory(stream.codec_context.width, stream.codec_context.height)
        raise
    if file is not None:  # FFmpeg may have taken an error of the file object for its end
        file.raise_error()


def _best_video_stream(container: InputContainer, name: str) -> VideoStream:
    stream = container.streams.best("video")
    cover_art = av.stream.Disposition.attached_pic
    if not isinstance(stream, VideoStream) or stream.disposition & cover_art:
        raise InvalidVideoError(f"{name} has no video stream; {GIVE_A_VIDEO}")
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
