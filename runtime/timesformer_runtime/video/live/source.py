"""LiveSource: the frames of a stream, which is connected again when it is lost."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

import av
import av.stream

from timesformer_runtime.errors import (
    InvalidVideoError,
    SourceLostError,
    TimesformerError,
)
from timesformer_runtime.source_names import hide_secrets
from timesformer_runtime.video.container import (
    MAX_PIXELS,
    VideoStream,
    prepare,
)
from timesformer_runtime.video.decoding import frame_rate
from timesformer_runtime.video.limits import DecodeLimits, Watch
from timesformer_runtime.video.live.address import LiveAddress
from timesformer_runtime.video.live.clock import LiveClock
from timesformer_runtime.video.opening import ANY_METADATA, InputContainer

if TYPE_CHECKING:  # the class cannot be subscripted at run time
    Packet = av.Packet[av.stream.Stream]

_FIRST_DELAY, _LONGEST_DELAY = 0.5, 30.0  # seconds between two attempts to connect


@dataclasses.dataclass(frozen=True)
class Connection:
    """One time that a source was connected.

    Attributes:
        number: How many there were before.
        rate: Frames per second.
        duration: Seconds that a file says it has; None for live sources.
    """

    number: int
    rate: float
    duration: float | None = None


class LiveFrame(NamedTuple):
    """A decoded frame of a live source.

    Attributes:
        picture: The frame.
        pixel_shape: Width of its pixels divided by their height; None where nothing tells.
        seconds: When it is shown, counted from the source's first frame.
        arrived: When the packet came that completed it, by ``time.monotonic()``.
        number: How many frames were decoded before it.
        failed_packets: How many packets before it did not decode, or to damaged pictures.
        decoding: Seconds that the decoding took so far: of a file also its reading, which of a
            live source is waiting.
        connection: Where it came from.
        problems: What else is known by then to be wrong with a file.
    """

    picture: av.VideoFrame
    pixel_shape: Fraction | None
    seconds: float
    arrived: float
    number: int
    failed_packets: int
    decoding: float
    connection: Connection
    problems: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Memory that it takes, in bytes."""
        return sum(plane.buffer_size for plane in self.picture.planes)


class _LostError(Exception):
    """The connection is of no use any more; the message says why."""


