"""Reads the address of a live source, and allows FFmpeg only what that address needs."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping

from timesformer_runtime.errors import InvalidOptionError, InvalidVideoError, quoted
from timesformer_runtime.source_names import shown
from timesformer_runtime.video.pyav import av

RTSP_TRANSPORTS = ("tcp", "udp")

_URL = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*)://(.*?)\s*", re.DOTALL)

# Containers that hold their frames themselves; a user who wants a playlist has to name its format.
_CONTAINERS = (
    "mpegts,flv,live_flv,matroska,mov,mpjpeg,mjpeg,mpeg,mpegvideo,ogg,avi,asf,ivf,h264,hevc"
)
_WEB = "http,https,httpproxy,tcp,tls,crypto"

# For each scheme of a URL: the protocols that FFmpeg needs, and the formats that it may find.
_SCHEMES = {
    "rtsp": ("rtsp,rtp,udp,tcp", "rtsp"),
    "rtsps": ("rtsps,rtsp,rtp,srtp,udp,tcp,tls", "rtsp"),
    "rtp": ("rtp,udp", "rtp,sdp"),
    "rtmp": ("rtmp,tcp", _CONTAINERS),
    "rtmps": ("rtmps,rtmp,tls,tcp", _CONTAINERS),
    "udp": ("udp", _CONTAINERS),
    "tcp": ("tcp", _CONTAINERS),
    "tls": ("tls,tcp", _CONTAINERS),
    "http": (_WEB, _CONTAINERS),
    "https": (_WEB, _CONTAINERS),
}
# If this process reads too slowly, FFmpeg drops packets and keeps the connection.
_SCHEME_OPTIONS = {"udp": {"overrun_nonfatal": "1"}}


@dataclasses.dataclass(frozen=True)
class LiveAddress:
    """The address of a live source: a URL or a device.

    Attributes:
        target: The URL or path that FFmpeg opens.
        format: FFmpeg's name of the format; None to let FFmpeg find one that the options allow.
        options: FFmpeg's options; they list the allowed protocols and formats.
    """

    target: str = dataclasses.field(repr=False)  # it may contain a password
    format: str | None
    options: Mapping[str, str]

    @property
    def name(self) -> str:
        """The address for messages, without passwords."""
        return shown(self.target)


def is_url(source: str | os.PathLike[str]) -> bool:
    """True for a URL; False for a path."""
    return isinstance(source, str) and _URL.fullmatch(source) is not None


def live_address(
    source: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002  # FFmpeg's word
    rtsp_transport: str | None = None,
) -> LiveAddress:
    """Reads an address, and allows FFmpeg only the protocols and formats that it needs.

    Args:
        source: A URL; with ``format`` also a device or a path.
        format: FFmpeg's name of a device or format, such as ``v4l2``, ``hls`` or ``mjpeg``.
        rtsp_transport: ``tcp`` (the default) or ``udp``, for RTSP.

    Raises:
        InvalidVideoError: The source is not a URL of a known scheme, and no format is given.
        InvalidOptionError: The format is unknown, or an option does not apply.
    """
    target = os.fsdecode(source)
    _check_format(format)
    match = _URL.fullmatch(target)
    if match is None:
        if format is None:
            raise InvalidVideoError(
                f"{shown(target)} is not a URL; give one, a video file, or a device with its "
                "`format`, such as v4l2"
            )
        scheme, protocols, formats = "", "file", format
    else:
        scheme = match[1].lower()
        if scheme not in _SCHEMES or not match[2]:
            raise InvalidVideoError(
                f"{shown(target)} is not a URL that can be read live; the schemes are "
                f"{', '.join(_SCHEMES)}"
            )
        protocols, formats = _SCHEMES[scheme]
        target = f"{scheme}://{match[2]}"  # FFmpeg knows schemes in lower case only
    options = {
        "protocol_whitelist": protocols,
        # The files that a playlist names are plain containers.
        "format_whitelist": f"{format},{_CONTAINERS}" if format else formats,
        **_SCHEME_OPTIONS.get(scheme, {}),
        **_transport(scheme, rtsp_transport),
    }
    return LiveAddress(target, format, options)


def _check_format(name: str | None) -> None:
    if name is None:
        return
    try:
        readable = av.ContainerFormat(name, "r").is_input
    except (TypeError, ValueError):
        readable = False
    if not readable:
        raise InvalidOptionError(
            f"`format` is {name!r}; it must be the name of an FFmpeg format or device that can be "
            "read here, such as v4l2, hls, mpegts or mjpeg"
        )


def _transport(scheme: str, name: str | None) -> dict[str, str]:
    if scheme in {"rtsp", "rtsps"}:
        if name is not None and name not in RTSP_TRANSPORTS:
            raise InvalidOptionError(
                f"`rtsp_transport` is {quoted(name)}; it must be one of "
                f"{', '.join(RTSP_TRANSPORTS)}"
            )
        return {"rtsp_transport": name or RTSP_TRANSPORTS[0]}
    if name is not None:
        raise InvalidOptionError(
            f"`rtsp_transport` is {name!r}, but this is not an RTSP address; leave it out"
        )
    return {}
