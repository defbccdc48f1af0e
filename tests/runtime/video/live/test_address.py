"""Tests that a live address allows only what it needs, and that errors are clear."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from timesformer_runtime.errors import InvalidOptionError, InvalidVideoError
from timesformer_runtime.video.live.address import is_url, live_address


@pytest.mark.parametrize(
    ("url", "protocols"),
    [
        ("rtsp://camera/live", {"rtsp", "rtp", "udp", "tcp"}),
        ("udp://127.0.0.1:5000", {"udp"}),
        ("tcp://127.0.0.1:5000", {"tcp"}),
        ("http://host/live.ts", {"http", "https", "httpproxy", "tcp", "tls", "crypto"}),
    ],
)
def test_a_scheme_allows_its_own_protocols_only(url: str, protocols: set[str]) -> None:
    address = live_address(url)
    assert set(address.options["protocol_whitelist"].split(",")) == protocols
    assert "hls" not in address.options["format_whitelist"].split(",")
    assert address.target == url
    assert address.format is None


def test_a_format_that_was_asked_for_is_allowed() -> None:
    playlist = live_address("https://host/live.m3u8", format="hls")
    assert playlist.format == "hls"
    assert {"hls", "mpegts"} <= set(playlist.options["format_whitelist"].split(","))
    assert "file" not in playlist.options["protocol_whitelist"].split(",")
    camera = live_address(Path("/dev/video0"), format="v4l2")
    assert (camera.target, camera.format) == ("/dev/video0", "v4l2")


def test_rtsp_goes_over_tcp_unless_asked_otherwise() -> None:
    assert live_address("rtsp://camera/live").options["rtsp_transport"] == "tcp"
    udp = live_address("RTSP://camera/Live", rtsp_transport="udp")
    assert udp.options["rtsp_transport"] == "udp"
    assert udp.target == "rtsp://camera/Live"


@pytest.mark.parametrize(
    ("source", "options", "error", "message"),
    [
        ("clip.mp4", {}, InvalidVideoError, "clip.mp4 is not a URL"),
        ("concat:a|b", {}, InvalidVideoError, "concat:a|b is not a URL"),
        ("file:///etc/passwd", {}, InvalidVideoError, "file:///etc/passwd is not a URL that"),
        ("subfile,,start,0,end,9,,://x", {}, InvalidVideoError, "is not a URL"),
        ("udp://", {}, InvalidVideoError, "udp:// is not a URL that"),
        ("udp://h:1", {"format": "v4l3"}, InvalidOptionError, "'v4l3'; it must be the name"),
        ("udp://h:1", {"rtsp_transport": "tcp"}, InvalidOptionError, "this is not an RTSP address"),
        ("rtsp://h/1", {"rtsp_transport": "http"}, InvalidOptionError, "one of tcp, udp"),
    ],
)
def test_bad_addresses_are_refused(
    source: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message.replace("|", r"\|")):
        live_address(source, **options)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("rtsp://admin:secret@camera/live", "rtsp://***@camera/live"),
        ("rtsp://admin:se@cret@camera/live", "rtsp://***@camera/live"),
        ("rtsp://token@camera:554/live", "rtsp://***@camera:554/live"),
        ("http://host:80/live", "http://host:80/live"),
    ],
)
def test_messages_hide_the_password(url: str, name: str) -> None:
    assert live_address(url).name == name


def test_refusals_hide_the_password() -> None:
    with pytest.raises(InvalidVideoError) as caught:
        live_address("ftp://admin:secret@host/clip.mp4")
    assert "secret" not in str(caught.value)


def test_blanks_around_a_url_are_left_out() -> None:
    assert live_address("\t rtsp://camera/live \n").target == "rtsp://camera/live"


def test_is_url() -> None:
    assert is_url("udp://127.0.0.1:5000")
    assert is_url(" udp://127.0.0.1:5000\n")
    assert not is_url("clip.mp4")
    assert not is_url(Path("udp://127.0.0.1:5000"))
