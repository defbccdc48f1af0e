"""Live sources on the loopback interface, each in a process of its own.

    python -m tests.live_sources send udp://127.0.0.1:5000   # MPEG-TS, a moving picture
    python -m tests.live_sources send udp://127.0.0.1:5000 720 1280
    python -m tests.live_sources audio udp://127.0.0.1:5000     # after some video only audio
    python -m tests.live_sources garbage udp://127.0.0.1:5000
    python -m tests.live_sources http                        # an endless MPEG-TS for each GET
    python -m tests.live_sources rtsp                        # a server that one can publish to
    python -m tests.live_sources send rtsp://127.0.0.1:PORT/live

A server prints its port, and a sender prints a line when it has begun. A test stalls a source with
SIGSTOP.
"""

from __future__ import annotations

import contextlib
import http.server
import itertools
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import av
import av.audio.stream
import av.video.stream
import numpy as np
import numpy.typing as npt

from tests.video_files import moving_pictures

RATE = 25
PICTURES = moving_pictures(RATE)
_HOST = "127.0.0.1"
_GIVE_UP = 300.0  # seconds after which a source ends that no test has ended


@contextlib.contextmanager
def live_source(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Runs one of the sources in a process, until the context ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.live_sources", *map(str, arguments)],
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def port_of(process: subprocess.Popen[str]) -> int:
    """Waits until a server runs; returns its port."""
    assert process.stdout is not None
    return int(process.stdout.readline())


@contextlib.contextmanager
def sender(url: str, kind: str = "send", *size: int) -> Iterator[subprocess.Popen[str]]:
    """Sends to a URL while the context lasts; enters the context once the sender has begun."""
    with live_source(kind, url, *size) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "sending\n"
        yield process


def free_udp_url() -> str:
    """The address of a UDP port that nobody uses at the moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((_HOST, 0))
        return f"udp://{_HOST}:{probe.getsockname()[1]}"


def send(
    target: str | IO[bytes],
    *,
    format: str = "mpegts",  # noqa: A002
    pictures: npt.NDArray[np.uint8] = PICTURES,
    announce: bool = False,
) -> None:
    """Sends frames uint8 [T, H, W, 3] again and again, ``RATE`` of them a second."""
    options = {"rtsp_transport": "tcp"} if format == "rtsp" else {}
    with av.open(target, "w", format=format, options=options) as output:
        stream = output.add_stream(
            "libx264", rate=RATE, options={"preset": "ultrafast", "tune": "zerolatency", "g": "10"}
        )
        assert isinstance(stream, av.video.stream.VideoStream)
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = "yuv420p"
        start = time.monotonic()
        for number in itertools.count():
            frame = av.VideoFrame.from_ndarray(pictures[number % len(pictures)], format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            output.mux(stream.encode(frame))
            if number == 0 and announce:
                print("sending", flush=True)
            now = time.monotonic()
            if now > start + _GIVE_UP:
                return
            time.sleep(max(0.0, start + number / RATE - now))


def _send_audio_without_video(url: str) -> None:
    """Sends video and audio for three seconds, and then only audio."""
    at_once = {"max_interleave_delta": "1"}  # microseconds to wait for the other stream
    with av.open(url, "w", format="mpegts", options=at_once) as output:
        video = output.add_stream("mpeg2video", rate=RATE)
        assert isinstance(video, av.video.stream.VideoStream)
        video.height, video.width = PICTURES.shape[1:3]
        video.pix_fmt = "yuv420p"
        audio = output.add_stream("mp2", rate=48000)
        assert isinstance(audio, av.audio.stream.AudioStream)
        samples = audio.codec_context.frame_size or 1152
        start, pictures = time.monotonic(), 0
        for number in itertools.count():
            seconds = number * samples / 48000
            tone = np.zeros((1, 2 * samples), dtype=np.int16)
            sound = av.AudioFrame.from_ndarray(tone, format="s16", layout="stereo")
            sound.pts, sound.sample_rate = number * samples, 48000
            output.mux(audio.encode(sound))
            if seconds < 3.0 and pictures <= seconds * RATE:
                picture = av.VideoFrame.from_ndarray(PICTURES[pictures % RATE], format="rgb24")
                picture.pts, picture.time_base = pictures, Fraction(1, RATE)
                output.mux(video.encode(picture))
                pictures += 1
            if number == 0:
                print("sending", flush=True)
            if seconds > _GIVE_UP:
                return
            time.sleep(max(0.0, start + seconds - time.monotonic()))


def _send_garbage(url: str) -> None:
    address = urlsplit(url)
    start = time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as output:
        print("sending", flush=True)
        while time.monotonic() < start + _GIVE_UP:
            output.sendto(os.urandom(1316), (address.hostname, address.port))
            time.sleep(0.005)


class _Endless(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "video/mp2t")
        self.end_headers()
        with contextlib.suppress(OSError):  # the client went away
            send(_Unseekable(self.wfile))  # type: ignore[arg-type]

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


class _Unseekable:
    """A file that has only ``write``, so that PyAV does not seek in it."""

    def __init__(self, file: Any) -> None:
        self.write = file.write


class _RtspHandler(socketserver.StreamRequestHandler):
    """One connection to the RTSP server: of a publisher or of a player, over TCP only."""

    server: RtspServer

    def handle(self) -> None:
        try:
            while first := self.rfile.read(1):
                if first == b"$":
                    header = self.rfile.read(3)
                    body = self.rfile.read(int.from_bytes(header[1:], "big"))
                    self.server.relay(first + header + body)
                elif not self._answer(first + self.rfile.readline()):
                    return
        except OSError:
            pass
        finally:
            self.server.left(self)

    def send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self.wfile.write(data)

    def _answer(self, request_line: bytes) -> bool:
        """Reads a request and answers it; returns False where the request ends the connection."""
        method, url = request_line.decode().split()[:2]
        headers: dict[str, str] = {}
        while line := self.rfile.readline().decode().strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = self.rfile.read(int(headers.get("content-length", 0)))
        answer = {"CSeq": headers["cseq"], "Session": "1"}
        description, status = b"", "200 OK"
        if method == "OPTIONS":
            answer["Public"] = "DESCRIBE, ANNOUNCE, SETUP, PLAY, RECORD, TEARDOWN, GET_PARAMETER"
        elif method == "ANNOUNCE":
            self.server.publish(self, body)
        elif method == "DESCRIBE":
            description = self.server.description
            status = status if description else "404 Not Found"
            answer |= {"Content-Base": f"{url}/", "Content-Type": "application/sdp"}
        elif method == "SETUP":
            answer["Transport"] = headers["transport"]
            if "TCP" not in headers["transport"]:
                status = "461 Unsupported Transport"
        answer["Content-Length"] = str(len(description))
        lines = [f"RTSP/1.0 {status}", *(f"{name}: {value}" for name, value in answer.items())]
        self.send("\r\n".join([*lines, "", ""]).encode() + description)
        if method == "PLAY":
            self.server.players.add(self)
        return method != "TEARDOWN"


class RtspServer(socketserver.ThreadingTCPServer):
    """Passes the packets of one publisher to all players; disconnects them when it leaves."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__((_HOST, 0), _RtspHandler)
        self.description = b""
        self.players: set[_RtspHandler] = set()
        self._publisher: _RtspHandler | None = None

    def publish(self, connection: _RtspHandler, description: bytes) -> None:
        self._publisher, self.description = connection, description

    def relay(self, packet: bytes) -> None:
        for player in list(self.players):
            player.send(packet)

    def left(self, connection: _RtspHandler) -> None:
        self.players.discard(connection)
        if connection is self._publisher:
            self._publisher, self.description = None, b""
            for player in list(self.players):
                with contextlib.suppress(OSError):
                    player.connection.shutdown(socket.SHUT_RDWR)


def _serve(server: socketserver.TCPServer) -> None:
    print(server.server_address[1], flush=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    time.sleep(_GIVE_UP)


def main() -> None:
    kind, url, height, width = [*sys.argv[1:], "", "", ""][:4]
    if kind == "send":
        form = "rtsp" if url.startswith("rtsp") else "mpegts"
        pictures = moving_pictures(RATE, int(height), int(width)) if width else PICTURES
        send(url, format=form, pictures=pictures, announce=True)
    elif kind == "audio":
        _send_audio_without_video(url)
    elif kind == "garbage":
        _send_garbage(url)
    elif kind == "http":
        _serve(http.server.ThreadingHTTPServer((_HOST, 0), _Endless))
    elif kind == "rtsp":
        _serve(RtspServer())


if __name__ == "__main__":
    main()
