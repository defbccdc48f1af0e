"""Opens a container; opens it again with safer FFmpeg options if its first bytes need them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from timesformer_runtime.errors import InvalidVideoError
from timesformer_runtime.video.file import SeekableFile, VideoFile
from timesformer_runtime.video.file_objects import Callbacks
from timesformer_runtime.video.guard.mp4_boxes import find_sample_tables
from timesformer_runtime.video.guard.nal_units import (
    MAX_NAL_UNITS,
    GuardedFile,
    has_nal_units,
    is_av1,
    parser_splits_packets,
)
from timesformer_runtime.video.not_a_video import HEAD_BYTES, describe_other_file
from timesformer_runtime.video.pyav import av

GIVE_A_VIDEO = "give a video file, for example MP4, MKV, WebM, AVI, MPEG-TS, FLV or GIF"
InputContainer = av.container.InputContainer
# Titles are not always UTF-8, and nobody reads them. PyAV 19 and later accept any bytes, and no
# longer have this option.
ANY_METADATA: dict[str, Any] = (
    {"metadata_errors": "replace"} if hasattr(InputContainer, "metadata_errors") else {}
)
_Options = dict[str, str]

# Containers that hold their frames themselves: no playlists, no lists of other files. Their packets
# lack facts, such as timestamps, which FFmpeg's parsers have to find. A parser takes 3 KB for each
# OBU of AV1, and 1 KB for each NAL unit of HEVC.
_INCOMPLETE_FORMATS = "avi,mpegts,mpeg,mpegvideo,ogg,gif,asf,ivf,h264,hevc"
# Containers that tell everything about a packet, so that FFmpeg needs no parser.
_COMPLETE_FORMATS = "mov,matroska,flv"
_WITHOUT_PARSER: _Options = {"fflags": "noparse"}
# For files of very many small frames: FFmpeg probes few bytes, and does not read the file's end.
_SHORT_PROBE: _Options = {"probesize": str(1 << 15), "skip_estimate_duration_from_pts": "1"}


def open_container(
    video_file: VideoFile, target: SeekableFile
) -> tuple[InputContainer, GuardedFile]:
    """Opens the container of a video.

    Args:
        video_file: The video.
        target: The open file object of the video.

    Returns:
        The container, and the guarded file object from which it reads.

    Raises:
        InvalidVideoError: The file is not a video.
        VideoLimitError: A frame has far too many NAL units, or the time is over.
    """
    formats = _COMPLETE_FORMATS
    try:
        container, file = _Opening(
            video_file, target, formats, uses_parser=False
        ).open_within_limit()
        is_complete = not _lacks_timestamps(container)
    except _OtherFormatError:
        formats = _INCOMPLETE_FORMATS
        with contextlib.suppress(_MentionsAv1Error):
            return _Opening(video_file, target, formats, stops_at_av1=True).open_within_limit()
        container, file = _Opening(
            video_file, target, formats, uses_parser=False
        ).open_within_limit()
        is_complete = False
    if is_complete or _has_costly_parser(container):
        return container, file
    container.close()
    return _Opening(video_file, target, formats).open_within_limit()


class _OtherFormatError(Exception):
    """FFmpeg says that the file does not have one of the allowed formats."""


class _MentionsAv1Error(Exception):
    """The file mentions AV1, so it may contain an AV1 stream."""


class _Opening:
    """One way to open a video, which may take several attempts.

    Args:
        video_file: The video.
        target: The open file object of the video.
        formats: Names of the formats that FFmpeg may find.
        uses_parser: True to let FFmpeg use its parsers.
        stops_at_av1: True to raise ``_MentionsAv1Error`` where the file mentions AV1.
    """

    def __init__(
        self,
        video_file: VideoFile,
        target: SeekableFile,
        formats: str,
        *,
        uses_parser: bool = True,
        stops_at_av1: bool = False,
    ) -> None:
        self._video_file = video_file
        self._target = target
        self._formats = formats
        self._uses_parser = uses_parser
        self._stops_at_av1 = stops_at_av1

    def open_within_limit(self) -> tuple[InputContainer, GuardedFile]:
        """Opens the container; opens it again if it begins with too many start codes."""
        file = self._guarded_file()
        try:
            container = self._open(file)
        except InvalidVideoError:
            if not file.exceeds_limit:
                raise
            # Long tables look like start codes.
            file = self._guarded_file(find_sample_tables(self._video_file))
            container = self._open(file)
        if file.exceeds_limit:
            may_have_nal_units = bool(_nal_unit_codecs(container))
            container.close()
            file = self._guarded_file(find_sample_tables(self._video_file))
            if not may_have_nal_units:
                file.stop_counting()
            container = self._open(file, _SHORT_PROBE if may_have_nal_units else {})
        if file.exceeds_limit:
            container.close()
            self._video_file.watch.check_nal_units(MAX_NAL_UNITS + 1, MAX_NAL_UNITS)
        file.finish_opening()
        parser_splits = any(parser_splits_packets(codec) for codec in _nal_unit_codecs(container))
        if not (parser_splits and self._uses_parser):
            file.stop_counting()
        return container, file

    def _guarded_file(self, tables: range = range(0)) -> GuardedFile:
        self._target.seek(0)
        name = self._video_file.target if isinstance(self._video_file.target, str) else ""
        return GuardedFile(
            self._target, self._video_file.watch, name, tables, stops_at_av1=self._stops_at_av1
        )

    def _open(self, file: GuardedFile, more: _Options | None = None) -> InputContainer:
        """Opens the container once; an error says what the file is in place of a video."""
        options = {"protocol_whitelist": "file", "format_whitelist": self._formats, **(more or {})}
        if not self._uses_parser:
            options |= _WITHOUT_PARSER
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
            if file.mentions_av1:
                raise _MentionsAv1Error from error
            if isinstance(error, av.ArgumentError) and self._formats == _COMPLETE_FORMATS:
                raise _OtherFormatError from error
            self._video_file.watch.check_time()
            description = describe_other_file(self._video_file.first_bytes(HEAD_BYTES))
            details = f" ({error.strerror or error}); {GIVE_A_VIDEO}"
            reason = f": {description}" if description else details
            raise InvalidVideoError(
                f"{self._video_file.name} cannot be opened as a video{reason}"
            ) from error
        if file.error is not None or file.mentions_av1:
            container.close()
            file.raise_error()
            raise _MentionsAv1Error
        return container


def _lacks_timestamps(container: InputContainer) -> bool:
    """True for Matroska with packets as in AVI, whose timestamps only a parser finds."""
    is_matroska = container.format.name.startswith("matroska")
    return is_matroska and any(codec.codec_tag.strip("\0") for codec in _codecs(container))


def _has_costly_parser(container: InputContainer) -> bool:
    """True if a parser would take kilobytes for each NAL unit or OBU of a packet."""
    return any(is_av1(codec) or parser_splits_packets(codec) for codec in _codecs(container))


def _nal_unit_codecs(container: InputContainer) -> list[av.CodecContext]:
    return [codec for codec in _codecs(container) if has_nal_units(codec)]


def _codecs(container: InputContainer) -> Iterator[av.CodecContext]:
    """Gives the codec contexts of the streams that FFmpeg decodes."""
    codecs = (stream.codec_context for stream in container.streams)
    return (codec for codec in codecs if codec is not None)
