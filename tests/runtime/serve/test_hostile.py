"""Clients that lie, dawdle, leave or attack: one line for each, and the service goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from timesformer_runtime.serve import connections
from uvicorn.server import ServerState

from tests.patience import PATIENCE
from tests.service import ServiceProcess, served
from tests.tiny_graphs import moving_frames, write_video

ACTIVE = "timesformer_requests_active"
LIMIT = 100_000  # bytes of an upload


def head(route: str, *lines: str) -> bytes:
    return "\r\n".join([f"POST {route} HTTP/1.1", "Host: x", *lines, "", ""]).encode()


def status(connection: socket.socket) -> int:
    """Reads the status of an answer, and the rest until the server closes."""
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while b"\r\n" not in answer:
            piece = connection.recv(4096)
            if not piece:
                break
            answer += piece
    return int(answer.split(b" ")[1])


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def strict(folder: Path, uploads: Path) -> Iterator[ServiceProcess]:
    """A service with low limits and few places: 2 workers for 1 thread, none that wait."""
    with served(
        folder / "shots",
        *("--device", "cpu", "--threads", "1", "--queue", "0"),
        *("--max-upload", str(LIMIT), "--upload-time", "2s"),
        environment={"TMPDIR": str(uploads)},
    ) as service:
        yield service


@pytest.fixture(autouse=True)
def is_well_afterwards(strict: ServiceProcess, folder: Path, uploads: Path) -> Iterator[None]:
    """After each test the service answers, has all places free, and keeps no file."""
    yield
    if strict.process.poll() is None:
        strict.wait_for(ACTIVE, 0)
        with strict.client() as client:
            data = (folder / "short.mp4").read_bytes()
            assert client.post("/v1/classify", content=data).status_code == 200
        end = time.monotonic() + PATIENCE
        while any(path.is_file() for path in uploads.rglob("*")):
            assert time.monotonic() < end, list(uploads.rglob("*"))
            time.sleep(0.05)


def test_an_upload_that_is_cut_short(strict: ServiceProcess) -> None:
    for lines in (["Content-Length: 5000"], ["Transfer-Encoding: chunked"]):
        with strict.connect() as connection:
            connection.sendall(head("/v1/classify", *lines) + b"10\r\n0123456789abcdef\r\n")


def test_no_body_at_all(strict: ServiceProcess) -> None:
    for lines in ([], ["Content-Length: 0"]):
        with strict.connect() as connection:
            connection.sendall(head("/v1/classify", *lines))
            assert status(connection) == 400


def test_more_than_the_limit(strict: ServiceProcess) -> None:
    with strict.connect() as connection:  # a claim is refused before a byte comes
        connection.sendall(head("/v1/classify", f"Content-Length: {2 << 30}"))
        assert status(connection) == 413

    def endless() -> Iterator[bytes]:
        for _ in range(LIMIT // 1000 + 2):
            yield b"x" * 1000

    for route in ("/v1/classify", "/v1/timeline", "/v2/models/shots/infer"):
        with strict.client() as client:
            answer = client.post(route, content=endless())
        assert answer.status_code == 413
        assert str(LIMIT) in answer.json()["error"]


@pytest.mark.parametrize("length", ["-1", "x", "1, 2", "9" * 5000])
def test_a_content_length_that_is_not_one(strict: ServiceProcess, length: str) -> None:
    with strict.connect() as connection:
        connection.sendall(head("/v1/classify", f"Content-Length: {length}"))
        assert 400 <= status(connection) < 500


def test_a_huge_header(strict: ServiceProcess) -> None:
    with strict.connect() as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(head("/v1/classify", "X: " + "y" * 1_000_000))
        with contextlib.suppress(ConnectionError):
            assert 400 <= status(connection) < 500


BAD_CHUNK = b"5\r\nhello\r\nzzzz\r\n"


def test_what_is_not_http(strict: ServiceProcess) -> None:
    heads = [b"\x16\x03\x01" * 50, head("/v1/classify", "Transfer-Encoding: chunked") + BAD_CHUNK]
    for sent in heads:
        with strict.connect() as connection:
            connection.sendall(sent)
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
        answer_head, _, body = answer.partition(b"\r\n\r\n")
        assert answer_head.startswith(b"HTTP/1.1 400")
        assert "not valid HTTP" in json.loads(body)["error"]


def test_what_is_not_http_after_the_answer(strict: ServiceProcess) -> None:
    with strict.connect() as connection:
        connection.sendall(head("/v1/classify?no_option=1", "Transfer-Encoding: chunked"))
        assert status(connection) == 400
        with contextlib.suppress(ConnectionError):
            connection.sendall(BAD_CHUNK)
            while connection.recv(4096):
                pass
    assert not any("Traceback" in line for line in strict.lines)


def test_an_upgrade_is_not_a_reason_for_advice(strict: ServiceProcess) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket"}
    with strict.client() as client:
        assert client.get("/v2/health/live", headers=headers).status_code == 200
    assert not any("WebSocket" in line for line in strict.lines)


def test_too_many_connections() -> None:
    async def usual(_: object, _receive: object, _send: object) -> None:
        raise AssertionError("this is not for the application")

    sent: list[Any] = []

    async def send(message: object) -> None:
        sent.append(message)

    async def ask() -> None:
        config = uvicorn.Config(usual, log_config=None)
        config.load()
        state = ServerState()
        protocol: Any = connections.ImpatientProtocol(config, state, {})
        protocol.connections |= {object() for _ in range(connections._MOST_CONNECTIONS + 1)}
        await protocol.app({"type": "http"}, None, send)

    asyncio.run(ask())
    start, body = sent
    assert start["status"] == 503
    assert dict(start["headers"])[b"retry-after"] == b"1"
    assert "connections" in json.loads(body["body"])["error"]


def test_a_slow_client(strict: ServiceProcess) -> None:
    with strict.connect() as connection:
        connection.sendall(head("/v1/classify", "Content-Length: 5000") + b"x")
        assert status(connection) == 408


def test_a_connection_without_a_request(strict: ServiceProcess) -> None:
    with strict.connect() as silent, strict.connect() as halting:
        halting.sendall(b"POST /v1/classify HTTP/1.1\r\nHost")
        assert silent.recv(1) == b""  # closed by the server
        assert halting.recv(1) == b""


@pytest.mark.skipif(sys.platform != "linux", reason="limits another process on Linux only")
def test_a_full_disk(strict: ServiceProcess) -> None:
    import resource  # noqa: PLC0415

    usual = resource.prlimit(strict.process.pid, resource.RLIMIT_FSIZE, (1000, -1))
    try:
        for route in ("/v1/classify", "/v1/timeline", "/v2/models/shots/infer"):
            with strict.client() as client:
                answer = client.post(route, content=b"x" * 5000)
            assert answer.status_code == 507
            assert "cannot be stored" in answer.json()["error"]
        with strict.client() as client:
            answer = client.post("/v1/classify", files={"video": b"x" * 5000})
            assert answer.status_code == 507
            assert "cannot be stored" in answer.json()["error"]
    finally:
        resource.prlimit(strict.process.pid, resource.RLIMIT_FSIZE, usual)


def test_a_full_queue(strict: ServiceProcess) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            connection = stack.enter_context(strict.connect())
            connection.sendall(head("/v1/classify", "Content-Length: 5000") + b"x")
        strict.wait_for(ACTIVE, 2)
        with strict.client() as client:
            answer = client.post("/v1/classify", content=b"x")
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) >= 1
        assert "all 2 places are taken" in answer.json()["error"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b--\r\n",
        b"--b\r\n\r\nx\r\n--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nfield\r\n--b--\r\n',
        b'--b\r\nContent-Disposition: form-data; name="a"; filename="x"\r\n\r\ncut sho',
        b'--b\r\nContent-Disposition: form-data; name="a"; filename="x"\r\n\r\none\r\n'
        b'--b\r\nContent-Disposition: form-data; name="b"; filename="y"\r\n\r\ntwo\r\n--b--\r\n',
        b"--b\r\n" + b"A: b\r\n" * 100 + b"\r\nx\r\n--b--\r\n",
        b"nothing of the kind",
    ],
)
def test_a_form_that_is_not_one(strict: ServiceProcess, body: bytes) -> None:
    with strict.client() as client:
        answer = client.post(
            "/v1/classify",
            content=body,
            headers={"Content-Type": "multipart/form-data; boundary=b"},
        )
    assert answer.status_code == 400
    assert "\n" not in answer.json()["error"]


def test_a_form_with_an_empty_file(strict: ServiceProcess) -> None:
    with strict.client() as client:
        answer = client.post("/v1/classify", files={"video": ("x.mp4", b"")})
    assert answer.status_code == 422
    assert "x.mp4" in answer.json()["error"]


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", f"multipart/form-data; boundary={'b' * 999}"]
)
def test_a_form_without_a_boundary(strict: ServiceProcess, kind: str) -> None:
    with strict.client() as client:
        answer = client.post("/v1/classify", content=b"x", headers={"Content-Type": kind})
    assert answer.status_code == 400


def test_names_that_are_paths(strict: ServiceProcess, folder: Path, uploads: Path) -> None:
    before = sorted(folder.rglob("*"))
    data = (folder / "short.mp4").read_bytes()
    outside = uploads.parent / "outside.mp4"
    for name in ("../../outside.mp4", str(outside), "..\\..\\outside.mp4", "a\x00b/outside.mp4"):
        with strict.client() as client:
            answer = client.post("/v1/classify", files={"video": (name, data)})
        assert answer.status_code == 200
        assert answer.json()["video"] == "outside.mp4"
    assert not outside.exists()
    assert sorted(folder.rglob("*")) == before


def test_a_video_that_names_other_files(strict: ServiceProcess, folder: Path) -> None:
    """Playlists name files and URLs, which are never opened."""
    path = folder / "short.mp4"
    for text in (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{path}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{path}'\n",
        str(path),
        path.as_uri(),
    ):
        with strict.client() as client:
            answer = client.post("/v1/classify", content=text.encode())
        assert answer.status_code == 422, answer.text


@pytest.mark.parametrize(
    "route", ["/../../etc/passwd", "/v1/%2e%2e/%2e%2e/etc/passwd", "/static/..%2f..%2fetc/passwd"]
)
def test_routes_that_are_paths(strict: ServiceProcess, route: str) -> None:
    with strict.connect() as connection:
        connection.sendall(head(route).replace(b"POST", b"GET", 1))
        assert status(connection) == 404


def test_other_methods(strict: ServiceProcess) -> None:
    with strict.client() as client:
        for method in ("HEAD", "OPTIONS", "GET", "PUT", "DELETE", "TRACE", "XYZ"):
            answer = client.request(method, "/v1/classify")
            assert answer.status_code == 405
            assert "POST" in answer.headers["Allow"]
        assert client.options("/nothing").status_code == 404


def test_packed_bodies_are_refused(strict: ServiceProcess) -> None:
    with strict.client() as client:
        answer = client.post("/v1/classify", content=b"x", headers={"Content-Encoding": "gzip"})
        assert answer.status_code == 415
        answer = client.post("/v1/classify", content=b"x", headers={"Content-Encoding": "Identity"})
        assert answer.status_code == 422


def test_a_client_that_leaves_gives_its_place_back(strict: ServiceProcess, tmp_path: Path) -> None:
    still = np.repeat(moving_frames(1, 48, 64), 3000, axis=0)
    video = write_video(tmp_path / "still.mp4", still)
    assert video.stat().st_size < LIMIT
    for _ in range(3):
        query = {"window": "1s", "stride": "100ms"}
        with (
            strict.client() as client,
            client.stream(
                "POST", "/v1/timeline", params=query, content=video.read_bytes()
            ) as answer,
        ):
            assert answer.status_code == 200
            assert next(answer.iter_lines()) == "event: segment"
        strict.wait_for(ACTIVE, 0)


# --- Access --------------------------------------------------------------------------------------


def test_a_token(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-the-file\n")
    model = (folder / "shots", "--device", "cpu", "--threads", "1")
    data = (folder / "short.mp4").read_bytes()
    environment = {"TIMESFORMER_SERVE_TOKEN": "from-the-environment"}
    for arguments, token in (
        ((), "from-the-environment"),
        (("--token-file", file), "from-the-file"),
    ):
        with (
            served(*model, *arguments, "--host", "0.0.0.0", environment=environment) as service,
            service.client() as client,
        ):
            assert not any("everybody" in line or token in line for line in service.lines)
            assert client.get("/v2/health/ready").status_code == 200
            for given in (
                {},
                {"Authorization": "Bearer wrong"},
                {"Authorization": f"Basic {token}"},
            ):
                for answer in (
                    client.post("/v1/classify", content=data, headers=given),
                    client.get("/v1/models", headers=given),
                    client.get("/v2/models/shots", headers=given),
                    client.get("/metrics", headers=given),
                ):
                    assert answer.status_code == 401
                    assert answer.headers["WWW-Authenticate"] == "Bearer"
            right = {"Authorization": f"Bearer {token}"}
            assert client.post("/v1/classify", content=data, headers=right).status_code == 200
            odd = httpx.Headers({b"Authorization": "Bearer t\xf6ken".encode("latin-1")})
            assert client.get("/v1/models", headers=odd).status_code == 401


def test_an_open_service_says_so(folder: Path) -> None:
    model = (folder / "shots", "--device", "cpu", "--threads", "1")
    with served(*model, "--host", "0.0.0.0") as service:
        assert sum("everybody who reaches 0.0.0.0" in line for line in service.lines) == 1
    for local in ((), ("--host", "2130706433")):  # another way to write 127.0.0.1
        with served(*model, *local) as service:
            assert not any("everybody" in line for line in service.lines)


# --- The end -------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_sigterm_answers_the_last_requests(folder: Path, tmp_path: Path) -> None:
    data = (folder / "short.mp4").read_bytes()
    model = (folder / "shots", "--device", "cpu", "--threads", "1")
    with served(*model, environment={"TMPDIR": str(tmp_path)}) as service:
        with service.connect() as connection:
            connection.sendall(head("/v1/classify", f"Content-Length: {len(data)}") + data[:10])
            service.wait_for(ACTIVE, 1)
            service.process.send_signal(signal.SIGTERM)
            end = time.monotonic() + PATIENCE
            with contextlib.suppress(OSError):
                while time.monotonic() < end:  # until nobody is let in any more
                    service.connect().close()
                    time.sleep(0.05)
            connection.sendall(data[10:])
            assert status(connection) == 200
        assert service.end() == 0
    assert not list(tmp_path.iterdir())
    assert not any("Traceback" in line for line in service.lines)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_sigterm_waits_for_no_one_for_ever(folder: Path, tmp_path: Path) -> None:
    still = np.repeat(moving_frames(1, 48, 64), 6000, axis=0)
    data = write_video(tmp_path / "still.mp4", still).read_bytes()
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    model = (folder / "shots", "--device", "cpu", "--threads", "1", "--drain", "1s")
    with (
        served(*model, environment={"TMPDIR": str(uploads)}) as service,
        service.connect() as silent,
        service.connect() as slow,
    ):
        silent.sendall(head("/v1/classify", "Content-Length: 5000") + b"x")
        query = "window=1s&stride=10ms"  # more events than the connection buffers
        slow.sendall(head(f"/v1/timeline?{query}", f"Content-Length: {len(data)}") + data)
        service.wait_for(ACTIVE, 2)
        assert slow.recv(1) == b"H"  # the answer has begun
        assert service.end() == 0
    assert not list(uploads.iterdir())
    assert not any("Traceback" in line for line in service.lines), service.lines


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_interrupt(folder: Path) -> None:
    with served(folder / "shots", "--device", "cpu", "--threads", "1") as service:
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(PATIENCE) == 130
    assert not any("Traceback" in line for line in service.lines)


def test_metrics_count_what_happened(strict: ServiceProcess, folder: Path) -> None:
    with strict.client() as client:
        before = client.get("/metrics").text.count("nonsense")
        client.get("/nonsense/123")
        client.request("NONSENSE", "/")
        client.post("/v1/classify", content=b"no video")
        text = client.get("/metrics").text
    assert before == 0
    assert "nonsense" not in text.lower()  # what strangers write does not become a label
    assert 'timesformer_errors_total{kind="InvalidVideoError"}' in text
    assert 'timesformer_step_seconds_count{step="decode"}' in text
    assert "timesformer_queue_length 0.0" in text
    if Path("/proc").exists():
        assert "process_resident_memory_bytes" in text


def test_one_connection_for_many_requests(strict: ServiceProcess, folder: Path) -> None:
    data = (folder / "short.mp4").read_bytes()
    with strict.client(limits=httpx.Limits(max_connections=1)) as client:
        for body in (data, b"no video", b"", data):
            client.post("/v1/classify", content=body)
        assert client.post("/v1/classify", content=data).status_code == 200
