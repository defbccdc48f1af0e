"""VideoDecoder: opens a video file, and gives exactly the frames that a caller asks for."""

from __future__ import annotations

import contextlib
import dataclasses
import operator
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from timesformer_runtime.errors import ClosedError, InvalidOptionError, quoted
from timesformer_runtime.forks import call_in_forks, keep_forever
from timesformer_runtime.option_checks import check_flag, check_threads
from timesformer_runtime.video.container import OpenVideo, open_video
from timesformer_runtime.video.decoding import (
    CACHE_PIXELS,
    Decoded,
    FrameCollector,
    check_decoded,
    decode_all,
    frame_rate,
)
from timesformer_runtime.video.index.frame_index import scan
from timesformer_runtime.video.integrity import Verdict, judge, read_stated_metadata
from timesformer_runtime.video.limits import DecodeLimits
from timesformer_runtime.video.pixels import ConvertedFrame, Rendering, RgbFrame, Size, stack_frames
from timesformer_runtime.video.seeking import decode_selected
from timesformer_runtime.video.source import Source, locate

if TYPE_CHECKING:
    from timesformer_runtime.video.container import Packet

Indices: TypeAlias = Sequence[int] | npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class DecodedFrames:
    """The frames of a video that a caller asked for by their indices.

    Attributes:
        pixels: One uint8 RGB array [H, W, 3] per frame, or the result of ``convert`` for it. The
            sizes differ where the video changes its size. A repeated index gives one array, which
            is then several times in the tuple.
        indices: The indices of the frames in the video, counted from 0.
        times: When each frame is shown, in seconds from the video's first frame.
        interlaced: True if a frame consists of two fields; the decoder does not separate them.
    """

    pixels: tuple[ConvertedFrame, ...]
    indices: tuple[int, ...]
    times: tuple[float, ...]
    interlaced: bool

    def array(self) -> npt.NDArray[np.uint8]:
        """Stacks the frames into one array, uint8 [T, H, W, 3].

        Raises:
            InvalidVideoError: There are no frames, or they have several sizes.
        """
        return stack_frames(self.pixels)


