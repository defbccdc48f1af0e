"""Plays a video file: every frame once, in order, with the time at which it is shown."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Collection, Generator, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np

from timesformer_runtime.errors import InvalidOptionError
from timesformer_runtime.video.container import OpenVideo, open_video
from timesformer_runtime.video.decoding import (
    Decoded,
    check_decoded,
    decode_in_order,
    frame_rate,
)
from timesformer_runtime.video.file import VideoFile
from timesformer_runtime.video.index.frame_index import Extent, FrameIndex, scan
from timesformer_runtime.video.limits import DecodeLimits
from timesformer_runtime.video.pixels import ConvertedFrame, Rendering
from timesformer_runtime.video.soundness import judge, oddities, read_stated
from timesformer_runtime.video.source import Source, locate

if TYPE_CHECKING:
    from timesformer_runtime.video.container import Packet

_QUICK_BYTES = 1 << 28  # so much is read through in a second or two
_JITTER = 1.0  # seconds that timestamps may go back and still belong together
_LONGEST_STILL = 3600.0  # seconds for which one frame may be shown


class BrokenPromiseError(Exception):
    """A file's frames are not those that its packets announced."""


@dataclasses.dataclass(frozen=True)
class PlayedFrame:
    """One frame as it was decoded.

    Attributes:
        index: How many frames came before it.
        seconds: When it is shown, from the first frame; never before the frame before.
        picture: The frame.
        pixel_shape: Width of its pixels divided by their height; None where nothing tells.
    """

    index: int
    seconds: float
    picture: av.VideoFrame
    pixel_shape: Fraction | None

    def render(self, rendering: Rendering) -> ConvertedFrame:
        """Makes an array of it.

        Raises:
            InvalidVideoError: Its colours are of a kind that FFmpeg does not convert to RGB.
        """
        return rendering(self.picture, self.pixel_shape)


class Playback:
    """A file that is open, and is played once. Made by ``play``.

    Attributes:
        name: The file's name.
        rate: Frames per second, as the file stated.
        duration: Seconds, as the file claims; None where it does not.
    """

    def __init__(self, video_file: VideoFile, video: OpenVideo, index: FrameIndex | None) -> None:
        self.name = video_file.name
        self._stamps = None if index is None else index.times[index.packet_of_frame]
        self.rate = frame_rate(video.stream)
        self._video_file = video_file
        self._video = video
        self._stated = read_stated(video_file, video)
        self.duration = self._stated.seconds
        self._decoded = Decoded()
        self._clock = FrameClock(self.rate)
        self._packets = 0
        self._first: int | None = None  # timestamps
        self._end: int | None = None

    def check(self, held: int) -> None:
        """Checks the time, and how many bytes are held of the frames, as rendered.

        Raises:
            VideoLimitError: It is too much, or the time is over.
        """
        self._video_file.watch.check_bytes(held)
        self._video_file.watch.seconds_left()

    @property
    def failed_packets(self) -> int:
        """How many packets so far did not decode, or to damaged pictures."""
        return self._decoded.failed_packets + self._decoded.patched

    def frames(self) -> Generator[PlayedFrame, None, None]:
        """The frames, from the first to the last that decodes.

        Raises:
            InvalidVideoError: Nothing decodes, or more packets fail than frames come out.
            VideoLimitError: A limit is reached.
        """
        stream, decoded = self._video.stream, self._decoded
        for picture in decode_in_order(self._video, decoded, self._watched_packets()):
            seconds = self._clock.seconds(self._stamp(picture))
            shape = stream.codec_context.sample_aspect_ratio
            yield PlayedFrame(decoded.count, seconds, picture, shape)
        check_decoded(self.name, decoded)

    def times(self) -> list[float] | None:
        """When the frames are shown; None where only decoding them tells."""
        unit = self._video.stream.time_base
        if self._stamps is None or unit is None:
            return None
        clock = FrameClock(self.rate)
        return [clock.seconds(float(stamp * unit)) for stamp in self._stamps.tolist()]

    def chosen_frames(self, wanted: Collection[int]) -> Generator[PlayedFrame, None, None]:
        """Some of the frames that ``times`` promised; what no other frame needs is not decoded.

        Args:
            wanted: Their indices.

        Raises:
            BrokenPromiseError: The file is not as it looked. The frames given so far are right.
            VideoLimitError: A limit is reached.
        """
        times, left = self.times() or [], sorted(wanted, reverse=True)
        stream = self._video.stream
        demuxed = self._chosen_packets(frozenset(wanted))
        for picture in decode_in_order(self._video, self._decoded, demuxed):
            number = self._number(picture.pts)
            if number is None or picture.is_corrupt or self.failed_packets:
                raise BrokenPromiseError
            if left and number >= left[-1]:
                if number != left.pop():
                    raise BrokenPromiseError
                shape = stream.codec_context.sample_aspect_ratio
                yield PlayedFrame(number, times[number], picture, shape)
        if left or self.failed_packets:
            raise BrokenPromiseError

    @contextlib.contextmanager
    def again(self, threads: int) -> Iterator[Playback]:
        """Opens the file once more, from its start; this playback cannot go on."""
        with open_video(self._video_file, threads=threads) as video:
            yield Playback(self._video_file, video, None)

    def problems_so_far(self) -> tuple[str, ...]:
        """Problems that are known while the file is played, apart from packets that failed."""
        return oddities(self._decoded)

    def problems(self) -> tuple[str, ...]:
        """Problems of the file, once it was played to its end; empty for a sound file."""
        unit = self._video.stream.time_base
        extent = Extent(self._packets, None, None)
        if unit is not None and self._first is not None and self._end is not None:
            extent = Extent(self._packets, float(self._first * unit), float(self._end * unit))
        return judge(self._video_file, self._stated, extent, self._decoded).problems

    def _chosen_packets(self, wanted: frozenset[int]) -> Iterator[Packet]:
        decoder = self._video.stream.codec_context
        for packet in self._watched_packets():
            is_wanted = self._number(packet.pts) in wanted
            decoder.skip_frame = "DEFAULT" if is_wanted else "NONREF"
            yield packet

    def _number(self, stamp: int | None) -> int | None:
        """Which frame has this timestamp; None where none has."""
        if stamp is None or self._stamps is None:
            return None
        number = int(np.searchsorted(self._stamps, stamp))
        return number if number < len(self._stamps) and self._stamps[number] == stamp else None

    def _watched_packets(self) -> Iterator[Packet]:
        for packet in self._video.packets():
            self._packets += 1
            time = packet.dts if packet.pts is None else packet.pts
            if time is not None:
                end = time + (packet.duration or 0)
                self._first = time if self._first is None else min(self._first, time)
                self._end = end if self._end is None else max(self._end, end)
            yield packet

    def _stamp(self, picture: av.VideoFrame) -> float | None:
        unit = self._video.stream.time_base
        if not self._video.tells_times or picture.pts is None or unit is None:
            return None
        return float(picture.pts * unit)


