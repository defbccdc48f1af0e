"""Opens a container, once more where its beginning shows what FFmpeg has to be told before."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import av
import av.container

from timesformer_runtime.errors import InvalidVideoError
from timesformer_runtime.video.mp4_boxes import find_tables
from timesformer_runtime.video.units import (
    MOST_UNITS,
    CountedFile,
    SeekableFile,
    has_units,
    is_av1,
    splits_as_read,
)

if TYPE_CHECKING:
    from timesformer_runtime.video.container import Media

READABLE = "give a video file, for example MP4, MKV, WebM, AVI, MPEG-TS, FLV or GIF"
InputContainer = av.container.InputContainer
_Options = dict[str, str]

# Containers that hold their pictures themselves: no playlists, no lists of other files.
_SAFE: _Options = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,matroska,avi,mpegts,mpeg,mpegvideo,ogg,flv,gif,asf,ivf,h264,hevc",
}
# FFmpeg's parsers complete what a container does not tell. They take 3 KB for each unit of AV1.
_UNPARSED: _Options = {"fflags": "noparse"}
# For files of very many small pictures: FFmpeg looks at few bytes, and not at the end.
_SHORT_PROBE: _Options = {"probesize": str(1 << 15), "skip_estimate_duration_from_pts": "1"}


def open_container(media: Media, target: SeekableFile) -> tuple[InputContainer, CountedFile]:
    """Opens what a video is read from; also gives what counts the units in its packets.

    Raises:
        InvalidVideoError: It is not a video.
        VideoLimitError: It has far too many units in a picture, or the time is over.
    """
    with contextlib.suppress(_NamesAv1Error):
        container, file = _Opening(media, target, {}, ends_at_av1=True).within_units()
        if not _may_begin_later(container):
            return container, file
        container.close()
    container, file = _Opening(media, target, _UNPARSED).within_units()
    if _has_av1(container) or _may_begin_later(container):
        return container, file
    container.close()
    return _Opening(media, target, {}).within_units()


class _NamesAv1Error(Exception):
    """It may have AV1."""


class _Opening:
    def __init__(
        self, media: Media, target: SeekableFile, options: _Options, *, ends_at_av1: bool = False
    ) -> None:
        self._media = media
        self._target = target
        self._options = options
        self._ends_at_av1 = ends_at_av1

    def within_units(self) -> tuple[InputContainer, CountedFile]:
        """Opens it again where it has many units, or what looks like them, at its beginning."""
        file = self._file()
        try:
            container = self._open(file)
        except InvalidVideoError:
            if not file.is_over:
                raise
            file = self._file(find_tables(self._media))  # long ones look like units
            container = self._open(file)
        if file.is_over:
            is_suspicious = bool(_with_units(container))
            container.close()
            file = self._file(find_tables(self._media))
            if not is_suspicious:
                file.stop_counting()
            container = self._open(file, _SHORT_PROBE if is_suspicious else {})
        if file.is_over:
            container.close()
            self._media.watch.check_units(MOST_UNITS + 1, MOST_UNITS)
        file.end_opening()
        if not any(splits_as_read(context) for context in _with_units(container)):
            file.stop_counting()
        return container, file

    def _file(self, tables: range = range(0)) -> CountedFile:
        self._target.seek(0)
        name = self._media.target if isinstance(self._media.target, str) else ""
        return CountedFile(
            self._target, self._media.watch, name, tables, ends_at_av1=self._ends_at_av1
        )

    def _open(self, file: CountedFile, more: _Options | None = None) -> InputContainer:
        try:
            container = av.open(
                file,
                mode="r",
                container_options={**_SAFE, **self._options, **(more or {})},
                metadata_errors="replace",  # titles are not always UTF-8, and nobody reads them
                timeout=self._media.watch.seconds_left(),
            )
        except (av.FFmpegError, OSError) as error:
            if file.names_av1:
                raise _NamesAv1Error from error
            self._media.watch.seconds_left()
            reason = error.strerror or error
            raise InvalidVideoError(
                f"{self._media.name} cannot be opened as a video ({reason}); {READABLE}"
            ) from error
        if file.names_av1:
            container.close()
            raise _NamesAv1Error
        return container


def _has_av1(container: InputContainer) -> bool:
    return any(is_av1(stream.codec_context) for stream in container.streams)


def _may_begin_later(container: InputContainer) -> bool:
    """Whether a stream of AV1 may begin anywhere; FLV tells all that its parser would."""
    return container.format.name == "flv"


def _with_units(container: InputContainer) -> list[av.CodecContext]:
    contexts = [stream.codec_context for stream in container.streams]
    return [context for context in contexts if has_units(context)]
