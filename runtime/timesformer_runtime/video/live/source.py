"""LiveSource: reads the frames of a live source, and connects again when it loses the source."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from timesformer_runtime.errors import (
    DeviceError,
    InvalidVideoError,
    SourceLostError,
    TimesformerError,
)
from timesformer_runtime.source_names import hide_secrets
from timesformer_runtime.video.container import (
    MAX_PIXELS,
    VideoStream,
    container_ratio,
    open_decoder,
)
from timesformer_runtime.video.decoding import frame_rate
from timesformer_runtime.video.limits import DecodeLimits, Watch
from timesformer_runtime.video.live.address import LiveAddress
from timesformer_runtime.video.live.clock import LiveClock
from timesformer_runtime.video.live.hardware import HardwareDecoding
from timesformer_runtime.video.opening import ANY_METADATA, InputContainer
from timesformer_runtime.video.pyav import av

if TYPE_CHECKING:  # the class cannot be subscripted at run time
    Packet = av.Packet[av.stream.Stream]

_FIRST_DELAY, _LONGEST_DELAY = 0.5, 30.0  # seconds between two attempts to connect
_MOST_DOUBLINGS = 6  # of the delay


@dataclasses.dataclass(frozen=True)
class Connection:
    """One connection to a source, from connecting to losing it.

    Attributes:
        number: Number of earlier connections.
        rate: Frames per second that the source states.
        duration: Seconds that a file states; None for live sources.
    """

    number: int
    rate: float
    duration: float | None = None


class LiveFrame(NamedTuple):
    """A decoded frame of a live source, or of a file that is read like one.

    Attributes:
        av_frame: The frame as PyAV gives it.
        sample_aspect_ratio: Width of a pixel divided by its height; None where the source states
            none.
        seconds: When the frame is shown, counted from the source's first frame.
        arrived: When the packet that completed the frame arrived, by ``time.monotonic()``.
        number: Number of frames of the source that were decoded before this one.
        failed_packets: Number of packets so far that did not decode, or gave a damaged frame.
        decode_seconds: Seconds that decoding took so far. For a file this includes reading; for a
            live source it does not, because reading is mostly waiting.
        connection: The connection from which the frame came.
        problems: The problems of a file that are known so far, except for failed packets.
    """

    av_frame: av.VideoFrame
    sample_aspect_ratio: Fraction | None
    seconds: float
    arrived: float
    number: int
    failed_packets: int
    decode_seconds: float
    connection: Connection
    problems: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Memory that the frame takes, in bytes."""
        return sum(plane.buffer_size for plane in self.av_frame.planes)


class _LostError(Exception):
    """The connection is lost; the message says why."""


