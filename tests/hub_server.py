"""A server on the loopback interface that speaks the Hugging Face Hub's API.

Metadata (``/api/models/...``), files (``/{repo}/resolve/{revision}/{file}`` by HEAD and GET, with
``ETag`` and ``X-Repo-Commit``), large files through a redirect to a "CDN", ranges, the Hub's
404 and 401 answers with their ``X-Error-Code``, and downloads that break off in the middle.

Uploads: the user of a token, new repositories and branches, and commits whose large files go to Git
LFS first (negotiation, ``PUT`` and verification), as huggingface_hub uploads them without Xet.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

TOKEN = "hf_a_token_that_is_good"
READER = "hf_a_token_that_may_only_read"
USER = "me"  # the user of both tokens
_LARGE = 1000  # bytes; larger files go through the redirect, as Git LFS files do


@dataclass
class Repository:
    """A model repository.

    Attributes:
        files: Contents by path, equal in all revisions.
        commit: The commit to which ``main`` and ``revisions`` point.
        revisions: Further branches and tags.
        gated: True where files need a token (without: 401 GatedRepo).
        private: True where requests without a token are answered as if there were no repository.
        broken: Paths whose download breaks off in the middle, again and again.
        broken_once: Paths whose download breaks off in the middle the first time.
        commits: Uploads: branch, message, files that were added and files that were deleted.
    """

    files: dict[str, bytes]
    commit: str = "0123456789abcdef0123456789abcdef01234567"
    revisions: tuple[str, ...] = ()
    gated: bool = False
    private: bool = False
    broken: set[str] = field(default_factory=set)
    broken_once: set[str] = field(default_factory=set)
    commits: list[tuple[str, str, set[str], set[str]]] = field(default_factory=list)

    @classmethod
    def of_folder(cls, folder: Path, **options: object) -> Self:
        """A repository with the files of a folder."""
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        return cls(files, **options)  # type: ignore[arg-type]


class HubServer:
    """The server; use it as a context manager.

    Attributes:
        repositories: The repositories by ``owner/name``; a test may change them at any time.
        requests: ``"METHOD path"`` of every request so far.
        status: If set, the server answers every request with this HTTP status.
        answer: If set, a text, HTTP status, headers and body. The server answers every request
            whose path has the text in it with the status, headers and body.
        tokens: The header ``Authorization`` of every request so far.
        broken_uploads: HTTP statuses by the kind of request (``create``, ``lfs``, ``commit``, ...);
            the server answers requests of that kind with the status, so that an upload fails.
        stored: The contents of files in Git LFS, by SHA-256.
    """

    def __init__(self, repositories: Mapping[str, Repository]) -> None:
        self.repositories = dict(repositories)
        self.requests: list[str] = []
        self.status: int | None = None
        self.answer: tuple[str, int, Mapping[str, str], bytes] | None = None
        self.tokens: list[str | None] = []
        self.broken_uploads: dict[str, int] = {}
        self.stored: dict[str, bytes] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )

    @property
    def url(self) -> str:
        """The value for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def environment(self, home: Path) -> dict[str, str]:
        """Variables with which huggingface_hub talks to this server and to no other."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        server_hub = hub

    return Handler


class _Handler(BaseHTTPRequestHandler):
    server_hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (theirs)
        """Keeps the tests' output clean."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self._body = self._read_body()
        self.server_hub.requests.append(f"{self.command} {path}")
        self.server_hub.tokens.append(self.headers.get("Authorization"))
        # A client may have closed the connection by now.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._route(path)

    def _route(self, path: str) -> None:
        answer = self.server_hub.answer
        if answer is not None and answer[0] in path:
            self._as_told(*answer[1:])
        elif self.server_hub.status is not None:
            self._error(self.server_hub.status, None, "as the test wishes")
        elif upload := self._upload(path):
            kind, take = upload
            if kind in self.server_hub.broken_uploads:
                status = self.server_hub.broken_uploads[kind]
                self._error(status, None, "as the test wishes")
            else:
                take()
        elif match := re.fullmatch(r"/cdn/([^/]+/[^/]+)/(.+)", path):
            self._content(self.server_hub.repositories[match[1]], match[2])
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+?)(?:/(revision|tree)/(.+))?", path):
            self._metadata(*match.groups())
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/(refs/pr/\d+|[^/]+)/(.+)", path):
            self._file(*match.groups())
        else:
            self._error(404, None, "no such page")

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _upload(self, path: str) -> tuple[str, Callable[[], None]] | None:
        """The kind of an upload's request, and the method that answers it; None for others."""
        routes: list[tuple[str, str, str, Callable[..., None]]] = [
            ("whoami", "GET", "/api/whoami-v2", self._whoami),
            ("create", "POST", "/api/repos/create", self._create),
            ("yaml", "POST", "/api/validate-yaml", self._valid_yaml),
            ("branch", "POST", r"/api/models/([^/]+/[^/]+)/branch/(.+)", self._branch),
            ("preupload", "POST", r"/api/models/([^/]+/[^/]+)/preupload/(.+)", self._preupload),
            ("batch", "POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self._lfs_batch),
            ("lfs", "PUT", r"/lfs/([0-9a-f]{64})", self._lfs_object),
            ("verify", "POST", r"/lfs/([0-9a-f]{64})/verify", self._lfs_verify),
            ("commit", "POST", r"/api/models/([^/]+/[^/]+)/commit/(.+)", self._commit),
        ]
        for kind, method, pattern, answer in routes:
            match = re.fullmatch(pattern, path)
            if method == self.command and match:
                return kind, partial(answer, *match.groups())
        return None

    def _may_write(self, repository: str) -> bool:
        """True where the token may write there; otherwise answers with an error."""
        owner = repository.partition("/")[0]
        token = self.headers.get("Authorization")
        if token not in {f"Bearer {TOKEN}", f"Bearer {READER}"}:
            self._error(401, None, "Invalid username or password.")
            return False
        if token == f"Bearer {READER}" or owner != USER:
            self._error(403, None, f"You don't have the rights to write under {owner}")
            return False
        return True

    def _whoami(self) -> None:
        roles = {f"Bearer {TOKEN}": "write", f"Bearer {READER}": "read"}
        role = roles.get(self.headers.get("Authorization", ""))
        if role is None:
            self._error(401, None, "Invalid username or password.")
        else:
            self._json({"type": "user", "name": USER, "auth": {"accessToken": {"role": role}}})

    def _create(self) -> None:
        asked = json.loads(self._body)
        owner = asked.get("organization") or USER
        name = f"{owner}/{asked['name']}"
        if not self._may_write(name):
            return
        url = f"{self.server_hub.url}/{name}"
        if name in self.server_hub.repositories:
            self._json({"url": url, "error": "You already created this model repo"}, status=409)
            return
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.server_hub.repositories[name] = Repository({}, private=private)
        self._json({"url": url, "name": name})

    def _valid_yaml(self) -> None:
        self._json({"errors": [], "warnings": []})

    def _branch(self, name: str, branch: str) -> None:
        repository = self.server_hub.repositories[name]
        if not self._may_write(name):
            return
        if branch in {"main", *repository.revisions}:
            self._error(409, None, "Reference already exists")
            return
        repository.revisions += (branch,)
        self._json({})

    def _preupload(self, name: str, revision: str) -> None:
        if not self._may_write(name) or self._repository(name, revision) is None:
            return
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["size"] > _LARGE else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(self._body)["files"]
        ]
        self._json({"files": files})

    def _lfs_batch(self, name: str) -> None:
        if not self._may_write(name):
            return
        objects: list[dict[str, Any]] = json.loads(self._body)["objects"]
        for wanted in objects:
            url = f"{self.server_hub.url}/lfs/{wanted['oid']}"
            if wanted["oid"] not in self.server_hub.stored:
                actions = {"upload": {"href": url}, "verify": {"href": f"{url}/verify"}}
                wanted["actions"] = actions
        self._json({"transfer": "basic", "objects": objects})

    def _lfs_object(self, digest: str) -> None:
        self.server_hub.stored[digest] = self._body
        self._json({})

    def _lfs_verify(self, digest: str) -> None:
        data = self.server_hub.stored[digest]
        asked = json.loads(self._body)
        if (hashlib.sha256(data).hexdigest(), len(data)) == (digest, asked["size"]):
            self._json({})
        else:
            self._error(422, None, "that is another file")

    def _commit(self, name: str, revision: str) -> None:
        repository = self._repository(name, revision)
        if repository is None or not self._may_write(name):
            return
        lines = [json.loads(line) for line in self._body.splitlines()]
        values: dict[str, list[Any]] = {}
        for line in lines:
            values.setdefault(line["key"], []).append(line["value"])
        added = {
            file["path"]: base64.b64decode(file["content"]) for file in values.get("file", [])
        } | {
            file["path"]: self.server_hub.stored[file["oid"]] for file in values.get("lfsFile", [])
        }
        deleted = {file["path"] for file in values.get("deletedFile", [])}
        for path in deleted:
            del repository.files[path]
        repository.files.update(added)
        (header,) = values["header"]
        repository.commits.append((revision, header["summary"], set(added), deleted))
        url = f"{self.server_hub.url}/{name}/commit/{repository.commit}"
        self._json({"success": True, "commitOid": repository.commit, "commitUrl": url})

    def _repository(self, name: str, revision: str | None) -> Repository | None:
        """Finds a repository; answers with an error and returns None where it is not available."""
        repository = self.server_hub.repositories.get(name)
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repository is None or (repository.private and not known):
            # The Hub does not tell strangers whether a repository exists.
            self._error(401 if not known else 404, "RepoNotFound", "Repository not found")
            return None
        if revision not in {None, "main", repository.commit, *repository.revisions}:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return repository

    def _metadata(self, name: str, kind: str | None, revision: str | None) -> None:
        repository = self._repository(name, revision)
        if repository is None:
            return
        if kind == "tree":
            self._json(
                [
                    {"type": "file", "path": path, "size": len(data), "oid": _etag(data)}
                    for path, data in repository.files.items()
                ]
            )
            return
        self._json(
            {
                "id": name,
                "modelId": name,
                "sha": repository.commit,
                "private": repository.private,
                "gated": repository.gated,
                "tags": [],
                "siblings": [{"rfilename": path} for path in repository.files],
            }
        )

    def _file(self, name: str, revision: str, path: str) -> None:
        repository = self._repository(name, revision)
        if repository is None:
            return
        if repository.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._error(401, "GatedRepo", f"Access to model {name} is restricted.")
        elif path not in repository.files:
            self._error(404, "EntryNotFound", "Entry not found", repository.commit)
        elif len(repository.files[path]) > _LARGE:
            self._redirect(name, repository, path)
        else:
            self._content(repository, path)

    def _redirect(self, name: str, repository: Repository, path: str) -> None:
        data = repository.files[path]
        self.send_response(302)
        self.send_header("Location", f"{self.server_hub.url}/cdn/{name}/{path}")
        self.send_header("X-Repo-Commit", repository.commit)
        self.send_header("X-Linked-ETag", f'"{_etag(data)}"')
        self.send_header("X-Linked-Size", str(len(data)))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _content(self, repository: Repository, path: str) -> None:
        data = repository.files[path]
        first = 0
        if asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            first = int(asked[1])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("ETag", f'"{_etag(data)}"')
        self.send_header("X-Repo-Commit", repository.commit)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - first))
        self.end_headers()
        if self.command == "GET":
            self._send(repository, path, data, first)

    def _send(self, repository: Repository, path: str, data: bytes, first: int) -> None:
        if path in repository.broken or path in repository.broken_once:
            repository.broken_once.discard(path)
            self.wfile.write(data[first : len(data) // 2])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(data[first:])

    def _as_told(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _json(self, values: object, status: int = 200) -> None:
        data = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _error(self, status: int, code: str | None, message: str, commit: str = "") -> None:
        data = json.dumps({"error": message}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Error-Message", message)
        if code is not None:
            self.send_header("X-Error-Code", code)
        if commit:
            self.send_header("X-Repo-Commit", commit)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
