"""VideoDecoder: frames of a video file by index, exactly those, each decoded and converted once."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from timesformer_runtime.errors import InvalidOptionError, InvalidVideoError
from timesformer_runtime.video.claims import Verdict, judge, read_claims
from timesformer_runtime.video.container import OpenVideo, open_video
from timesformer_runtime.video.decoding import (
    SPARE_PIXELS,
    Decoded,
    Keeper,
    check_decoded,
    decode_all,
    frame_rate,
)
from timesformer_runtime.video.frame_index import scan
from timesformer_runtime.video.limits import DecodeLimits
from timesformer_runtime.video.pixels import Frame, Kept, Rendering, Size
from timesformer_runtime.video.seeking import decode_selected
from timesformer_runtime.video.source import Source, locate

if TYPE_CHECKING:
    from timesformer_runtime.video.container import Packet

Indices: TypeAlias = Sequence[int] | npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class DecodedFrames:
    """Frames of a video that were asked for by their indices.

    Attributes:
        pixels: One uint8 RGB array [H, W, 3] per frame, or what ``convert`` made of it. The sizes
            differ where the video changes its size. A frame that was asked for several times is
            one array.
        indices: Which frames of the video these are, counted from 0.
        times: When they are shown, in seconds from the video's first frame.
        interlaced: Whether frames consist of two fields; they are kept as they are.
    """

    pixels: tuple[Kept, ...]
    indices: tuple[int, ...]
    times: tuple[float, ...]
    interlaced: bool

    def array(self) -> npt.NDArray[np.uint8]:
        """The frames as one array, uint8 [T, H, W, 3].

        Raises:
            InvalidVideoError: The frames have several sizes.
        """
        return stack_frames(self.pixels)


class VideoDecoder:
    """Opens a video file and gives its frames by index.

    An index counts the frames that decoding the whole file from its start yields, in the order in
    which they come out; packets that fail to decode yield none. Only what the wanted frames need
    is decoded where the file's packets tell what that is. Pixels are as stored: the decoder obeys
    rotation metadata, and leaves non-square pixels and interlacing as they are, as training
    pipelines do.

    Files may come from anyone: only plain video containers are opened, nothing that leads to other
    files or the network, and within ``limits``.

    A decoder is for one thread at a time.

    Args:
        source: Path or binary file object of a video.
        threads: Number of decoding threads; use 1 when several videos are read in parallel.
        limits: What reading may cost; the time counts from here to ``close``.
        convert: What to keep of each frame, uint8 RGB [H, W, 3]; called as soon as a frame is
            decoded, so that large frames are not all held together. It may be called again for
            the same frames where a file turns out to be damaged.
        scale_to: Maps the height and width of an upright frame to those that FFmpeg scales it to.
        square_pixels: Whether frames whose pixels are not square are made wider or narrower.

    Attributes:
        rate: Frames per second, as the file states.
        duration: Seconds, as the file states; None where it does not.

    Raises:
        VideoNotFoundError: There is no such file.
        InvalidVideoError: It is a URL or a folder, or it cannot be opened as a video.
        VideoLimitError: Reading it would cost more than the limits allow.
        InvalidOptionError: ``threads`` is smaller than 1.

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
        convert: Callable[[Frame], Kept] | None = None,
        scale_to: Callable[[int, int], Size] | None = None,
        square_pixels: bool = False,
    ) -> None:
        if threads < 1:
            raise InvalidOptionError(f"threads is {threads}; it must be at least 1")
        self._threads = threads
        self._rendering = Rendering(convert, scale_to, square_pixels)
        with contextlib.ExitStack() as stack:
            self._video_file = stack.enter_context(locate(source, limits))
            self._video = stack.enter_context(open_video(self._video_file, threads=threads))
            self._claims = read_claims(self._video_file, self._video)
            self._scan = scan(self._video)
            self._resources = stack.pop_all()
        self.rate = frame_rate(self._video.stream)
        self.duration = self._claims.seconds
        self._index = self._scan.index
        self._packets = self._scan.kept  # while the decoder has not seen them
        self._decoded: Decoded | None = None  # the newest
        self._whole: Decoded | None = None  # of the whole file

    def __len__(self) -> int:
        """Number of frames that decode. Where packets do not tell, the whole file is decoded."""
        if self._whole is None and self._index is None:
            self._decode_whole(())
        return self.likely_count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; a file object that was given stays open."""
        self._resources.close()

    @property
    def likely_count(self) -> int:
        """Number of frames as far as known: it costs no decoding, but decoding may correct it."""
        return self._scan.packets if self._whole is None else self._whole.count

    @property
    def times(self) -> tuple[float, ...]:
        """When the frames are shown, in seconds from the first; decodes as ``len`` does."""
        unit = self._video.stream.time_base
        if self._index is not None and unit is not None:
            shown = self._index.times[self._index.packet_of_frame] - self._index.start
            return tuple(float(time * unit) for time in shown.tolist())
        return tuple((self._whole or self._decode_whole(())).times)

    @property
    def failed_packets(self) -> int:
        """How many packets could not be decoded so far."""
        return 0 if self._decoded is None else self._decoded.failed_packets

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the file, a short sentence for each, as far as decoding has shown.

        Empty for a sound file.
        """
        return self.verdict().problems

    def verdict(self) -> Verdict:
        """The file's problems, and whether its end is missing."""
        decoded = self._decoded or Decoded(self._scan.packets)
        return judge(self._video_file, self._claims, self._scan.extent, decoded)

    def frames(self, indices: Indices) -> DecodedFrames:
        """Decodes frames.

        Args:
            indices: Which frames, counted from 0, in any order; they may repeat.

        Raises:
            InvalidOptionError: There is no frame with such an index.
            InvalidVideoError: The file cannot be decoded, or its colours cannot be converted.
            VideoLimitError: A limit is reached.
        """
        frames = self.frames_if_there(indices)
        if frames is None:
            count = len(self)
            wrong = next(index for index in indices if not 0 <= index < count)
            raise InvalidOptionError(
                f"frame {wrong} was chosen; a video of {count} frames has 0 to {count - 1}"
            )
        return frames

    def frames_if_there(self, indices: Indices) -> DecodedFrames | None:
        """Decodes frames that were chosen with ``likely_count``.

        Returns:
            The frames; None where one of them is not there after all.

        Raises:
            InvalidVideoError: As for ``frames``.
            VideoLimitError: As for ``frames``.
        """
        indices = tuple(int(index) for index in indices)
        decoded = self._decode_selected(indices)
        if decoded is None:
            decoded = self._decode_whole(indices)
        self._decoded = decoded
        if not decoded.pictures.keys() >= set(indices):
            return None
        pictures = [decoded.pictures[index] for index in indices]
        return DecodedFrames(
            pixels=tuple(picture.pixels for picture in pictures),
            indices=indices,
            times=tuple(picture.seconds for picture in pictures),
            interlaced=decoded.interlaced,
        )

    def _decode_selected(self, indices: tuple[int, ...]) -> Decoded | None:
        """Decodes what the frames need; None where it is not known what that is."""
        if self._index is None:
            return None
        wanted = sorted({index for index in indices if 0 <= index < self._scan.packets})
        kept = self._scan.kept
        decoded = decode_selected(self._video, self._index, wanted, self._rendering, kept)
        if decoded is None:  # the file contradicts its packets
            self._index = self._packets = None
        return decoded

    def _decode_whole(self, indices: tuple[int, ...]) -> Decoded:
        """Decodes the whole file; again only where a frame is wanted that was not kept."""
        wanted = frozenset(indices)
        before = self._whole
        if before is not None and self._keep_spare(before, wanted):
            return before
        # Which frames survive damage depends on the number of threads: that of one counts.
        threads = 1 if before is not None and before.failed_packets else self._threads
        decoded = self._decode_file(wanted, threads)
        if decoded.failed_packets and threads > 1:
            decoded = self._decode_file(wanted, threads=1)
        check_decoded(self._video_file.name, decoded)
        self._whole = self._decoded = decoded
        return decoded

    def _decode_file(self, wanted: Collection[int], threads: int) -> Decoded:
        if self._packets is not None:
            packets, self._packets = self._packets, None
            return self._decode_packets(self._video, wanted, packets)
        with open_video(self._video_file, threads=threads) as video:
            return self._decode_packets(video, wanted, None)

    def _decode_packets(
        self, video: OpenVideo, wanted: Collection[int], packets: Sequence[Packet] | None
    ) -> Decoded:
        decoder = video.stream.codec_context
        # The number of frames is certain, but for damage, where every packet says that it has one.
        is_certain = self._scan.is_sound and self._scan.index is None
        is_large = self._scan.packets * decoder.width * decoder.height > SPARE_PIXELS
        return decode_all(
            video,
            wanted,
            self._rendering,
            keeps_spare=not (is_certain or is_large),
            demuxed=None if packets is None else iter(packets),
        )

    def _keep_spare(self, decoded: Decoded, wanted: frozenset[int]) -> bool:
        """Renders the wanted frames that were spare; False where one is not there any more."""
        missing = wanted & set(range(decoded.count)) - decoded.pictures.keys()
        if not missing <= decoded.spare.keys():
            return False
        keeper = Keeper(self._video.stream, self._video_file.watch, self._rendering, decoded)
        for number in sorted(missing):
            keeper.keep(number, decoded.spare.pop(number))
        return True


def stack_frames(frames: Sequence[Kept]) -> npt.NDArray[np.uint8]:
    """Frames [H, W, 3] as one array [T, H, W, 3].

    Raises:
        InvalidVideoError: They have several sizes.
    """
    sizes = sorted({frame.shape[:2] for frame in frames})
    if len(sizes) > 1:
        raise InvalidVideoError(
            f"the video changes its size ({sizes[0]} and {sizes[1]} pixels); "
            "convert it to one size first"
        )
    return np.stack(frames)
