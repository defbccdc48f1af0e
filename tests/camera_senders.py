"""Many live senders in one process, for benchmarks: MPEG-TS over UDP, encoded once.

    python -m tests.camera_senders 640 360 15 PORT...

Each thread sends the packets of a short film again and again, with timestamps that go on. That
costs a hundredth of encoding, and leaves the processor to what is measured.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import av.video.stream
import numpy as np

from tests.video_files import moving_pictures

_HOST = "127.0.0.1"
_SECONDS = 4  # of the film
_GARBAGE_SECONDS = 3.0


def free_ports(count: int) -> list[int]:
    """UDP ports that nobody uses at the moment."""
    with contextlib.ExitStack() as stack:
        probes = [
            stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            for _ in range(count)
        ]
        for probe in probes:
            probe.bind((_HOST, 0))
        return [probe.getsockname()[1] for probe in probes]


def urls_of(ports: list[int]) -> list[str]:
    """The addresses at which a reader finds the senders."""
    return [f"udp://{_HOST}:{port}" for port in ports]


@contextlib.contextmanager
def senders(
    width: int, height: int, rate: int, ports: list[int], *options: str
) -> Iterator[subprocess.Popen[str]]:
    """Runs the senders in a process of their own; waits until they have begun."""
    numbers = map(str, (width, height, rate, *ports))
    with subprocess.Popen(
        [sys.executable, "-m", "tests.camera_senders", *options, *numbers],
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "sending\n"
            yield process
        finally:
            process.kill()


def encoded(width: int, height: int, rate: int) -> list[tuple[bytes, bool]]:
    """A film as H.264 packets, each with True for a key frame."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, rate), Fraction(rate)
    encoder.options = {"preset": "veryfast", "tune": "zerolatency", "g": str(rate)}
    pictures = moving_pictures(rate * _SECONDS, height, width)
    frames = [av.VideoFrame.from_ndarray(picture, format="rgb24") for picture in pictures]
    packets = []
    for number, frame in enumerate([*frames, None]):
        if frame is not None:
            frame.pts = number
        packets += [(bytes(packet), packet.is_keyframe) for packet in encoder.encode(frame)]
    return packets


def send(
    port: int, size: tuple[int, int], rate: int, film: list[tuple[bytes, bool]], until: float
) -> None:
    """Sends a film again and again, until a moment of ``time.monotonic()``."""
    width, height = size
    url = f"udp://{_HOST}:{port}?pkt_size=1316"
    with av.open(url, "w", format="mpegts") as output:
        stream = output.add_stream("libx264", rate=rate)
        assert isinstance(stream, av.video.stream.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        start = time.monotonic() + random.random() / rate
        for number in itertools.count():
            data, is_key = film[number % len(film)]
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, Fraction(1, rate)
            packet.pts = packet.dts = number
            packet.is_keyframe = is_key
            now = time.monotonic()
            if now > until:
                return
            time.sleep(max(0.0, start + number / rate - now))
            output.mux(packet)


def send_badly(port: int, size: tuple[int, int], rate: int, film: list[tuple[bytes, bool]]) -> None:
    """Sends for a while, dies, is silent, sends garbage, and begins again, without end."""
    chance = random.Random(port)
    while True:
        send(port, size, rate, film, time.monotonic() + chance.uniform(3.0, 12.0))
        kind = chance.choice(("dead", "garbage", "again"))
        if kind == "dead":
            time.sleep(chance.uniform(1.0, 8.0))
        elif kind == "garbage":
            _send_garbage(port, time.monotonic() + _GARBAGE_SECONDS, chance)


def _send_garbage(port: int, until: float, chance: random.Random) -> None:
    noise = np.random.default_rng(port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as output:
        while time.monotonic() < until:
            output.sendto(noise.bytes(chance.randint(1, 1316)), (_HOST, port))
            time.sleep(0.01)


def main() -> None:
    arguments = sys.argv[1:]
    is_bad = arguments[0] == "--bad"
    width, height, rate, *ports = map(int, arguments[is_bad:])
    film = encoded(width, height, rate)
    print("sending", flush=True)
    for number, port in enumerate(ports):
        values = (port, (width, height), rate, film)
        # With --bad, each fourth sender is a good one.
        good = not is_bad or number % 4 == 0
        target = send if good else send_badly
        more = (float("inf"),) if good else ()
        threading.Thread(target=target, args=(*values, *more), daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