class LiveSource:
    """Frames of a stream for one reader, in a thread that may wait for the network.

    Args:
        address: What to read.
        timeout: After how many seconds without a frame the source counts as lost.
        reconnect: How often in a row to try to connect again before giving up.
        notify: Is told in one sentence when the source is lost and when it is found again.
        max_pixels: Limit of a picture's width times height.
    """

    def __init__(
        self,
        address: LiveAddress,
        *,
        timeout: float,
        reconnect: int,
        notify: Callable[[str], None],
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self._address = address
        self._timeout = timeout
        self._reconnect = reconnect
        self._notify = notify
        self._limits = DecodeLimits(max_pixels=max_pixels)
        self._clock = LiveClock()
        self._connections = 0
        self._count = 0
        self._failed_packets = 0
        self._decoding = 0.0  # seconds

    def frames(self, stopped: threading.Event) -> Generator[LiveFrame, None, None]:
        """The frames, as they come.

        Ends where the source ends and is not to be connected again, and soon after ``stopped`` is
        set: a call of FFmpeg that is under way then takes ``timeout`` at most.

        Raises:
            InvalidVideoError: It could not be connected at the first time, or is not a video.
            SourceLostError: It was lost and could not be connected again.
        """
        failures = 0
        while not stopped.is_set():
            try:
                for frame in self._connected(stopped):
                    if failures:
                        self._notify(f"{self._address.name}: connected again")
                    failures = 0
                    yield frame
                if self._reconnect == 0 or stopped.is_set():
                    return
                reason = "it ended"
            except _LostError as error:
                reason = str(error)
            except InvalidVideoError as error:  # what came is not a video that can be read here
                if self._connections == 0:
                    raise
                reason = str(error)
            if self._connections == 0 or failures >= self._reconnect:
                raise self._error(reason)
            delay = min(_FIRST_DELAY * 2**failures, _LONGEST_DELAY)
            failures += 1
            self._notify(
                f"{self._address.name}: lost ({reason}); connecting again in {delay:g} s "
                f"({failures} of {self._reconnect})"
            )
            stopped.wait(delay)

    def _connected(self, stopped: threading.Event) -> Generator[LiveFrame, None, None]:
        """The frames of one connection, to its end."""
        with self._open() as (container, stream):
            connection = Connection(self._connections, frame_rate(stream))
            self._connections += 1
            self._clock.restart()
            shape = stream.codec_context.sample_aspect_ratio
            for picture, arrived in self._decoded(container, stream, stopped):
                yield LiveFrame(
                    picture=picture,
                    pixel_shape=shape,
                    seconds=self._clock.seconds(_stamp(picture, stream), arrived),
                    arrived=arrived,
                    number=self._count,
                    failed_packets=self._failed_packets,
                    decoding=self._decoding,
                    connection=connection,
                )
                self._count += 1

    @contextlib.contextmanager
    def _open(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        """Connects, and finds the video stream."""
        reason = None
        try:
            container = av.open(
                self._address.target,
                mode="r",
                format=self._address.format,
                container_options=dict(self._address.options),
                timeout=(self._timeout, self._timeout),
                **ANY_METADATA,
            )
        except (av.FFmpegError, OSError) as error:
            reason = self._why(error)
        if reason is not None:  # told out here: PyAV's error quotes the address in a traceback
            raise _LostError(reason)
        with container:
            # One thread: with several the decoder would hold frames back.
            name = self._address.name
            yield container, prepare(container, name, Watch(name, self._limits))

    def _decoded(
        self, container: InputContainer, stream: VideoStream, stopped: threading.Event
    ) -> Iterator[tuple[av.VideoFrame, float]]:
        """Pictures and when they came; gives up when there are none for too long."""
        last = time.monotonic()
        for packet in self._packets(container):
            arrived = time.monotonic()
            for picture in self._decode(stream, packet):
                yield picture, arrived
                last = time.monotonic()  # again: the consumer may have taken its time
            if stopped.is_set():
                return
            if time.monotonic() - last > self._timeout:
                raise _LostError(f"no frame for {self._timeout:g} s")

    def _packets(self, container: InputContainer) -> Iterator[Packet | None]:
        """All packets, and None at a clean end: the decoder then gives its last frames.

        Also those of other streams, where PyAV (before 18) cannot discard them: it would wait for
        ours as long as they go on.
        """
        try:
            yield from container.demux()
        except IndexError as error:  # PyAV's own, when a stream begins after the others
            raise _LostError("its streams changed") from error
        except av.FFmpegError as error:
            raise _LostError(self._why(error)) from error
        yield None

    def _decode(self, stream: VideoStream, packet: Packet | None) -> list[av.VideoFrame]:
        if packet is not None and (packet.stream_index != stream.index or packet.size == 0):
            return []
        start = time.perf_counter()
        try:
            pictures = stream.codec_context.decode(packet)
        except av.FFmpegError:
            self._failed_packets += 1
            return []
        finally:
            self._decoding += time.perf_counter() - start
        whole = [picture for picture in pictures if not picture.is_corrupt]
        self._failed_packets += len(pictures) - len(whole)
        return whole

    def _why(self, error: av.FFmpegError | OSError) -> str:
        if isinstance(error, av.ExitError):
            return f"no video came for {self._timeout:g} s"
        return hide_secrets(error.strerror or str(error), self._address.target)

    def _error(self, reason: str) -> TimesformerError:
        if self._connections == 0:
            return InvalidVideoError(f"{self._address.name} cannot be read: {reason}")
        again = f"; connecting again failed {self._reconnect} times" if self._reconnect else ""
        return SourceLostError(f"{self._address.name} was lost: {reason}{again}")


def _stamp(picture: av.VideoFrame, stream: VideoStream) -> float | None:
    if picture.pts is None or stream.time_base is None:
        return None
    return float(picture.pts * stream.time_base)
