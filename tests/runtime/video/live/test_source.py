"""Tests LiveSource with senders and servers in other processes."""

from __future__ import annotations

import contextlib
import errno
import functools
import http.server
import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from timesformer_runtime.errors import (
    InvalidVideoError,
    SourceLostError,
    VideoLimitError,
)
from timesformer_runtime.video.live.address import live_address
from timesformer_runtime.video.live.source import LiveFrame, LiveSource

from tests.live_sources import PICTURES, RATE, free_udp_url, live_source, port_of, sender
from tests.patience import PATIENCE
from tests.video_files import to_rgb, write_video

SHORT = 2.0  # seconds without a frame, where that is what is tested


class Reader:
    """A live source, and the sentences with which it called ``notify``."""

    def __init__(
        self,
        url: str,
        *,
        timeout: float = PATIENCE,
        reconnect: int = 0,
        format: str | None = None,  # noqa: A002
    ) -> None:
        self.said: list[str] = []
        self.stopped = threading.Event()
        source = LiveSource(
            live_address(url, format=format),
            timeout=timeout,
            reconnect=reconnect,
            notify=self.said.append,
        )
        self.frames: Iterator[LiveFrame] = source.frames(self.stopped)

    def take(self, count: int) -> list[LiveFrame]:
        return list(itertools.islice(self.frames, count))

    def take_of_connection(self, number: int) -> LiveFrame:
        return next(frame for frame in self.frames if frame.connection.number == number)


def number_of(frame: npt.NDArray[np.uint8]) -> int:
    """Tells which of the sender's frames this is; it may differ by the compression only."""
    distances = np.abs(PICTURES.astype(int) - frame.astype(int)).mean(axis=(1, 2, 3))
    number = int(distances.argmin())
    assert distances[number] < 12
    assert np.partition(distances, 1)[1] > 2 * distances[number]
    return number


def assert_all_frames(frames: list[LiveFrame]) -> None:
    """Asserts that no frame is missing, repeated or damaged, and that the times are right."""
    numbers = [number_of(to_rgb(frame.av_frame)) for frame in frames]
    assert numbers == [(numbers[0] + n) % len(PICTURES) for n in range(len(frames))]
    assert [frame.number for frame in frames] == list(range(len(frames)))
    times = [frame.seconds for frame in frames]
    assert times[0] == 0
    # The first frame of RTSP has no timestamp: the time that passed counts instead.
    assert 0 <= times[1] < PATIENCE
    assert np.diff(times[1:]) == pytest.approx(1 / RATE, abs=0.003)
    arrivals = [frame.arrived for frame in frames]
    assert arrivals == sorted(arrivals)
    assert arrivals[-1] <= time.monotonic()
    assert {frame.connection.rate for frame in frames} == {RATE}


@contextlib.contextmanager
def rtsp_url() -> Iterator[str]:
    with live_source("rtsp") as server:
        yield f"rtsp://127.0.0.1:{port_of(server)}/live"


def test_a_udp_sender() -> None:
    url = free_udp_url()
    with sender(url):
        assert_all_frames(Reader(url).take(40))


def test_an_http_server() -> None:
    with live_source("http") as server:
        url = f"http://127.0.0.1:{port_of(server)}/live.ts"
        assert_all_frames(Reader(url).take(40))


def test_an_rtsp_publisher() -> None:
    with rtsp_url() as url, sender(url):
        assert_all_frames(Reader(url).take(40))


@contextlib.contextmanager
def web_server(folder: Path) -> Iterator[str]:
    """Serves the files of a folder, and gives the address."""
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """A server of a recording, and of playlists that name it and a file beside it."""
    write_video(tmp_path / "clip.ts", PICTURES, container="mpegts")
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
    (tmp_path / "list.m3u8").write_text(playlist.format("clip.ts"))
    (tmp_path / "local.m3u8").write_text(playlist.format(f"file://{tmp_path}/clip.ts"))
    with web_server(tmp_path) as url:
        yield url


def test_a_recording_comes_in_full_to_its_last_frame(served: str) -> None:
    frames = Reader(f"{served}/clip.ts").take(100)
    assert len(frames) == len(PICTURES)
    assert_all_frames(frames)


def test_a_playlist_is_followed_only_when_asked_for_and_never_to_files(served: str) -> None:
    with pytest.raises(InvalidVideoError, match=r"/list.m3u8 cannot be read"):
        Reader(f"{served}/list.m3u8").take(1)
    assert len(Reader(f"{served}/list.m3u8", format="hls").take(100)) == len(PICTURES)
    with pytest.raises(InvalidVideoError, match=r"/local.m3u8 cannot be read"):
        Reader(f"{served}/local.m3u8", format="hls").take(1)


def test_a_publisher_that_dies_and_comes_back() -> None:
    with rtsp_url() as url:
        with sender(url):
            reader = Reader(url, reconnect=50)
            before = reader.take(10)[-1]
        with sender(url):
            after = reader.take_of_connection(1)
    assert after.seconds > before.seconds
    assert after.number > before.number
    assert "(it ended); connecting again in 0.5 s (1 of 50)" in reader.said[0]
    assert reader.said[-1] == f"{url}: connected again"


def test_a_sender_that_comes_back_before_anyone_noticed() -> None:
    url = free_udp_url()
    reader = Reader(url)
    with sender(url):
        before = reader.take(10)[-1]
    with sender(url):  # its timestamps begin again
        following = reader.take(60)
    times = [before.seconds, *(frame.seconds for frame in following)]
    assert times == sorted(times)
    assert reader.said == []
    assert {frame.connection.number for frame in following} == {0}


