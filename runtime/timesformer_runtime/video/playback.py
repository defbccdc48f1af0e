"""Plays a video file: gives each frame once, in order, with the time at which it is shown."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Collection, Generator, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from timesformer_runtime.option_checks import check_threads
from timesformer_runtime.video.container import OpenVideo, open_video
from timesformer_runtime.video.decoding import (
    Decoded,
    check_decoded,
    decode_in_order,
    frame_rate,
)
from timesformer_runtime.video.file import VideoFile
from timesformer_runtime.video.index.frame_index import ExtentMeter, FrameIndex, scan
from timesformer_runtime.video.integrity import frame_problems, judge, read_stated_metadata
from timesformer_runtime.video.limits import DecodeLimits
from timesformer_runtime.video.pixels import ConvertedFrame, Rendering
from timesformer_runtime.video.pyav import av
from timesformer_runtime.video.source import Source, locate

if TYPE_CHECKING:
    from timesformer_runtime.video.container import Packet

_QUICK_BYTES = 1 << 28  # reading a file of this size takes a second or two
_MAX_JITTER = 1.0  # seconds; a timestamp that goes back further starts a new recording
_MAX_FRAME_SECONDS = 3600.0  # the longest time for which one frame may be shown


class IndexMismatchError(Exception):
    """The frames that come out of a file are not those that its index lists."""


@dataclasses.dataclass(frozen=True)
class PlayedFrame:
    """A decoded frame of a file, and when it is shown.

    Attributes:
        index: Number of frames of the file before this one.
        seconds: When the frame is shown, counted from the first frame; never decreases.
        av_frame: The frame as PyAV gives it.
        sample_aspect_ratio: Width of a pixel divided by its height; None where the file states
            none.
    """

    index: int
    seconds: float
    av_frame: av.VideoFrame
    sample_aspect_ratio: Fraction | None

    def render(self, rendering: Rendering) -> ConvertedFrame:
        """Makes an array of the frame.

        Raises:
            InvalidVideoError: FFmpeg does not convert the frame's colours to RGB.
        """
        return rendering(self.av_frame, self.sample_aspect_ratio)


class Playback:
    """An open file whose frames can be read once, in order; ``play`` makes it.

    Attributes:
        name: The video's name, for messages.
        rate: Frames per second that the file states.
        duration: Seconds that the file states; None where it states none.
    """

    def __init__(self, video_file: VideoFile, video: OpenVideo, index: FrameIndex | None) -> None:
        self.name = video_file.name
        self._pts = None if index is None else index.pts[index.packet_of_frame]
        self.rate = frame_rate(video.stream)
        self._video_file = video_file
        self._video = video
        self._stated = read_stated_metadata(video_file, video)
        self.duration = self._stated.seconds
        self._decoded = Decoded()
        self._clock = FrameClock(self.rate)
        self._meter = ExtentMeter()

    def check(self, held: int) -> None:
        """Checks the time, and the memory that rendered frames take.

        Args:
            held: Bytes of all rendered frames that the caller holds.

        Raises:
            VideoLimitError: They take too many bytes, or the time is over.
        """
        self._video_file.watch.check_bytes(held)
        self._video_file.watch.check_time()

    @property
    def failed_packets(self) -> int:
        """Number of packets so far that did not decode, or gave a damaged frame."""
        return self._decoded.failed_packets + self._decoded.corrupt_frames

    def frames(self) -> Generator[PlayedFrame, None, None]:
        """Gives the frames, from the first to the last that decodes.

        Raises:
            InvalidVideoError: Nothing decodes, or more packets fail than frames come out.
            VideoLimitError: Reading costs more than a limit allows.
        """
        decoded = self._decoded
        for frame in decode_in_order(self._video, decoded, self._watched_packets()):
            seconds = self._clock.seconds(self._timestamp(frame))
            yield PlayedFrame(decoded.count, seconds, frame, self._video.sample_aspect_ratio)
        check_decoded(self.name, decoded)

    def times(self) -> list[float] | None:
        """Computes when each frame is shown, in seconds; None where only decoding tells."""
        time_base = self._video.stream.time_base
        if self._pts is None or time_base is None:
            return None
        clock = FrameClock(self.rate)
        return [clock.seconds(float(timestamp * time_base)) for timestamp in self._pts.tolist()]

    def chosen_frames(self, wanted: Collection[int]) -> Generator[PlayedFrame, None, None]:
        """Gives some of the frames that ``times`` lists; skips frames that no other frame needs.

        Args:
            wanted: The indices of the frames.

        Raises:
            IndexMismatchError: The frames are not those that ``times`` lists. The frames that came
                out before the error are right.
            VideoLimitError: Reading costs more than a limit allows.
        """
        times, left = self.times() or [], sorted(wanted, reverse=True)
        packets = self._chosen_packets(frozenset(wanted))
        for frame in decode_in_order(self._video, self._decoded, packets):
            index = self._index_of(frame.pts)
            if index is None or frame.is_corrupt or self.failed_packets:
                raise IndexMismatchError
            if left and index >= left[-1]:
                if index != left.pop():
                    raise IndexMismatchError
                yield PlayedFrame(index, times[index], frame, self._video.sample_aspect_ratio)
        if left or self.failed_packets:
            raise IndexMismatchError

    @contextlib.contextmanager
    def reopened(self, threads: int) -> Iterator[Playback]:
        """Opens the file once more, from its start; do not read on from this playback."""
        with open_video(self._video_file, threads=threads) as video:
            yield Playback(self._video_file, video, None)

    def problems_so_far(self) -> tuple[str, ...]:
        """Lists the problems of the frames so far, without the failed packets."""
        return frame_problems(self._decoded)

    def problems(self) -> tuple[str, ...]:
        """Lists the problems of the file, after its last frame; empty for an intact file."""
        extent = self._meter.extent(self._video.stream)
        return judge(self._video_file, self._stated, extent, self._decoded).problems

    def _chosen_packets(self, wanted: frozenset[int]) -> Iterator[Packet]:
        """Gives all packets; tells the decoder to skip unwanted frames that no other needs."""
        decoder = self._video.stream.codec_context
        for packet in self._watched_packets():
            is_wanted = self._index_of(packet.pts) in wanted
            decoder.skip_frame = "DEFAULT" if is_wanted else "NONREF"
            yield packet

    def _index_of(self, timestamp: int | None) -> int | None:
        """Finds the index of the frame with this timestamp; None where no frame has it."""
        if timestamp is None or self._pts is None:
            return None
        index = int(np.searchsorted(self._pts, timestamp))
        return index if index < len(self._pts) and self._pts[index] == timestamp else None

    def _watched_packets(self) -> Iterator[Packet]:
        """Gives all packets, and notes how far the stream extends."""
        for packet in self._video.packets():
            self._meter.add(packet)
            yield packet

    def _timestamp(self, frame: av.VideoFrame) -> float | None:
        time_base = self._video.stream.time_base
        if not self._video.has_display_times or frame.pts is None or time_base is None:
            return None
        return float(frame.pts * time_base)


@contextlib.contextmanager
def play(
    source: Source,
    *,
    threads: int = 1,
    limits: DecodeLimits | None = None,
    with_times: bool = False,
) -> Iterator[Playback]:
    """Opens a video, to read its frames once, in order.

    How many frames of a damaged file decode depends on the number of threads.

    Args:
        source: Path or binary file object of a video.
        threads: Number of decoding threads.
        limits: Limits for reading the video. The time runs from opening to closing the video, and
            includes the caller's work on the frames.
        with_times: True to scan the file first, if it is small, so that ``times`` can tell when
            each frame is shown.

    Raises:
        VideoNotFoundError: There is no such file.
        InvalidVideoError: The source is a URL or a folder, or cannot be opened as a video.
        VideoLimitError: Reading would cost more than the limits allow.
        InvalidOptionError: ``threads`` is not valid.
    """
    check_threads(threads)
    with locate(source, limits) as video_file:
        index = None
        if with_times and video_file.size() <= _QUICK_BYTES:
            with open_video(video_file) as video:
                index = scan(video).index
            if index is not None and not index.can_skip_unreferenced:
                index = None
        with open_video(video_file, threads=threads) as video:
            yield Playback(video_file, video, index)


class FrameClock:
    """Computes when frames are shown: times begin at 0, never go back, and have no gaps of hours.

    A timestamp may be missing, go back or jump far ahead, as where two recordings were joined. The
    frame with such a timestamp follows the previous frame at the usual rate.

    Args:
        rate: Frames per second.
    """

    def __init__(self, rate: float) -> None:
        self._step = 1 / rate
        self._last: float | None = None  # the time of the last frame
        self._origin: float | None = None  # the timestamp of time 0

    def seconds(self, timestamp: float | None) -> float:
        """Computes the time of the next frame from its timestamp in seconds, if it has one."""
        following = 0.0 if self._last is None else self._last + self._step
        self._last = self._plausible_time(timestamp, following)
        return self._last

    def _plausible_time(self, timestamp: float | None, following: float) -> float:
        """Computes a time from a timestamp; ``following`` where the timestamp is not plausible."""
        if timestamp is None or not math.isfinite(timestamp):
            return following
        if self._origin is None:
            self._origin = timestamp - following
        last = self._last or 0.0
        seconds = timestamp - self._origin
        if not last - _MAX_JITTER <= seconds <= last + _MAX_FRAME_SECONDS:
            self._origin = timestamp - following
            return following
        return max(seconds, last)