@contextlib.contextmanager
def play(
    source: Source,
    *,
    threads: int = 1,
    limits: DecodeLimits | None = None,
    with_times: bool = False,
) -> Iterator[Playback]:
    """Opens a video to be played once.

    Which frames survive damage depends on the number of threads.

    Args:
        source: Path or binary file object of a video.
        threads: Number of decoding threads.
        limits: What reading may cost. The time is that from opening to closing, whatever is done
            with the frames meanwhile.
        with_times: Whether to find out first, if that is cheap, when all frames are shown.

    Raises:
        VideoNotFoundError: There is no such file.
        InvalidVideoError: It is a URL or a folder, or it cannot be opened as a video.
        VideoLimitError: It would cost more than the limits allow.
        InvalidOptionError: ``threads`` is smaller than 1.
    """
    if threads < 1:
        raise InvalidOptionError(f"threads is {threads}; it must be at least 1")
    with locate(source, limits) as video_file:
        index = None
        if with_times and video_file.size() <= _QUICK_BYTES:
            with open_video(video_file) as video:
                index = scan(video).index
            if index is not None and not index.skips_unreferenced:
                index = None
        with open_video(video_file, threads=threads) as video:
            yield Playback(video_file, video, index)


class FrameClock:
    """Makes times of timestamps: from 0, never going back, without holes of hours.

    Where timestamps are missing, go back or jump far ahead, as where two recordings were joined,
    the next frame follows at the usual rate.

    Args:
        rate: Frames per second.
    """

    def __init__(self, rate: float) -> None:
        self._step = 1 / rate
        self._last: float | None = None
        self._origin: float | None = None  # the timestamp of time 0

    def seconds(self, stamp: float | None) -> float:
        """The time of the next frame, of which the timestamp is given in seconds, if it has one."""
        following = 0.0 if self._last is None else self._last + self._step
        self._last = self._believed(stamp, following)
        return self._last

    def _believed(self, stamp: float | None, following: float) -> float:
        if stamp is None or not math.isfinite(stamp):
            return following
        if self._origin is None:
            self._origin = stamp - following
        last = self._last or 0.0
        seconds = stamp - self._origin
        if not last - _JITTER <= seconds <= last + _LONGEST_STILL:
            self._origin = stamp - following
            return following
        return max(seconds, last)
