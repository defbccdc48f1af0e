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
from typing import TYPE_CHECKING, BinaryIO

import av
import av.container
import av.stream

from timesformer_runtime.errors import InvalidVideoError, TimesformerError, VideoNotFoundError

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
        InvalidVideoError: It is a URL, a folder, a device, empty, cannot be read or copied, or no
            path or file object.
    """
    name = _name(source)
    try:
        target, resources = _acquire(source, name)
    except TimesformerError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a closed file object
        reason = getattr(error, "strerror", None) or error
        raise InvalidVideoError(f"{name} cannot be read: {reason}") from error
    with resources:
        yield Media(name, target)


def _name(source: Source) -> str:
    if isinstance(source, str | os.PathLike):
        name = os.fsdecode(source)
        if not name:
            raise InvalidVideoError("the path of a video is empty; give a file")
        return name
    if isinstance(source, io.TextIOBase):
        raise InvalidVideoError("the file object was opened in text mode; open it with mode 'rb'")
    if hasattr(source, "read"):
        return str(getattr(source, "name", "the file object"))
    raise InvalidVideoError(
        f"a video cannot be a {type(source).__name__}; give a path or a binary file object"
    )


def _acquire(source: Source, name: str) -> tuple[str | BinaryIO, contextlib.ExitStack]:
    """What FFmpeg can read again and again, and what to close after that."""
    with contextlib.ExitStack() as stack:
        target: str | BinaryIO
        if not isinstance(source, str | os.PathLike):
            target = _seekable(source, name, stack)
        elif _is_regular_file(name):
            # An absolute path cannot be taken for one of FFmpeg's own prefixes ("concat:").
            target = str(Path(name).absolute())
        else:
            with Path(name).open("rb") as pipe:
                _refuse_endless_device(pipe, name)
                target = _copied(pipe, name, stack)
        return target, stack.pop_all()


def _is_regular_file(name: str) -> bool:
    if "://" in name:
        raise InvalidVideoError(f"{name} is a URL; download it first and give the file's path")
    try:
        status = Path(name).stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise VideoNotFoundError(f"{name}: there is no such file; check the path") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidVideoError(f"{name!r} is not a path that can be read: {reason}") from error
    mode = status.st_mode
    if stat.S_ISDIR(mode):
        raise InvalidVideoError(f"{name} is a folder; give the path of one video file")
    if stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
        raise InvalidVideoError(f"{name} is not a regular file; give the path of a video file")
    if stat.S_ISREG(mode) and status.st_size == 0:
        raise InvalidVideoError(f"{name} is empty; {_READABLE}")
    if not os.access(name, os.R_OK):
        raise InvalidVideoError(f"{name} cannot be read; check its permissions")
    return stat.S_ISREG(mode)


def _refuse_endless_device(file: BinaryIO, name: str) -> None:
    """Lets pipes, terminals and the null device pass: of those, a reader sees an end."""
    status = os.fstat(file.fileno())
    if not stat.S_ISCHR(status.st_mode) or file.isatty():
        return
    if status.st_rdev != Path(os.devnull).stat().st_rdev:
        raise InvalidVideoError(f"{name} is not a regular file; give the path of a video file")


def _seekable(file: BinaryIO, name: str, stack: contextlib.ExitStack) -> BinaryIO:
    if not (hasattr(file, "seekable") and file.seekable()):
        return _copied(file, name, stack)
    if file.seek(0, os.SEEK_END) == 0:
        raise InvalidVideoError(f"{name} is empty; {_READABLE}")
    return file


def _copied(file: BinaryIO, name: str, stack: contextlib.ExitStack) -> BinaryIO:
    copy = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    shutil.copyfileobj(file, copy)
    copy.flush()
    if copy.tell() == 0:
        raise InvalidVideoError(f"{name} is empty; {_READABLE}")
    return copy


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
