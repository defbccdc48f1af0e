"""Limits for reading one video: a file of a stranger can ask for endless time or memory."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import mmap
import sys
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Self

from timesformer_runtime.errors import InvalidOptionError, NotEnoughMemoryError, VideoLimitError
from timesformer_runtime.option_checks import check_flag

_USUAL_TIME = 600.0  # seconds
_USUAL_PROCESS_BYTES = 1 << 31
_current_check: ContextVar[Callable[[], object]] = ContextVar("check", default=lambda: None)
_MOST_BYTES_PER_PIXEL = 8  # four values of 16 bits


@dataclasses.dataclass(frozen=True)
class DecodeLimits:
    """Limits for reading one video; an error names the limit that the video exceeds.

    Attributes:
        max_pixels: Width times height of a frame; the default is twice an 8K frame.
        max_packets: Packets of the video's stream; the default is about 18 hours at 30 a second.
        max_seconds: Wall time of reading, decoding and the model's runs together, in seconds;
            ``math.inf`` for no limit. By default 600 for reading and decoding, and 600 for each
            run of the model. A timeline or stream of a file reads without a limit of time by
            default.
        max_bytes: Memory that the chosen frames take together, after conversion, in bytes. In a
            timeline or stream: the frames of all windows that are in memory at a time.
        max_pipe_bytes: Size of the temporary file for a video that cannot seek: a pipe, standard
            input, the body of a request. With ``isolated`` also for a file object without a file,
            such as ``io.BytesIO``.
        isolated: True to read each video in another process, so that a file that crashes or hangs
            FFmpeg, or makes it take endless memory, causes an error and does not end this process.
            Only for files that a ``VideoClassifier`` reads, on Linux. A timeline or stream without
            ``max_seconds`` then limits each window to 600 seconds.
        max_process_bytes: With ``isolated``, memory that the other process may take for a video,
            in bytes of address space beyond those that it has without a video; by default 2 GiB.
            Each decoding thread after the first may take another 128 MiB.

    Raises:
        InvalidOptionError: A limit is not a number, or too low for any video; or ``isolated`` is
            not available here, or ``max_process_bytes`` is given without it.
    """

    max_pixels: int = 1 << 26
    max_packets: int = 2_000_000
    max_seconds: float | None = None
    max_bytes: int = 1 << 31
    max_pipe_bytes: int = 1 << 32
    isolated: bool = False
    max_process_bytes: int | None = None

    def __post_init__(self) -> None:
        names = ["max_pixels", "max_packets", "max_bytes", "max_pipe_bytes"]
        if self.max_process_bytes is not None:
            names.append("max_process_bytes")
        for name in names:
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= 1 << 62:
                raise InvalidOptionError(
                    f"`{name}` is {value!r}; it must be an integer of at least 1"
                )
        seconds = self.time
        if type(seconds) not in {int, float} or math.isnan(seconds) or seconds <= 0:
            raise InvalidOptionError(f"`max_seconds` is {seconds!r}; it must be a number above 0")
        self._check_isolated()

    def _check_isolated(self) -> None:
        check_flag("isolated", self.isolated)
        if self.isolated and sys.platform != "linux":
            raise InvalidOptionError(
                "`isolated` is True; it needs Linux, which limits the memory of a process, and "
                f"this is {sys.platform}: leave it out"
            )
        if self.max_process_bytes is not None and not self.isolated:
            raise InvalidOptionError(
                f"`max_process_bytes` is {self.max_process_bytes}; it has no effect without "
                "`isolated`: leave it out, or ask for `isolated` too"
            )

    @property
    def time(self) -> float:
        """Seconds that reading a video may take."""
        return _USUAL_TIME if self.max_seconds is None else self.max_seconds

    @property
    def process_bytes(self) -> int:
        """Bytes of memory that a reader process may take for a video."""
        return self.max_process_bytes or _USUAL_PROCESS_BYTES

    def in_reader_process(self) -> Self:
        """Makes the limits for the code in a reader process, which starts no further process."""
        return dataclasses.replace(self, isolated=False, max_process_bytes=None)

    def run_timer(self, spent: float) -> Callable[[], float]:
        """Starts to measure the time of the model's runs.

        Args:
            spent: Seconds that reading the video took.

        Returns:
            A function that tells how many seconds the next run may take.
        """
        if self.max_seconds is None:
            return lambda: _USUAL_TIME
        end = time.monotonic() + self.max_seconds - spent
        return lambda: end - time.monotonic()

    def for_long_videos(self) -> Self:
        """Makes limits for a whole file: no limit of time unless ``max_seconds`` is set."""
        return dataclasses.replace(self, max_seconds=math.inf) if self.max_seconds is None else self


def time_limit_error(name: str, seconds: float) -> VideoLimitError:
    """Makes the error for a video that takes longer to read than so many seconds."""
    return VideoLimitError(
        f"{name} takes longer than {seconds:g} seconds to read; "
        "give a shorter or smaller video, or raise `max_seconds`"
    )


@contextlib.contextmanager
def interruptible(check: Callable[[], object]) -> Iterator[None]:
    """Lets a function end the reading of each video that is opened within the block.

    That is for videos that this thread opens, or a thread that it starts for a timeline.

    Args:
        check: Called for each frame that is decoded, and now and then besides, also where another
            process reads the video (``isolated``); what it raises ends the reading.
    """
    token = _current_check.set(check)
    try:
        yield
    finally:
        _current_check.reset(token)


class Watch:
    """Compares the cost of reading one video with the limits; the time runs from construction.

    Args:
        name: The video's name, for errors.
        limits: The limits.

    Attributes:
        name: As given.
        limits: As given.
    """

    def __init__(self, name: str, limits: DecodeLimits) -> None:
        self.limits = limits
        self.name = name
        self._deadline = time.monotonic() + limits.time
        self._interrupt = _current_check.get()

    def seconds_left(self) -> float:
        """Returns how long reading may still take.

        Raises:
            VideoLimitError: The time is over.
        """
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise time_limit_error(self.name, self.limits.time)
        return left

    def check_wanted(self) -> None:
        """Checks whether the caller still wants the video.

        Raises:
            Exception: Any error of the check that was given to ``interruptible``.
        """
        self._interrupt()

    def check_time(self) -> None:
        """Checks the time, and whether the caller still wants the video.

        Raises:
            VideoLimitError: The time is over.
            Exception: Any error of the check that was given to ``interruptible``.
        """
        self.check_wanted()
        self.seconds_left()

    def check_packets(self, count: int) -> None:
        """Checks a number of packets, and the time.

        Raises:
            VideoLimitError: There are too many packets, or the time is over.
        """
        if count > self.limits.max_packets:
            raise VideoLimitError(
                f"{self.name} has more than {self.limits.max_packets} packets; "
                "give a shorter video, or raise `max_packets`"
            )
        self.check_time()

    def check_bytes(self, count: int) -> None:
        """Checks how many bytes the chosen frames take together.

        Raises:
            VideoLimitError: The frames take too many bytes.
        """
        if count > self.limits.max_bytes:
            raise VideoLimitError(
                f"the frames of {self.name} take more than {self.limits.max_bytes} bytes; "
                "choose fewer frames, give a smaller video, or raise `max_bytes`"
            )

    def check_pipe_bytes(self, count: int, reason: str) -> None:
        """Checks the size of a video's temporary copy, and the time.

        Args:
            count: Bytes of the copy so far.
            reason: Says why there is a copy; the words of the error between name and limit.

        Raises:
            VideoLimitError: There are too many bytes, or the time is over.
        """
        if count > self.limits.max_pipe_bytes:
            raise VideoLimitError(
                f"{self.name} {reason} {self.limits.max_pipe_bytes} bytes, "
                "which would be copied; give the path of a file, or raise `max_pipe_bytes`"
            )
        self.check_time()

    def check_nal_units(self, count: int, limit: int) -> None:
        """Checks how many NAL units a frame has.

        Args:
            count: The number of NAL units so far.
            limit: The highest allowed number.

        Raises:
            VideoLimitError: There are more NAL units than any encoder makes.
        """
        if count > limit:
            raise VideoLimitError(
                f"{self.name} has more than {limit} NAL units in a frame, which would take "
                "gigabytes of memory; no encoder makes such files: check where it comes from"
            )

    def check_memory(self, width: int, height: int) -> None:
        """Checks, after an error of FFmpeg, that there is memory for another frame.

        FFmpeg's own error does not tell: when memory runs out, FFmpeg mostly says that a packet is
        damaged; and when a damaged packet states an absurd size, it says that memory ran out.

        Args:
            width: Pixels in a row of the frame.
            height: Number of rows.

        Raises:
            NotEnoughMemoryError: There is not enough memory.
        """
        try:
            mmap.mmap(-1, max(1, width * height * _MOST_BYTES_PER_PIXEL)).close()
        except OSError as error:
            raise NotEnoughMemoryError(
                f"there is not enough memory to read {self.name}; end other programs, or give a "
                "smaller video"
            ) from error

    def check_pixels(self, width: int, height: int) -> None:
        """Checks the size of a frame.

        Raises:
            VideoLimitError: The frame has too many pixels.
        """
        if width * height > self.limits.max_pixels:
            raise VideoLimitError(
                f"{self.name} has frames of {width}x{height} pixels, above the limit of "
                f"{self.limits.max_pixels}; scale it down first, or raise `max_pixels`"
            )