class VideoDecoder:
    """Opens a video file and gives its frames by index.

    An index counts the frames as they come out of FFmpeg when it decodes the whole file from its
    start; a packet that fails to decode gives no frame. Where the packets tell which of them the
    wanted frames need, the decoder decodes only these. The decoder turns frames upright as the
    rotation metadata says, and leaves non-square pixels and interlacing as they are, as training
    pipelines do.

    Files may come from strangers: the decoder opens only plain video containers, follows no
    reference to other files or to the network, and stays within ``limits``.

    Use a decoder in one thread at a time, and in the process that made it. After ``close``, and in
    a process that is forked later, decoding raises ``ClosedError``; the count, times and problems
    that are known stay readable.

    Args:
        source: Path or binary file object of a video.
        threads: Number of decoding threads; use 1 when several videos are read in parallel.
        limits: Limits for reading the video; the time counts from here to ``close``.
        convert: Makes of each frame, uint8 RGB [H, W, 3], the array that the result holds. The
            decoder calls it right after decoding a frame, so that large frames are not all in
            memory together. The decoder calls it again for some frames where a file turns out to be
            damaged.
        scale_to: Maps the height and width of an upright frame to those that FFmpeg scales it to.
        square_pixels: True to make frames whose pixels are not square wider or narrower.

    Attributes:
        rate: Frames per second that the file states.
        duration: Seconds that the file states; None where it states none.

    Raises:
        VideoNotFoundError: There is no such file.
        InvalidVideoError: The source is a URL or a folder, or cannot be opened as a video.
        VideoLimitError: Reading would cost more than the limits allow.
        InvalidOptionError: An argument is not valid.

    Example:
        >>> with VideoDecoder("clip.mp4") as video:
        ...     frames = video.frames([0, len(video) - 1])
        >>> frames.pixels[0].shape
        (240, 320, 3)
    """

    def __init__(
        self,
        source: Source,
        *,
        threads: int = 1,
        limits: DecodeLimits | None = None,
        convert: Callable[[RgbFrame], ConvertedFrame] | None = None,
        scale_to: Callable[[int, int], Size] | None = None,
        square_pixels: bool = False,
    ) -> None:
        check_threads(threads)
        check_flag("square_pixels", square_pixels)
        self._threads = threads
        self._rendering = Rendering(convert, scale_to, square_pixels)
        with contextlib.ExitStack() as stack:
            self._video_file = stack.enter_context(locate(source, limits))
            video = stack.enter_context(open_video(self._video_file, threads=threads))
            self._stated = read_stated_metadata(self._video_file, video)
            self._scan = scan(video)
            self._resources = stack.pop_all()
        self._video: OpenVideo | None = video
        self._reason = ""  # why there is no open video any more
        self._time_base = video.stream.time_base
        self.rate = frame_rate(video.stream)
        self.duration = self._stated.seconds
        self._index = self._scan.index
        self._unused_packets = self._scan.cached_packets  # None once the open decoder took them
        self._latest: Decoded | None = None  # the result of the last decoding
        self._whole: Decoded | None = None  # the result of decoding the whole file
        call_in_forks(self, VideoDecoder._leave_to_parent)

    def __len__(self) -> int:
        """Counts the frames that decode; decodes the whole file where its packets do not tell."""
        if self._whole is None and self._index is None:
            self._decode_whole(())
        return self.likely_count

    def __enter__(self) -> Self:
        self._opened()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; a file object of the caller stays open. Closing again does nothing."""
        self._resources.close()
        if self._video is not None:
            self._reason = "the decoder is closed; open the video again"
            self._video = self._unused_packets = None

    def _leave_to_parent(self) -> None:
        """Gives up the decoder, in a forked process: threads and file offset are the parent's."""
        if self._video is not None:
            keep_forever(self._video)
            self._reason = (
                "this process was forked after the decoder was opened; open the video in it"
            )
            self._video = self._unused_packets = None

    @property
    def likely_count(self) -> int:
        """Number of frames as far as known; needs no decoding, which may still correct it."""
        return self._scan.expected_frames if self._whole is None else self._whole.count

    @property
    def times(self) -> tuple[float, ...]:
        """When each frame is shown, in seconds from the first; decodes as ``len`` does."""
        time_base = self._time_base
        if self._index is not None and time_base is not None:
            pts = self._index.pts[self._index.packet_of_frame] - self._index.start
            return tuple(float(time * time_base) for time in pts.tolist())
        return tuple((self._whole or self._decode_whole(())).times)

    @property
    def failed_packets(self) -> int:
        """Number of packets so far that did not decode."""
        return 0 if self._latest is None else self._latest.failed_packets

    @property
    def problems(self) -> tuple[str, ...]:
        """The problems of the file that are known so far, each in a short sentence.

        Empty for a file without problems. Decoding more frames may find more.
        """
        return self.verdict().problems

    def verdict(self) -> Verdict:
        """Tells the file's problems, and whether its end is missing.

        Raises:
            ClosedError: The decoder is closed, and its file was a copy of a pipe.
            InvalidVideoError: The file cannot be read any more.
        """
        if getattr(self._video_file.target, "closed", False):
            self._opened()
        decoded = self._latest or Decoded(self._scan.expected_frames)
        return judge(self._video_file, self._stated, self._scan.extent, decoded)

    def frames(self, indices: Indices) -> DecodedFrames:
        """Decodes frames.

        Args:
            indices: Indices of frames, counted from 0, in any order; they may repeat.

        Raises:
            ClosedError: The decoder is closed.
            InvalidOptionError: There is no frame with such an index, or an index is not an integer.
            InvalidVideoError: The file does not decode, or FFmpeg does not convert its colours.
            VideoLimitError: Reading costs more than a limit allows.
        """
        indices = _checked(indices)
        frames = self.frames_if_there(indices)
        if frames is None:
            count = len(self)
            wrong = next(index for index in indices if not 0 <= index < count)
            raise InvalidOptionError(
                f"frame {wrong} was chosen; a video of {count} frames has 0 to {count - 1}"
            )
        return frames

    def frames_if_there(self, indices: Indices) -> DecodedFrames | None:
        """Decodes frames whose indices the caller chose by ``likely_count``.

        Returns:
            The frames; None where the file does not have all of them after all.

        Raises:
            ClosedError: The decoder is closed.
            InvalidOptionError: An index is not an integer.
            InvalidVideoError: As for ``frames``.
            VideoLimitError: As for ``frames``.
        """
        self._opened()
        indices = _checked(indices)
        decoded = self._decode_selected(indices)
        if decoded is None:
            decoded = self._decode_whole(indices)
        self._latest = decoded
        if not decoded.frames.keys() >= set(indices):
            return None
        frames = [decoded.frames[index] for index in indices]
        return DecodedFrames(
            pixels=tuple(frame.pixels for frame in frames),
            indices=indices,
            times=tuple(frame.seconds for frame in frames),
            interlaced=decoded.interlaced,
        )

    def _opened(self) -> OpenVideo:
        if self._video is None:
            raise ClosedError(f"{self._video_file.name}: {self._reason}")
        return self._video

    def _decode_selected(self, indices: tuple[int, ...]) -> Decoded | None:
        """Decodes only what the frames need; None if the index is missing or wrong."""
        if self._index is None:
            return None
        wanted = sorted({index for index in indices if 0 <= index < self._scan.expected_frames})
        packets = self._scan.cached_packets
        decoded = decode_selected(self._opened(), self._index, wanted, self._rendering, packets)
        if decoded is None:  # the frames are not those that the index lists
            self._index = self._unused_packets = None
        return decoded

    def _decode_whole(self, indices: tuple[int, ...]) -> Decoded:
        """Decodes the whole file, unless an earlier call did and still has the wanted frames."""
        wanted = frozenset(indices)
        before = self._whole
        if before is not None and self._render_cached(before, wanted):
            return before
        # How many frames of a damaged file decode depends on the number of threads. Decoding with
        # one thread gives the same frames on every machine.
        threads = 1 if before is not None and before.failed_packets else self._threads
        decoded = self._decode_file(wanted, threads)
        if decoded.failed_packets and threads > 1:
            decoded = self._decode_file(wanted, threads=1)
        check_decoded(self._video_file.name, decoded)
        self._whole = self._latest = decoded
        return decoded

    def _decode_file(self, wanted: Collection[int], threads: int) -> Decoded:
        opened = self._opened()
        if self._unused_packets is not None:
            packets, self._unused_packets = self._unused_packets, None
            return self._decode_packets(opened, wanted, packets)
        with open_video(self._video_file, threads=threads) as video:
            return self._decode_packets(video, wanted, None)

    def _decode_packets(
        self, video: OpenVideo, wanted: Collection[int], packets: Sequence[Packet] | None
    ) -> Decoded:
        """Decodes a whole stream, from its packets if these are in memory."""
        decoder = video.stream.codec_context
        # If each packet seems to give one frame, decoding will not correct the number of frames,
        # so nobody will ask for other frames afterwards.
        is_count_certain = self._scan.seems_intact and self._scan.index is None
        pixels = self._scan.expected_frames * decoder.width * decoder.height
        return decode_all(
            video,
            wanted,
            self._rendering,
            caches_others=not is_count_certain and pixels <= CACHE_PIXELS,
            packets=None if packets is None else iter(packets),
        )

    def _render_cached(self, decoded: Decoded, wanted: frozenset[int]) -> bool:
        """Renders cached frames that are wanted; False if a wanted frame is not even cached."""
        missing = wanted & set(range(decoded.count)) - decoded.frames.keys()
        if not missing <= decoded.cached.keys():
            return False
        collector = FrameCollector(self._opened(), self._rendering, decoded)
        for index in sorted(missing):
            collector.add(index, decoded.cached.pop(index))
        return True


def _checked(indices: Indices) -> tuple[int, ...]:
    """Reads indices of frames; refuses a mask, fractions and texts, which ``int`` would take."""
    try:
        given = tuple(indices)
        if not any(isinstance(index, bool | np.bool_) for index in given):
            return tuple(operator.index(index) for index in given)
    except TypeError:
        pass
    raise InvalidOptionError(
        f"`indices` is {quoted(indices)}; it must be a list of integers, such as [0, 8, 16]"
    )
