"""A Hub on this machine that gives wrong answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BufferedIOBase

import numpy as np

from tests.fuzz.models.hostile import PATHS, TEXTS, pick
from tests.fuzz.models.json_damage import damage_json
from tests.fuzz.mutations import Random, mutate
from tests.hub_server import HubServer, Repository, _Handler

REPOSITORY = "fuzz/model"
_STATUSES = (
    *(200, 204, 206, 301, 302, 304, 307, 400, 401, 403, 404, 410, 416, 418, 429, 500, 503, 999),
)
_HTML = b"<!doctype html><html><title>Log in</title><body>Welcome to this network</body></html>"
# Values that fit into a header: one byte for each character, no line ends.
_NAMES = tuple(
    text.encode("utf-8", "replace").decode("latin1").translate({10: " ", 13: " ", 0: " "})
    for text in (*TEXTS, *PATHS)
)
_HEADERS: dict[str, tuple[str, ...]] = {
    "ETag": ("", '""', 'W/"', "x", *_NAMES),
    "X-Linked-ETag": ("", *_NAMES),
    "X-Repo-Commit": ("", "main", "0" * 40, *_NAMES),
    "X-Linked-Size": ("-1", "0", "x", "1", "9" * 30, str(1 << 62)),
    "X-Error-Code": ("EntryNotFound", "RepoNotFound", "GatedRepo", "RevisionNotFound", *_NAMES),
    "X-Error-Message": _NAMES,
    "Location": (
        *("/", "", "//", "x", "http://", "http://[::1", "https://127.0.0.1:1/x", "ftp://x/y"),
        *("file:///etc/passwd", "/fuzz/model/resolve/main/config.json", *_NAMES),
    ),
    "Link": ('</api/models/fuzz/model>; rel="next"', '<file:///etc/passwd>; rel="next"', "x"),
    "Content-Encoding": ("gzip", "br", "deflate", "x"),
    "Content-Type": ("text/html", "application/json; charset=utf-16", "x"),
    "Transfer-Encoding": ("chunked",),
    "Accept-Ranges": ("none",),
}
_LENGTHS = ("0", "1", "-1", "x", "9" * 30, "100")


@dataclass
class Lie:
    """How answers to some requests differ from the true ones.

    Attributes:
        about: A text that the path of such a request contains.
        method: The HTTP method of such a request; empty for any.
        status: Replaces the true status.
        headers: Replace the true headers, or come in addition.
        length: Replaces the true Content-Length.
        change: Makes a false body of the true one; None to send the true body.
    """

    about: str
    method: str = ""
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    length: str | None = None
    change: Callable[[bytes], bytes] | None = None


_TRUTH = Lie("")


class LyingHub(HubServer):
    """A server of one model, ``REPOSITORY``.

    Attributes:
        lies: Changes to the answers; the first one that is about a request counts.
    """

    def __init__(self) -> None:
        super().__init__({})
        self.lies: list[Lie] = []
        hub = self

        class Handler(_LyingHandler):
            server_hub = hub

        self._server.RequestHandlerClass = Handler
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # of requests for what is not there

    def serve(self, files: Mapping[str, bytes], random: Random | None) -> None:
        """Serves these files from now on; with ``random``, tells lies about them."""
        self.requests.clear()
        served = dict(files)
        self.repositories = {REPOSITORY: Repository(served)}
        self.lies = []
        if random is None:
            return
        if random.random() < 0.2:
            name = f"{pick((*PATHS, *TEXTS), random)}{pick(('', '.onnx', '/config.json'), random)}"
            served[name] = b"x"
        self.lies = [_lie(list(files), random) for _ in range(int(random.integers(1, 3)))]


class _LyingHandler(_Handler):
    server_hub: LyingHub
    _lie = _TRUTH

    def _route(self, path: str) -> None:
        self._lie = next(
            (
                lie
                for lie in self.server_hub.lies
                if lie.about in path and lie.method in {"", self.command}
            ),
            _TRUTH,
        )
        truth = self.wfile
        try:
            super()._route(path)
        finally:
            self.wfile = truth

    def send_response(self, code: int, message: str | None = None) -> None:
        super().send_response(self._lie.status or code, message)

    def send_header(self, keyword: str, value: str) -> None:
        if keyword == "Content-Length" and self._lie.length is not None:
            value = self._lie.length
        if keyword not in self._lie.headers:
            super().send_header(keyword, value)

    def end_headers(self) -> None:
        for name, value in self._lie.headers.items():
            super().send_header(name, value)
        if self._lie is not _TRUTH:  # the length of the body may be wrong
            super().send_header("Connection", "close")
            self.close_connection = True
        super().end_headers()
        if self._lie.change is not None:
            self.wfile = _Changed(self.wfile, self._lie.change)  # type: ignore[assignment]


class _Changed:
    """Changes all data before it writes them."""

    def __init__(self, file: BufferedIOBase, change: Callable[[bytes], bytes]) -> None:
        self._file = file
        self._change = change

    def write(self, data: bytes) -> None:
        self._file.write(self._change(data))

    def flush(self) -> None:
        self._file.flush()


def _lie(files: list[str], random: Random) -> Lie:
    """Makes a lie about one file, about the list of files, or about everything."""
    about = str(pick(["/api/models/", "/resolve/", "", *files, *files], random))
    lie = Lie(about, method=pick(("", "", "HEAD", "GET"), random))
    what = random.random()
    if what < 0.2:
        lie.status = pick(_STATUSES, random)
    elif what < 0.5:
        name = pick(list(_HEADERS), random)
        lie.headers = {name: pick(_HEADERS[name], random)}
        if name == "Location":
            lie.status = pick((301, 302, 307, 308), random)
    elif what < 0.6:
        lie.length = pick(_LENGTHS, random)
    else:
        lie.change = _change(about, random)
    return lie


def _change(about: str, random: Random) -> Callable[[bytes], bytes]:
    seed = int(random.integers(1 << 30))
    if random.random() < 0.3:
        other = pick((b"", _HTML, b"null", b"[]", b"{}", b"x" * 99_999), random)
        return lambda _: other
    if "/api/" in about:
        return lambda data: damage_json(data.decode(), np.random.default_rng(seed))
    return lambda data: mutate(data, seed)
