"""Fetches chosen frames of a video: exactly those, decoded once, converted once.

An index counts the frames that decoding the whole file from its start yields, in the order in
which they come out; packets that fail to decode yield none. Pixels are used as stored: rotation
metadata is obeyed, non-square pixels and interlacing are left as they are, as in every training
pipeline.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Self

import numpy as np
import numpy.typing as npt

from timesformer_runtime.errors import InvalidOptionError, InvalidVideoError
from timesformer_runtime.video.claims import Claims, judge, read_claims
from timesformer_runtime.video.container import Media, OpenVideo
from timesformer_runtime.video.decoding import SPARE_PIXELS, Decoded, decode_all, frame_rate
from timesformer_runtime.video.frame_index import Extent, Scan, scan
from timesformer_runtime.video.limits import DecodeLimits
from timesformer_runtime.video.pixels import Frame, Kept, Rendering, Size
from timesformer_runtime.video.sample_table import find_table, scan_table
from timesformer_runtime.video.seeking import decode_selected
from timesformer_runtime.video.source import Source, locate

ARRAY_RATE = 30.0  # frames per second of arrays, which do not tell


class FrameCount(int):
    """A number of frames that knows how many of them are shown in a second."""

    rate: float

    def __new__(cls, count: int, rate: float) -> Self:
        """Attaches the rate, in frames per second, to the number."""
        self = super().__new__(cls, count)
        self.rate = rate
        return self


Choice = Callable[[FrameCount], npt.NDArray[np.int64]]


@dataclasses.dataclass(frozen=True)
class Clip:
    """Frames of a video, and what is known about them.

    Attributes:
        frames: One uint8 RGB array [H, W, 3] per frame, or what was made of it. The sizes differ
            where the video changes its size. A frame that was chosen several times is the same
            array each time.
        indices: Which frames of the video these are, counted from 0.
        times: Their times in seconds from the video's first frame; None for frames that did not
            come from a file.
        count: Number of frames that the video has.
        failed_packets: Number of the video's packets that could not be decoded.
        problems: What is wrong with the file, a short sentence for each; empty where it is sound.
        truncated: Whether the file ends before what it states to hold.
        interlaced: Whether frames consist of two fields; they are kept as they are.
    """

    frames: tuple[Kept, ...]
    indices: tuple[int, ...]
    times: tuple[float, ...] | None
    count: int
    failed_packets: int = 0
    problems: tuple[str, ...] = ()
    truncated: bool = False
    interlaced: bool = False

    @classmethod
    def from_array(cls, frames: npt.NDArray[np.uint8], choose: Choice) -> Self:
        """Chooses frames of a video that is in memory already.

        Args:
            frames: uint8 RGB [T, H, W, 3].
            choose: Maps the number of frames to the indices that are wanted.

        Raises:
            InvalidVideoError: The array has another type or shape, or no frames.
            InvalidOptionError: ``choose`` gave an index that does not exist.
        """
        if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
            kind = frames.dtype if isinstance(frames, np.ndarray) else type(frames).__name__
            raise InvalidVideoError(
                f"the video is an array of {kind}; give uint8 RGB frames [T, height, width, 3]"
            )
        if frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            hint = ": one frame, so that numpy.stack(frames) is a video" if frames.ndim == 3 else ""
            raise InvalidVideoError(
                f"the video is an array of shape {frames.shape}{hint}; "
                "give uint8 RGB frames [T, height, width, 3]"
            )
        indices = _chosen(choose, FrameCount(len(frames), ARRAY_RATE))
        kept = {index: frames[index] for index in indices}
        return cls(tuple(kept[index] for index in indices), indices, None, len(frames))

    def array(self) -> npt.NDArray[np.uint8]:
        """The frames as one array, uint8 [T, H, W, 3].

        Raises:
            InvalidVideoError: The frames have several sizes.
        """
        sizes = sorted({frame.shape[:2] for frame in self.frames})
        if len(sizes) > 1:
            raise InvalidVideoError(
                f"the video changes its size ({sizes[0]} and {sizes[1]} pixels); "
                "convert it to one size first"
            )
        return np.stack(self.frames)


def read_clip(
    source: Source,
    choose: Choice,
    *,
    convert: Callable[[Frame], Kept] | None = None,
    scale_to: Callable[[int, int], Size] | None = None,
    square_pixels: bool = False,
    threads: int = 1,
    limits: DecodeLimits | None = None,
) -> Clip:
    """Reads the frames of a video that a function chooses.

    Args:
        source: Path or binary file object of a video.
        choose: Maps the number of frames that decode to the indices that are wanted; they may
            repeat. It is called again when that number turns out to be another one.
        convert: What to keep of each chosen frame, uint8 RGB [H, W, 3]; called as soon as it is
            decoded, so that large frames are not all held together. It may be called again for
            the same frames where a file turns out to be damaged.
        scale_to: Maps the height and width of an upright frame to those that FFmpeg scales it to:
            four times as fast as ``resample.resize``, and 0.1 grey levels off on average.
        square_pixels: Whether frames whose pixels are not square are made wider or narrower.
        threads: Number of decoding threads; use 1 when several videos are read in parallel.
        limits: What reading may cost.

    Raises:
        VideoNotFoundError: There is no such file.
        InvalidVideoError: It is a URL or a folder, or it cannot be opened or decoded as a video.
        VideoLimitError: It would cost more than the limits allow.
        InvalidOptionError: ``threads`` is smaller than 1, or ``choose`` gave an index that does
            not exist.
    """
    if threads < 1:
        raise InvalidOptionError(f"threads is {threads}; it must be at least 1")
    with locate(source, limits) as media:
        rendering = Rendering(convert, scale_to, square_pixels)
        return _Reader(media, choose, rendering, threads).read()


@dataclasses.dataclass(frozen=True)
class _Reader:
    media: Media
    choose: Choice
    rendering: Rendering
    threads: int

    def read(self) -> Clip:
        decoded = None
        with self.media.open(threads=self.threads) as video:
            rate = frame_rate(video.stream)
            claims = read_claims(self.media, video)
            table = find_table(self.media, video)
            found = scan(video) if table is None else scan_table(self.media, video, table)
            selected = self._read_selected(video, found, rate)
            if found.index is None and found.kept is not None:
                decoded = self._decode_everything(video, found, FrameCount(found.packets, rate))
        if selected is None and table is not None:  # which the file contradicts
            with self.media.open(threads=self.threads) as video:
                found = scan(video)
                selected = self._read_selected(video, found, rate)
        if selected is None:
            selected = self._read_everything(found, rate, decoded)
        return self._clip(*selected, claims, found.extent)

    def _read_selected(
        self, video: OpenVideo, found: Scan, rate: float
    ) -> tuple[Decoded, tuple[int, ...]] | None:
        """Decodes what is needed; None where it is not known what that is."""
        if found.index is None:
            return None
        indices = _chosen(self.choose, FrameCount(found.packets, rate))
        wanted = sorted(set(indices))
        decoded = decode_selected(video, found.index, wanted, self.rendering, found.kept)
        return None if decoded is None else (decoded, indices)

    def _read_everything(
        self, found: Scan, rate: float, decoded: Decoded | None
    ) -> tuple[Decoded, tuple[int, ...]]:
        """Decodes the whole file: again only where it has not the expected number of frames.

        Args:
            found: What its packets tell.
            rate: Frames per second.
            decoded: What came out where it was decoded already.
        """
        decoded = decoded or self._decode_file(found, FrameCount(found.packets, rate))
        if decoded.failed_packets and self.threads > 1:
            # Which frames survive damage depends on the number of threads: that of one counts.
            decoded = self._decode_file(found, FrameCount(found.packets, rate), threads=1)
        self._check(decoded)
        count = FrameCount(decoded.count, rate)
        indices = _chosen(self.choose, count)
        if not decoded.pictures.keys() >= set(indices):
            threads = 1 if decoded.failed_packets else self.threads
            decoded = self._decode_file(found, count, threads=threads)
        return decoded, indices

    def _decode_file(
        self, found: Scan, expected: FrameCount, *, threads: int | None = None
    ) -> Decoded:
        with self.media.open(threads=threads or self.threads) as video:
            unkept = dataclasses.replace(found, kept=None)
            return self._decode_everything(video, unkept, expected)

    def _decode_everything(self, video: OpenVideo, found: Scan, expected: FrameCount) -> Decoded:
        def choose_again(count: int) -> tuple[int, ...]:
            return _chosen(self.choose, FrameCount(count, expected.rate)) if count else ()

        wanted = frozenset(_chosen(self.choose, FrameCount(max(expected, 1), expected.rate)))
        decoder = video.stream.codec_context
        is_certain = found.is_sound and found.index is None
        is_large = expected * decoder.width * decoder.height > SPARE_PIXELS
        return decode_all(
            video,
            wanted,
            self.rendering,
            None if is_certain or is_large else choose_again,
            None if found.kept is None else iter(found.kept),
        )

    def _check(self, decoded: Decoded) -> None:
        if decoded.failed_packets > decoded.count:
            raise InvalidVideoError(
                f"{self.media.name} is damaged or encrypted: it gave {decoded.failed_packets} "
                f"packets that fail to decode and {decoded.count} frames; repair or decrypt it"
            )
        if decoded.count == 0:
            raise InvalidVideoError(
                f"{self.media.name} has no frame that decodes; check that it is complete"
            )

    def _clip(
        self, decoded: Decoded, indices: tuple[int, ...], claims: Claims, extent: Extent
    ) -> Clip:
        pictures = [decoded.pictures[index] for index in indices]
        verdict = judge(self.media, claims, extent, decoded)
        return Clip(
            frames=tuple(picture.pixels for picture in pictures),
            indices=indices,
            times=tuple(picture.seconds for picture in pictures),
            count=decoded.count,
            failed_packets=decoded.failed_packets,
            problems=verdict.problems,
            truncated=verdict.truncated,
            interlaced=decoded.interlaced,
        )


def _chosen(choose: Choice, count: FrameCount) -> tuple[int, ...]:
    indices = tuple(int(index) for index in choose(count))
    for index in indices:
        if not 0 <= index < count:
            raise InvalidOptionError(
                f"frame {index} was chosen; a video of {count} frames has 0 to {count - 1}"
            )
    return indices
