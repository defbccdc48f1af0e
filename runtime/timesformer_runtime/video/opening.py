"""Opens a container, and again with safer FFmpeg options where its first bytes call for them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import av
import av.container

from timesformer_runtime.errors import InvalidVideoError
from timesformer_runtime.video.file import SeekableFile, VideoFile
from timesformer_runtime.video.file_objects import Callbacks
from timesformer_runtime.video.guard.mp4_boxes import find_tables
from timesformer_runtime.video.guard.units import (
    MOST_UNITS,
    CountedFile,
    has_units,
    is_av1,
    splits_as_read,
)
from timesformer_runtime.video.pictures import HEAD, what_it_is

READABLE = "give a video file, for example MP4, MKV, WebM, AVI, MPEG-TS, FLV or GIF"
InputContainer = av.container.InputContainer
# Titles are not always UTF-8, and nobody reads them. PyAV takes them as they are from version 19
# on, and then has no such option.
ANY_METADATA: dict[str, Any] = (
    {"metadata_errors": "replace"} if hasattr(InputContainer, "metadata_errors") else {}
)
_Options = dict[str, str]

# Containers that hold their pictures themselves: no playlists, no lists of other files.
_FORMATS = "avi,mpegts,mpeg,mpegvideo,ogg,gif,asf,ivf,h264,hevc"
# Those that tell all there is to know of a packet. For the others FFmpeg's parsers complete it,
# which take 3 KB for each unit of AV1, and a kilobyte for each of HEVC.
_TELLING_FORMATS = "mov,matroska,flv"
_UNPARSED: _Options = {"fflags": "noparse"}
# For files of very many small pictures: FFmpeg looks at few bytes, and not at the end.
_SHORT_PROBE: _Options = {"probesize": str(1 << 15), "skip_estimate_duration_from_pts": "1"}


def open_container(
    video_file: VideoFile, target: SeekableFile
) -> tuple[InputContainer, CountedFile]:
    """Opens what a video is read from; also gives what counts the units in its packets.

    Raises:
        InvalidVideoError: It is not a video.
        VideoLimitError: It has far too many units in a picture, or the time is over.
    """
    formats = _TELLING_FORMATS
    try:
        container, file = _Opening(video_file, target, formats, is_parsed=False).within_units()
        is_complete = not _lacks_times(container)
    except _OtherFormatError:
        formats = _FORMATS
        with contextlib.suppress(_NamesAv1Error):
            return _Opening(video_file, target, formats, ends_at_av1=True).within_units()
        container, file = _Opening(video_file, target, formats, is_parsed=False).within_units()
        is_complete = False
    if is_complete or _is_dangerous(container):
        return container, file
    container.close()
    return _Opening(video_file, target, formats).within_units()


class _OtherFormatError(Exception):
    """Its format is none of those that were allowed, as far as FFmpeg says."""


class _NamesAv1Error(Exception):
    """It may have AV1."""


class _Opening:
    def __init__(
        self,
        video_file: VideoFile,
        target: SeekableFile,
        formats: str,
        *,
        is_parsed: bool = True,
        ends_at_av1: bool = False,
    ) -> None:
        self._video_file = video_file
        self._target = target
        self._formats = formats
        self._is_parsed = is_parsed
        self._ends_at_av1 = ends_at_av1

    def within_units(self) -> tuple[InputContainer, CountedFile]:
        """Opens it again where it has many units, or what looks like them, at its beginning."""
        file = self._file()
        try:
            container = self._open(file)
        except InvalidVideoError:
            if not file.is_over:
                raise
            file = self._file(find_tables(self._video_file))  # long ones look like units
            container = self._open(file)
        if file.is_over:
            is_suspicious = bool(_with_units(container))
            container.close()
            file = self._file(find_tables(self._video_file))
            if not is_suspicious:
                file.stop_counting()
            container = self._open(file, _SHORT_PROBE if is_suspicious else {})
        if file.is_over:
            container.close()
            self._video_file.watch.check_units(MOST_UNITS + 1, MOST_UNITS)
        file.end_opening()
        splits = any(splits_as_read(context) for context in _with_units(container))
        if not (splits and self._is_parsed):
            file.stop_counting()
        return container, file

    def _file(self, tables: range = range(0)) -> CountedFile:
        self._target.seek(0)
        name = self._video_file.target if isinstance(self._video_file.target, str) else ""
        return CountedFile(
            self._target, self._video_file.watch, name, tables, ends_at_av1=self._ends_at_av1
        )

    def _open(self, file: CountedFile, more: _Options | None = None) -> InputContainer:
        options = {"protocol_whitelist": "file", "format_whitelist": self._formats, **(more or {})}
        if not self._is_parsed:
            options |= _UNPARSED
        try:
            container: InputContainer = av.open(
                Callbacks(file),
                mode="r",
                container_options=options,
                timeout=self._video_file.watch.seconds_left(),
                **ANY_METADATA,
            )
        except (av.FFmpegError, OSError) as error:
            file.raise_error()
            if file.names_av1:
                raise _NamesAv1Error from error
            if isinstance(error, av.ArgumentError) and self._formats == _TELLING_FORMATS:
                raise _OtherFormatError from error
            self._video_file.watch.seconds_left()
            what = what_it_is(self._video_file.first_bytes(HEAD))
            reason = f": {what}" if what else f" ({error.strerror or error}); {READABLE}"
            raise InvalidVideoError(
                f"{self._video_file.name} cannot be opened as a video{reason}"
            ) from error
        if file.error is not None or file.names_av1:
            container.close()
            file.raise_error()
            raise _NamesAv1Error
        return container


def _lacks_times(container: InputContainer) -> bool:
    """Whether packets are as in an AVI file, named by its codes: only a parser gives them times."""
    is_matroska = container.format.name.startswith("matroska")
    return is_matroska and any(context.codec_tag.strip("\0") for context in _contexts(container))


def _is_dangerous(container: InputContainer) -> bool:
    """Whether a parser would take kilobytes for each unit of a packet."""
    return any(is_av1(context) or splits_as_read(context) for context in _contexts(container))


def _with_units(container: InputContainer) -> list[av.CodecContext]:
    return [context for context in _contexts(container) if has_units(context)]


def _contexts(container: InputContainer) -> Iterator[av.CodecContext]:
    """The codec contexts of the streams that can be decoded."""
    contexts = (stream.codec_context for stream in container.streams)
    return (context for context in contexts if context is not None)
