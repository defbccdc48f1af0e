"""Opens video files safely: they may come from anyone.

FFmpeg follows what a file says, even into other files or onto the network, and it decodes a
picture of any size. So only local files in plain video containers are opened, and the size of a
picture is limited. FFmpeg's log stays as PyAV leaves it: silent.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import av
import av.container
import av.stream

from timesformer_runtime.errors import InvalidVideoError, VideoNotFoundError

MAX_PIXELS = 1 << 26  # twice an 8K picture

# Containers that hold their pictures themselves: no playlists, no lists of other files.
_OPEN_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,matroska,avi,mpegts,mpeg,mpegvideo,ogg,flv,gif,asf,ivf,h264,hevc",
}
_READABLE = "give a video file, for example MP4, MKV, WebM, AVI, MPEG-TS, FLV or GIF"

if TYPE_CHECKING:  # the class cannot be subscripted at run time
    Packet = av.Packet[av.VideoStream]
Source = str | os.PathLike[str] | BinaryIO
InputContainer = av.container.InputContainer
VideoStream = av.VideoStream


@dataclasses.dataclass(frozen=True)
class Media:
    """A video that can be opened several times."""

    name: str
    target: str | BinaryIO

    @contextlib.contextmanager
    def open(
        self, *, threads: int = 1, max_pixels: int = MAX_PIXELS
    ) -> Iterator[tuple[InputContainer, VideoStream]]:
        """Opens the file and its best video stream, ready to be decoded from the start.

        Args:
            threads: Number of decoding threads.
            max_pixels: Limit of a picture's width times height.

        Raises:
            InvalidVideoError: It is not a video, it has no video stream that can be decoded, or
                its pictures are larger than the limit.
        """
        if not isinstance(self.target, str):
            self.target.seek(0)
        try:
            container = av.open(
                self.target,
                mode="r",
                container_options=dict(_OPEN_OPTIONS),
                metadata_errors="replace",  # titles are not always UTF-8, and nobody reads them
            )
        except (av.FFmpegError, OSError) as error:
            reason = error.strerror or error
            raise InvalidVideoError(
                f"{self.name} cannot be opened as a video ({reason}); {_READABLE}"
            ) from error
        with container:
            stream = _best_video_stream(container, self.name)
            _check_pixels(self.name, stream, max_pixels)
            _discard_other_streams(container, stream)
            stream.codec_context.options = {"max_pixels": str(max_pixels)}
            stream.codec_context.thread_count = threads
            stream.codec_context.thread_type = "AUTO" if threads > 1 else "NONE"
            yield container, stream


def packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """The packets of a stream that hold something, from where the container stands to its end.

    Raises:
        av.FFmpegError: The file breaks off in a way that its format does not allow.
    """
    try:
        for packet in container.demux(stream):
            if packet.size > 0:
                yield packet
    except IndexError:
        # PyAV's own end of a file in which another stream began after its header.
        return


@contextlib.contextmanager
def locate(source: Source) -> Iterator[Media]:
    """Finds a video and makes sure that it can be opened again while the context lasts.

    Args:
        source: A path, or a binary file object. One that can seek is read from its beginning;
            the rest of one that cannot, and of a pipe, is copied to a temporary file.

    Raises:
        VideoNotFoundError: There is no such file.
        InvalidVideoError: It is a URL, a folder, empty, cannot be read, or no path or file object.
    """
    if isinstance(source, str | os.PathLike):
        name = os.fsdecode(source)
        if _is_regular_file(name):
            # An absolute path cannot be taken for one of FFmpeg's own prefixes ("concat:").
            yield Media(name, str(Path(name).absolute()))
            return
        with Path(name).open("rb") as pipe, _copied(pipe, name) as media:
            yield media
    elif isinstance(source, io.TextIOBase):
        raise InvalidVideoError("the file object was opened in text mode; open it with mode 'rb'")
    elif hasattr(source, "read"):
        name = str(getattr(source, "name", "the file object"))
        if _can_seek(source):
            if source.seek(0, os.SEEK_END) == 0:
                raise InvalidVideoError(f"{name} is empty; {_READABLE}")
            yield Media(name, source)
            return
        with _copied(source, name) as media:
            yield media
    else:
        raise InvalidVideoError(
            f"a video cannot be a {type(source).__name__}; give a path or a binary file object"
        )


def _is_regular_file(name: str) -> bool:
    if "://" in name:
        raise InvalidVideoError(f"{name} is a URL; download it first and give the file's path")
    try:
        status = Path(name).stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise VideoNotFoundError(f"there is no file {name}; check the path") from error
    except (OSError, ValueError) as error:
        raise InvalidVideoError(f"{name!r} is not a path that can be read: {error}") from error
    if stat.S_ISDIR(status.st_mode):
        raise InvalidVideoError(f"{name} is a folder; give the path of one video file")
    if stat.S_ISREG(status.st_mode) and status.st_size == 0:
        raise InvalidVideoError(f"{name} is empty; {_READABLE}")
    if not os.access(name, os.R_OK):
        raise InvalidVideoError(f"{name} cannot be read; check its permissions")
    return stat.S_ISREG(status.st_mode)


def _can_seek(file: Any) -> bool:
    return bool(hasattr(file, "seekable") and file.seekable())


@contextlib.contextmanager
def _copied(stream: BinaryIO, name: str) -> Iterator[Media]:
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(stream, copy)
        if copy.tell() == 0:
            raise InvalidVideoError(f"{name} is empty; {_READABLE}")
        yield Media(name, copy)


def _best_video_stream(container: InputContainer, name: str) -> VideoStream:
    stream = container.streams.best("video")
    cover_art = av.stream.Disposition.attached_pic
    if not isinstance(stream, VideoStream) or stream.disposition & cover_art:
        raise InvalidVideoError(f"{name} has no video stream; {_READABLE}")
    if stream.codec_context is None:
        raise InvalidVideoError(
            f"{name} is damaged or in a codec that cannot be decoded here; "
            "check that it is complete, or convert it to H.264"
        )
    return stream


def _discard_other_streams(container: InputContainer, stream: VideoStream) -> None:
    if not hasattr(av.stream, "Discard"):  # before PyAV 18; there they are read and dropped
        return
    for other in container.streams:
        if other.index != stream.index:
            other.discard = av.stream.Discard.all


def _check_pixels(name: str, stream: VideoStream, max_pixels: int) -> None:
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > max_pixels:
        raise InvalidVideoError(
            f"{name} has pictures of {width}x{height} pixels, above the limit of {max_pixels}; "
            "scale it down first"
        )