class LiveSource:
    """Reads the frames of a live source; use it in one thread, which may wait for the network.

    Args:
        address: The address of the source.
        timeout: Seconds without a frame after which the source counts as lost.
        reconnect: How many times in a row to try to connect again before raising an error; None to
            try without end, also where the first attempt fails.
        notify: Called with one sentence when the source is lost, and when it is connected again.
        max_pixels: Limit of a frame's width times height.
        hardware: Name of the hardware that decodes; None to decode on the CPU.

    Raises:
        InvalidOptionError: FFmpeg does not know the hardware.
        DeviceError: The hardware is not available here.
    """

    def __init__(
        self,
        address: LiveAddress,
        *,
        timeout: float,
        reconnect: int | None,
        notify: Callable[[str], None],
        max_pixels: int = MAX_PIXELS,
        hardware: str | None = None,
    ) -> None:
        self._address = address
        self._timeout = timeout
        self._reconnect = reconnect
        self._notify = notify
        self._limits = DecodeLimits(max_pixels=max_pixels)
        self._hardware = None if hardware is None else HardwareDecoding(hardware)
        self._clock = LiveClock()
        self._connections = 0
        self._count = 0
        self._failed_packets = 0
        self._decode_seconds = 0.0

    def frames(self, stopped: threading.Event) -> Generator[LiveFrame, None, None]:
        """Gives the frames as they arrive.

        The frames end when the source ends, if ``reconnect`` is 0. They also end soon after
        ``stopped`` is set: a call of FFmpeg that is under way then takes at most ``timeout``.

        Args:
            stopped: Another thread sets it to end the frames.

        Raises:
            InvalidVideoError: The first attempt to connect failed, or the source is not a video.
            SourceLostError: The source was lost, and connecting again failed.
        """
        failures = 0
        while not stopped.is_set():
            try:
                for frame in self._frames_of_connection(stopped):
                    if failures:
                        self._notify(f"{self._address.name}: connected again")
                    failures = 0
                    yield frame
                if self._reconnect == 0 or stopped.is_set():
                    return
                reason = "it ended"
            except _LostError as error:
                reason = str(error)
            except InvalidVideoError as error:  # what arrived is not a video that FFmpeg decodes
                if self._connections == 0 and self._reconnect is not None:
                    raise
                reason = str(error)
            if stopped.is_set():
                return
            if self._reconnect is not None and (
                self._connections == 0 or failures >= self._reconnect
            ):
                raise self._error(reason)
            delay = min(_FIRST_DELAY * 2 ** min(failures, _MOST_DOUBLINGS), _LONGEST_DELAY)
            failures += 1
            self._tell_loss(reason, delay, failures)
            stopped.wait(delay)

    def _tell_loss(self, reason: str, delay: float, failures: int) -> None:
        """Tells why the source is lost; where the attempts have no end, only for the first one."""
        if self._reconnect is not None:
            again = f"connecting again in {delay:g} s ({failures} of {self._reconnect})"
        elif failures == 1:
            again = "connecting again until it answers"
        else:
            return
        state = "lost" if self._connections else "not there yet"
        self._notify(f"{self._address.name}: {state} ({reason}); {again}")

    def _frames_of_connection(self, stopped: threading.Event) -> Generator[LiveFrame, None, None]:
        """Connects, and gives the frames until the connection ends."""
        with self._open() as (container, stream):
            connection = Connection(self._connections, frame_rate(stream))
            self._connections += 1
            self._clock.restart()
            ratio = container_ratio(stream)
            for frame, arrived in self._decoded_frames(container, stream, stopped):
                yield LiveFrame(
                    av_frame=frame,
                    sample_aspect_ratio=ratio or stream.codec_context.sample_aspect_ratio,
                    seconds=self._clock.seconds(_timestamp(frame, stream), arrived),
                    arrived=arrived,
                    number=self._count,
                    failed_packets=self._failed_packets,
                    decode_seconds=self._decode_seconds,
                    connection=connection,
                )
                self._count += 1

    @contextlib.contextmanager
    def _open(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        """Connects, and finds the video stream."""
        reason, decodes = None, True
        try:
            container = av.open(
                self._address.target,
                mode="r",
                format=self._address.format,
                container_options=dict(self._address.options),
                timeout=(self._timeout, self._timeout),
                hwaccel=self._hardware.settings() if self._hardware else None,
                **ANY_METADATA,
            )
        except (av.FFmpegError, OSError) as error:
            reason = self._reason(error)
        except NotImplementedError:  # PyAV's error for a codec that this hardware does not decode
            decodes = False
        if not decodes:
            raise DeviceError(
                f"{self._address.name}: `hardware` does not decode its codec; leave it out"
            )
        if reason is not None:
            # Not raised above: in a traceback PyAV's error would show a password.
            raise _LostError(reason)
        with container:
            # One thread: with several threads the decoder would hold frames back.
            name = self._address.name
            stream = open_decoder(container, name, Watch(name, self._limits))
            if self._hardware is not None:
                self._hardware.check(stream, name)
            yield container, stream

    def _decoded_frames(
        self, container: InputContainer, stream: VideoStream, stopped: threading.Event
    ) -> Iterator[tuple[av.VideoFrame, float]]:
        """Gives frames, each with its time of arrival.

        Raises:
            _LostError: The connection broke, or no frame came for too long.
        """
        last = time.monotonic()
        for packet in self._packets(container):
            arrived = time.monotonic()
            for frame in self._decode_packet(stream, packet):
                yield frame, arrived
                last = time.monotonic()  # after ``yield``, which may take long
            if stopped.is_set():
                return
            if time.monotonic() - last > self._timeout:
                raise _LostError(f"no frame for {self._timeout:g} s")

    def _packets(self, container: InputContainer) -> Iterator[Packet | None]:
        """Gives all packets, and then None at a clean end, for the decoder's last frames.

        Packets of other streams are among them. PyAV before 18 cannot discard these streams: asked
        for the video stream only, it would not return while only the others go on.
        """
        try:
            yield from container.demux()
        except IndexError as error:  # PyAV raises it when a stream begins after the others
            raise _LostError("its streams changed") from error
        except av.FFmpegError as error:
            raise _LostError(self._reason(error)) from error
        yield None

    def _decode_packet(self, stream: VideoStream, packet: Packet | None) -> list[av.VideoFrame]:
        """Decodes a packet of the video stream; leaves damaged frames out, and counts failures."""
        if packet is not None and (packet.stream_index != stream.index or packet.size == 0):
            return []
        start = time.perf_counter()
        try:
            frames = stream.codec_context.decode(packet)
        except av.FFmpegError:
            self._failed_packets += 1
            return []
        finally:
            self._decode_seconds += time.perf_counter() - start
        intact = [frame for frame in frames if not frame.is_corrupt]
        self._failed_packets += len(frames) - len(intact)
        return intact

    def _reason(self, error: av.FFmpegError | OSError) -> str:
        if isinstance(error, av.ExitError):
            return f"no video came for {self._timeout:g} s"
        return hide_secrets(error.strerror or str(error), self._address.target)

    def _error(self, reason: str) -> TimesformerError:
        if self._connections == 0:
            return InvalidVideoError(f"{self._address.name} cannot be read: {reason}")
        again = f"; connecting again failed {self._reconnect} times" if self._reconnect else ""
        return SourceLostError(f"{self._address.name} was lost: {reason}{again}")


def _timestamp(frame: av.VideoFrame, stream: VideoStream) -> float | None:
    if frame.pts is None or stream.time_base is None:
        return None
    return float(frame.pts * stream.time_base)
