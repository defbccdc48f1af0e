"""Files from the Hub, against a loopback server that speaks its API.

huggingface_hub reads its variables when it is imported, so every scenario runs in a process of
its own, which does a list of calls and prints the outcome of each.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version
from timesformer_runtime.errors import HubError
from timesformer_runtime.model import hub
from timesformer_runtime.model.hub import looks_like_hub_id

from tests.hub_server import TOKEN, HubServer, Repository
from tests.patience import PATIENCE

CLIENT = """
import json, sys, time
time.sleep = lambda seconds: None  # huggingface_hub waits longer and longer between retries
from timesformer_runtime.model import hub
from timesformer_runtime.errors import TimesformerError
for function, arguments, options in json.loads(sys.argv[1]):
    try:
        result = getattr(hub, function)(*arguments, **options)
        print(json.dumps([None, result if isinstance(result, list) else str(result)]))
    except TimesformerError as error:
        print(json.dumps([type(error).__name__, str(error)]))
"""

Call = tuple[str, list[str], dict[str, Any]]
Outcome = tuple[str | None, Any]

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG = b'{"model_type": "timesformer"}'
WEIGHTS = bytes(range(256)) * 40


@pytest.fixture
def server() -> Iterator[HubServer]:
    files = {"config.json": CONFIG, "onnx/model.onnx": WEIGHTS}
    with HubServer(
        {
            "someone/open": Repository(files, revisions=("v1", "refs/pr/5")),
            "someone/gated": Repository(files, gated=True),
            "someone/private": Repository(files, private=True),
            "someone/broken": Repository(files, broken={"onnx/model.onnx"}),
            "someone/shaky": Repository(files, broken_once={"onnx/model.onnx"}),
        }
    ) as running:
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def outcomes(server: HubServer, home: Path, *calls: Call, **variables: str) -> list[Outcome]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    finished = subprocess.run(
        [sys.executable, "-c", CLIENT, json.dumps(calls)],
        env=inherited | server.environment(home) | variables,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    results = [tuple(json.loads(line)) for line in finished.stdout.splitlines()]
    assert len(results) == len(calls)
    for error, message in results:
        assert error is None or "\n" not in message
    return results


def fetch(repo: str, name: str, **options: object) -> Call:
    return "download", [repo, name], options


def files_of(repo: str, **options: object) -> Call:
    return "list_files", [repo], options


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("facebook/timesformer-base-finetuned-k400", True),
        ("fcakyon/timesformer-large-finetuned-ssv2", True),
        ("a/b", True),
        ("Some_one/model.v1.5_x", True),
        ("model", False),
        ("./model", False),
        ("../some/model", False),
        ("/abs/model", False),
        ("~/model", False),
        ("a/b/c", False),
        ("a//b", False),
        ("a/b/", False),
        ("a\\b", False),
        ("a/b c", False),
        ("a/..", False),
        ("a/b--c", False),
        ("a/b..c", False),
        ("-a/b", False),
        ("a/b.", False),
        ("runs/model.safetensors", False),
        ("runs/model.onnx", False),
        ("runs/MODEL.PTH", False),
        ("https://huggingface.co/a/b", False),
        ("", False),
        ("a/" + "b" * 95, False),
        ("a/b\n", False),
    ],
)
def test_what_looks_like_a_hub_id(text: str, expected: bool) -> None:
    assert looks_like_hub_id(text) is expected


def test_downloads_and_the_cache(server: HubServer, home: Path) -> None:
    small, large, again, listed, tagged, pull_request, by_commit = outcomes(
        server,
        home,
        fetch("someone/open", "config.json"),
        fetch("someone/open", "onnx/model.onnx"),
        fetch("someone/open", "onnx/model.onnx"),
        files_of("someone/open"),
        fetch("someone/open", "config.json", revision="v1"),
        files_of("someone/open", revision="refs/pr/5"),
        fetch("someone/open", "config.json", revision=COMMIT),
    )
    assert Path(small[1]).read_bytes() == CONFIG
    assert Path(large[1]).read_bytes() == WEIGHTS
    assert Path(small[1]).parent.name == COMMIT
    assert home in Path(small[1]).parents
    assert again == large
    assert server.requests.count("GET /cdn/someone/open/onnx/model.onnx") == 1
    assert listed == pull_request == (None, ["config.json", "onnx/model.onnx"])
    assert tagged == by_commit == small


def test_what_is_not_there(server: HubServer, home: Path) -> None:
    repository, listing, revision, listed_revision, file, invalid = outcomes(
        server,
        home,
        fetch("someone/missing", "config.json"),
        files_of("someone/missing"),
        fetch("someone/open", "config.json", revision="v9"),
        files_of("someone/open", revision="v9"),
        fetch("someone/open", "model.safetensors"),
        fetch("someone/../open", "config.json"),
    )
    for error, message in (repository, listing):
        assert error == "ModelNotFoundError"
        assert "no model someone/missing on the Hub, or it is private" in message
        assert "hf auth login" in message
        assert "HF_TOKEN" in message
    for error, message in (revision, listed_revision):
        assert error == "ModelNotFoundError"
        assert "someone/open has no revision v9" in message
    assert file == ("ModelNotFoundError", "someone/open has no file model.safetensors")
    assert invalid[0] == "ModelNotFoundError"
    assert "is not a name that a model on the Hub can have" in invalid[1]


def test_gated_and_private_repositories_need_a_token(server: HubServer, home: Path) -> None:
    calls = (
        fetch("someone/gated", "config.json"),
        fetch("someone/private", "config.json"),
        files_of("someone/private"),
    )
    gated, private, listing = outcomes(server, home, *calls)
    assert gated[0] == "HubError"
    assert "someone/gated is gated: ask for access" in gated[1]
    assert "hf auth login` or set HF_TOKEN" in gated[1]
    assert private[0] == listing[0] == "ModelNotFoundError"
    assert "or it is private" in private[1]

    gated, private, listing = outcomes(server, home, *calls, HF_TOKEN=TOKEN)
    assert gated[0] is private[0] is None
    assert listing == (None, ["config.json", "onnx/model.onnx"])


def test_a_download_that_breaks_off(server: HubServer, home: Path) -> None:
    broken, small = outcomes(
        server,
        home,
        fetch("someone/broken", "onnx/model.onnx"),
        fetch("someone/broken", "config.json"),
    )
    assert broken[0] == "HubError"
    assert "downloading onnx/model.onnx of someone/broken failed" in broken[1]
    assert "run it again" in broken[1]
    assert small[0] is None
    whole = [path for path in home.rglob("*") if path.is_file() and path.read_bytes() == WEIGHTS]
    assert not whole
    assert not list(home.rglob("snapshots/*/onnx/model.onnx"))

    server.repositories["someone/broken"].broken.clear()
    (mended,) = outcomes(server, home, fetch("someone/broken", "onnx/model.onnx"))
    assert Path(mended[1]).read_bytes() == WEIGHTS


@pytest.mark.skipif(
    Version(version("huggingface_hub")) < Version("1.20"),
    reason="this huggingface_hub does not resume; run again, the download goes on",
)
def test_a_download_that_breaks_off_once_is_resumed(server: HubServer, home: Path) -> None:
    (resumed,) = outcomes(server, home, fetch("someone/shaky", "onnx/model.onnx"))
    assert Path(resumed[1]).read_bytes() == WEIGHTS
    assert server.requests.count("GET /cdn/someone/shaky/onnx/model.onnx") == 2


def test_offline_the_cache_is_used(server: HubServer, home: Path) -> None:
    calls = (
        fetch("someone/open", "config.json"),
        files_of("someone/open"),
        fetch("someone/open", "onnx/model.onnx"),
    )
    local = [(name, arguments, {"local_files_only": True}) for name, arguments, _ in calls]
    for error, message in outcomes(server, home, *local):
        assert error == "ModelNotFoundError"
        assert "not in the Hub's cache, and downloads are switched off" in message
    assert not server.requests

    (cached,) = outcomes(server, home, calls[0])
    seen = len(server.requests)
    for config, listing, weights in (
        outcomes(server, home, *local),
        outcomes(server, home, *calls, HF_HUB_OFFLINE="1"),
    ):
        assert config == cached
        assert listing == (None, ["config.json"])
        assert weights[0] == "ModelNotFoundError"
        assert "onnx/model.onnx of someone/open is not in the Hub's cache" in weights[1]
    assert len(server.requests) == seen


def test_a_hub_that_is_down(server: HubServer, home: Path) -> None:
    calls = (fetch("someone/open", "config.json"), files_of("someone/open"))
    nobody = "http://127.0.0.1:9"  # the discard port: nothing listens there
    for error, message in outcomes(server, home, *calls, HF_ENDPOINT=nobody):
        assert error == "HubError"
        assert "check the network" in message
    for status, remedy in ((403, "HF_TOKEN"), (429, "try again later"), (503, "try again later")):
        server.status = status
        for error, message in outcomes(server, home, *calls):
            assert error == "HubError"
            assert f"HTTP {status}" in message
            assert remedy in message


def test_without_huggingface_hub_it_says_what_to_install(
    server: HubServer, home: Path, tmp_path: Path
) -> None:
    (tmp_path / "huggingface_hub.py").write_text("raise ImportError('not installed')")
    paths = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    for error, message in outcomes(
        server,
        home,
        fetch("someone/open", "config.json"),
        files_of("someone/open"),
        PYTHONPATH=paths,
    ):
        assert error == "MissingDependencyError"
        assert 'pip install "timesformer-onnx[hub]"' in message


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("Task error: reconstruction failed"), "Task error: reconstruction failed"),
        (OSError(errno.ENOSPC, "No space left on device"), "does not fit on the disk"),
    ],
)
def test_failures_of_the_other_ways_to_download(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Xet, which a loopback server does not speak, raises plain RuntimeErrors."""
    huggingface_hub = pytest.importorskip("huggingface_hub")

    def fail(*_arguments: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(HubError, match=message):
        hub.download("owner/name", "model.safetensors")


# --- What is not a Hub ---------------------------------------------------------------------------

PAGE = b"<!DOCTYPE html><html><body>Please log in to this network</body></html>"


@pytest.mark.parametrize(
    "answer",
    [
        (200, {"Content-Type": "text/html"}, PAGE),
        (200, {"Content-Type": "text/html", "ETag": '"1"', "X-Repo-Commit": "x"}, PAGE),
        (200, {"Content-Type": "application/json"}, b"[1, 2]"),
        (200, {"Content-Type": "application/json"}, b'{"siblings": 3}'),
        (200, {"Content-Type": "application/json"}, b'{"id": "a/b", "siblings": [{}]}'),
        (200, {"Content-Type": "application/json"}, b"\xff\xfe"),
        (204, {}, b""),
        (302, {"Location": "http://[::1"}, b""),
        (302, {"Location": "ftp://host/x"}, b""),
        (302, {"Location": "/api/models/a/b"}, b""),
        (200, {"Content-Encoding": "gzip"}, b"not compressed"),
    ],
    ids=str,
)
def test_answers_that_are_not_those_of_a_hub(
    server: HubServer, home: Path, answer: tuple[int, dict[str, str], bytes]
) -> None:
    server.answer = ("/", *answer)
    listing, file = outcomes(server, home, files_of("a/b"), fetch("a/b", "config.json"))
    assert listing[0] == "HubError"
    assert "the list of files of a/b" in listing[1]
    if file[0] is None:  # a page that looks like a file
        assert home in Path(file[1]).parents
    else:
        assert file[0] in {"HubError", "ModelNotFoundError"}


@pytest.mark.parametrize(
    "variables",
    [
        {"ALL_PROXY": "socks5://127.0.0.1:9", "NO_PROXY": "", "no_proxy": ""},
        {"HTTP_PROXY": "http://[::1", "http_proxy": "http://[::1", "NO_PROXY": "", "no_proxy": ""},
        {"ALL_PROXY": "strange://a", "all_proxy": "strange://a", "NO_PROXY": "", "no_proxy": ""},
        {"HF_TOKEN": "hf_caf\xe9_secret"},
        {"HF_TOKEN": "hf_two\nlines_secret"},
        {"HF_TOKEN": "hf_a\x01b_secret"},
        {"HF_ENDPOINT": "http://[::1"},
        {"HF_ENDPOINT": "127.0.0.1:9"},
        {"HF_ENDPOINT": "http://127.0.0.1:99999"},
        {"HF_ENDPOINT": "http://user:secret@127.0.0.1:99999"},
        {"HF_ENDPOINT": "ftp://127.0.0.1"},
        {"HF_ENDPOINT": "nonsense"},
    ],
    ids=str,
)
def test_settings_that_are_not_valid(
    server: HubServer, home: Path, variables: dict[str, str]
) -> None:
    calls = (files_of("someone/private"), fetch("someone/private", "config.json"))
    for error, message in outcomes(server, home, *calls, **variables):
        assert error in {"HubError", "MissingDependencyError", "ModelNotFoundError"}
        assert "secret" not in message


@pytest.mark.parametrize(
    "name", ["../../x.onnx", "onnx/../../x", "/etc/x", "..", "a/./b", "onnx\\..\\x", "a\0b"]
)
def test_files_that_are_named_outside_of_the_model(
    server: HubServer, home: Path, name: str
) -> None:
    server.repositories["someone/odd"] = Repository({"config.json": CONFIG, name: WEIGHTS})
    for error, message in outcomes(
        server, home, files_of("someone/odd"), fetch("someone/odd", name)
    ):
        assert error == "HubError"
        assert "someone/odd lists a file " in message
        assert "do not trust it" in message
    assert not home.exists() or not list(home.rglob("x*"))


@pytest.mark.parametrize("header", ["Link", "Location"])
def test_the_token_stays_with_the_hub(server: HubServer, home: Path, header: str) -> None:
    """Neither a next page of files nor another address for them gets it."""
    with HubServer({}) as other:
        where = f"{other.url}/api/models/someone/open"
        headers = {header: f'<{where}>; rel="next"' if header == "Link" else where}
        body = json.dumps({"id": "someone/open", "siblings": [{"rfilename": "config.json"}]})
        status = 200 if header == "Link" else 302
        server.answer = ("/api/", status, headers, body.encode())
        outcomes(server, home, files_of("someone/open"), HF_TOKEN=TOKEN)
        assert server.tokens == [f"Bearer {TOKEN}"]
        assert set(other.tokens) <= {None}


def test_without_a_network_it_fails_soon_and_quietly(server: HubServer, home: Path) -> None:
    """huggingface_hub tries six times, waits 23 seconds for that, and prints twelve lines."""
    code = """
        import json, sys, time
        from timesformer_runtime.model import hub
        from timesformer_runtime.errors import HubError
        paused = []
        time.sleep = paused.append
        try:
            hub.list_files("someone/open")
        except HubError as error:
            print(json.dumps([sum(paused), str(error)]))
    """
    variables = server.environment(home) | {"HF_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    pauses, message = json.loads(done.stdout)
    assert pauses < 5
    assert "check the network" in message
    assert done.stderr == ""


def test_a_hub_that_is_busy_once(server: HubServer, home: Path) -> None:
    server.status = 503
    outcomes(server, home, files_of("someone/open"))
    assert server.requests == ["GET /api/models/someone/open"] * 2


def test_a_hub_that_does_not_answer(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, HubServer({}) as server:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        patience = {"HF_ENDPOINT": endpoint, "HF_HUB_ETAG_TIMEOUT": "1"}
        ((error, message),) = outcomes(server, home, files_of("someone/open"), **patience)
    assert error == "HubError"
    assert "check the network" in message