def test_a_sender_that_stalls_is_noticed() -> None:
    url = free_udp_url()
    with sender(url) as process:
        reader = Reader(url, timeout=SHORT)
        reader.take(10)
        process.send_signal(signal.SIGSTOP)
        stalled = time.monotonic()
        list(_until_lost(reader, f"{url} was lost: no video came for 2 s"))
    assert SHORT - 0.1 < time.monotonic() - stalled < PATIENCE


def test_video_that_stalls_while_audio_goes_on_is_noticed() -> None:
    url = free_udp_url()
    with sender(url, "audio"):
        reader = Reader(url, timeout=SHORT)
        reader.take(5)
        list(_until_lost(reader, f"{url} was lost: no (video came|frame) for 2 s"))


def test_a_stalled_server_that_goes_on() -> None:
    with live_source("http") as server:
        reader = Reader(f"http://127.0.0.1:{port_of(server)}/", timeout=SHORT, reconnect=50)
        reader.take(10)
        server.send_signal(signal.SIGSTOP)
        timer = threading.Timer(2 * SHORT, server.send_signal, [signal.SIGCONT])
        timer.start()
        reader.take_of_connection(1)
        timer.join()
    assert "lost (no video came for 2 s)" in reader.said[0]
    assert "connected again" in reader.said[-1]


def test_garbage_is_not_a_video() -> None:
    url = free_udp_url()
    # No video came in time, or FFmpeg took it for some format and says why it is none.
    with sender(url, "garbage"), pytest.raises(InvalidVideoError, match=f"{url} cannot be read: "):
        Reader(url, timeout=SHORT, reconnect=50).take(1)


def test_garbage_after_video_is_a_loss() -> None:
    url = free_udp_url()
    reader = Reader(url, timeout=SHORT, reconnect=1)
    with sender(url):
        reader.take(10)
    with sender(url, "garbage"):
        list(_until_lost(reader, r"was lost: .*; connecting again failed 1 times"))
    assert len(reader.said) == 1


def test_nobody_there_is_an_error_at_once() -> None:
    with live_source("http") as server:
        url = f"http://127.0.0.1:{port_of(server)}/"
    start = time.monotonic()
    with pytest.raises(
        InvalidVideoError, match=f"{url} cannot be read: {os.strerror(errno.ECONNREFUSED)}"
    ):
        Reader(url, reconnect=50).take(1)
    assert time.monotonic() - start < PATIENCE


def test_an_rtsp_server_without_that_stream() -> None:
    with (
        rtsp_url() as url,
        pytest.raises(InvalidVideoError, match=r"rtsp://\S+ cannot be read: .*\b404\b"),
    ):
        Reader(url).take(1)


def test_rtsp_over_udp_where_the_server_has_only_tcp() -> None:
    with rtsp_url() as url, sender(url):
        address = live_address(url, rtsp_transport="udp")
        source = LiveSource(address, timeout=PATIENCE, reconnect=0, notify=print)
        with pytest.raises(InvalidVideoError, match=os.strerror(errno.EPROTONOSUPPORT)):
            next(source.frames(threading.Event()))


def test_frames_beyond_the_limit_are_refused() -> None:
    with live_source("http") as server:
        address = live_address(f"http://127.0.0.1:{port_of(server)}/")
        source = LiveSource(
            address, timeout=PATIENCE, reconnect=0, notify=print, max_pixels=64 * 48 - 1
        )
        with pytest.raises(VideoLimitError, match="64x48 pixels"):
            next(source.frames(threading.Event()))


def test_stopping_ends_the_frames() -> None:
    url = free_udp_url()
    with sender(url):
        reader = Reader(url, reconnect=50)
        reader.take(5)
        reader.stopped.set()
        assert len(reader.take(100)) <= 1
    assert reader.said == []


def test_stopping_ends_the_wait_for_the_next_attempt() -> None:
    with rtsp_url() as url:
        with sender(url):
            reader = Reader(url, reconnect=50)
            reader.take(5)
        timer = threading.Timer(2.0, reader.stopped.set)
        timer.start()
        reader.take(10_000)
        timer.join()
    assert "lost" in reader.said[-1]


def _until_lost(reader: Reader, message: str) -> Iterator[LiveFrame]:
    with pytest.raises(SourceLostError, match=message):
        yield from reader.frames


class _Impatient(threading.Event):
    """Does not wait, and is set after so many waits."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.delays: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.delays.append(timeout or 0.0)
        if len(self.delays) == self.most:
            self.set()
        return self.is_set()


def test_attempts_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera that is away for weeks costs one sentence, and an attempt each half minute."""
    said: list[str] = []
    source = LiveSource(
        live_address("udp://127.0.0.1:9"), timeout=SHORT, reconnect=None, notify=said.append
    )

    def refuse(_: threading.Event) -> Iterator[LiveFrame]:
        raise InvalidVideoError("not a video")

    monkeypatch.setattr(source, "_frames_of_connection", refuse)
    stopped = _Impatient(1200)
    assert list(source.frames(stopped)) == []
    assert stopped.delays[:4] == [0.5, 1.0, 2.0, 4.0]
    assert set(stopped.delays[6:]) == {30.0}
    assert said == [
        "udp://127.0.0.1:9: not there yet (not a video); connecting again until it answers"
    ]
