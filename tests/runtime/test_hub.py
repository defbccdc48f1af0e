"""Files from the Hub, against a loopback server that speaks its API.

huggingface_hub reads its variables when it is imported, so every scenario runs in a process of
its own, which does a list of calls and prints the outcome of each.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version
from timesformer_runtime import hub
from timesformer_runtime.errors import HubError
from timesformer_runtime.hub import looks_like_hub_id

from tests.hub_server import TOKEN, HubServer, Repository

CLIENT = """
import json, sys, time
time.sleep = lambda seconds: None  # huggingface_hub waits longer and longer between retries
from timesformer_runtime import hub
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
        timeout=120,
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
    assert "no name of a model on the Hub" in invalid[1]


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
