"""Uploads to the Hub, against a loopback server that speaks its API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from timesformer_runtime.input.preprocess import Preprocessing

from tests.hub_server import READER, TOKEN, HubServer, Repository
from tests.patience import PATIENCE
from tests.tiny_models import tiny_config, write_checkpoint

# huggingface_hub reads its variables when it is imported, so it needs a process of its own.
CLIENT = """
import json, sys, time
from pathlib import Path
from timesformer_exporter.push import check_push, push
from timesformer_runtime.errors import TimesformerError
time.sleep = lambda seconds: None  # huggingface_hub waits longer and longer between retries
for call, options in json.loads(sys.argv[1]):
    try:
        if call == "check":
            check_push(**options)
            print(json.dumps({"url": None}))
        else:
            print(json.dumps({"url": push(Path(options.pop("folder")), **options)}))
    except TimesformerError as error:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}))
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder such as an export writes, with a small graph and a large one."""
    folder = tmp_path / "my model"
    (folder / "onnx").mkdir(parents=True)
    (folder / "onnx" / "model.onnx").write_bytes(bytes(range(256)) * 20)
    (folder / "onnx" / "model_int8.onnx").write_bytes(b"small")
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("---\nlibrary_name: timesformer-onnx\n---\n# my model\n")
    graphs = [f"onnx/{path.name}" for path in (folder / "onnx").iterdir()]
    (folder / "export_report.json").write_text(json.dumps({"files": dict.fromkeys(graphs)}))
    (folder / "mine.txt").write_text("not of the export")
    return folder


FILES = [
    "README.md",
    "config.json",
    "export_report.json",
    "onnx/model.onnx",
    "onnx/model_int8.onnx",
]


def calls(
    server: HubServer, home: Path, *wanted: tuple[str, dict[str, Any]], **variables: str
) -> list[dict[str, Any]]:
    """Runs ``check_push`` and ``push`` as a user of the server's token, or of no token."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    finished = subprocess.run(
        [sys.executable, "-c", CLIENT, json.dumps(wanted)],
        env=inherited | server.environment(home) | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert finished.stderr == ""
    results = [json.loads(line) for line in finished.stdout.splitlines()]
    assert len(results) == len(wanted)
    return results


def _push(folder: Path, repo_id: str = "me/new", **options: Any) -> tuple[str, dict[str, Any]]:
    return "push", {"folder": str(folder), "files": FILES, "repo_id": repo_id, **options}


def _check(repo_id: str = "me/new", private: bool = False) -> tuple[str, dict[str, Any]]:
    return "check", {"repo_id": repo_id, "private": private}


def test_a_new_repository_gets_all_files_in_one_commit(model: Path, tmp_path: Path) -> None:
    with HubServer({}) as server:
        done = calls(
            server, tmp_path / "home", _check(private=True), _push(model, private=True),
            HF_TOKEN=TOKEN,
        )  # fmt: skip
    assert done == [{"url": None}, {"url": f"{server.url}/me/new"}]
    repository = server.repositories["me/new"]
    assert repository.private
    assert repository.files == {name: (model / name).read_bytes() for name in FILES}
    assert [(commit[0], commit[3]) for commit in repository.commits] == [("main", set())]
    assert not [request for request in server.requests if "mine.txt" in request]


def test_an_earlier_export_is_replaced_and_other_files_stay(model: Path, tmp_path: Path) -> None:
    outdated = {"onnx/model_q4.onnx": b"of other weights", "onnx/model.onnx": b"also"}
    report = json.dumps({"files": {**dict.fromkeys(outdated), "*": {}, "absent": {}}}).encode()
    own = {"notes.md": b"mine", "onnx/own.onnx": b"mine"}
    there = Repository({**outdated, **own, "export_report.json": report})
    with HubServer({"me/there": there}) as server:
        (done,) = calls(server, tmp_path / "home", _push(model, "me/there"), HF_TOKEN=TOKEN)
    assert "error" not in done, done
    assert set(there.files) == {*FILES, *own}
    assert there.files["onnx/model.onnx"] == (model / "onnx" / "model.onnx").read_bytes()
    assert [commit[3] for commit in there.commits] == [{"onnx/model_q4.onnx"}]


def test_a_branch_is_created_where_it_is_not_there(model: Path, tmp_path: Path) -> None:
    there = Repository({})
    push = _push(model, "me/there", revision="v2")
    with HubServer({"me/there": there}) as server:
        done = calls(server, tmp_path / "home", push, push, HF_TOKEN=TOKEN)
    assert [result["url"] for result in done] == [f"{server.url}/me/there/tree/v2"] * 2
    assert there.revisions == ("v2",)
    assert {commit[0] for commit in there.commits} == {"v2"}


def test_what_is_bound_to_fail_is_said_before_the_export(tmp_path: Path) -> None:
    repositories = {"me/public": Repository({}), "me/private": Repository({}, private=True)}
    login = "log in with a token that may write (`hf auth login`, or set HF_TOKEN)"
    with HubServer(repositories) as server:
        home = tmp_path / "home"
        (no_token,) = calls(server, home, _check())
        (unknown,) = calls(server, home, _check(), HF_TOKEN="hf_unknown")
        (reader,) = calls(server, home, _check(), HF_TOKEN=READER)
        (offline,) = calls(server, home, _check(), HF_TOKEN=TOKEN, HF_HUB_OFFLINE="1")
        public, private = calls(
            server,
            home,
            _check("me/public", private=True),
            _check("me/private", private=True),
            HF_TOKEN=TOKEN,
        )
        server.status = 503
        (down,) = calls(server, home, _check(), HF_TOKEN=TOKEN)
    (unreachable,) = calls(server, home, _check(), HF_TOKEN=TOKEN)
    assert not any("repos/create" in request for request in server.requests)
    assert private == {"url": None}
    assert public["error"] == "InvalidOptionError"
    assert "me/public exists and is public" in public["message"]
    for result, said in (
        (no_token, f"there is no token; {login}"),
        (unknown, "the Hub refused it (HTTP 401"),
        (unknown, login),
        (reader, f"the token may only read; {login}"),
        (offline, "HF_HUB_OFFLINE forbids the network; unset it"),
        (down, "the Hub answered HTTP 503"),
        (unreachable, "check the network and try again"),
    ):
        assert result["error"] == "HubError"
        assert result["message"].startswith("nothing was exported: me/new cannot be written")
        assert said in result["message"]
        assert "\n" not in result["message"]


@pytest.mark.parametrize("kind", ["create", "branch", "preupload", "batch", "lfs", "commit"])
@pytest.mark.parametrize("status", [401, 403, 500])
def test_an_upload_that_fails_says_that_the_export_is_whole(
    kind: str, status: int, model: Path, tmp_path: Path
) -> None:
    push = _push(model, "me/there", revision="v2")
    with HubServer({"me/there": Repository({})}) as server:
        server.broken_uploads[kind] = status
        if kind == "create":
            server.repositories.clear()
        (done,) = calls(server, tmp_path / "home", push, HF_TOKEN=TOKEN)
        assert all(not there.commits for there in server.repositories.values())
    assert done["error"] == "HubError"
    message = done["message"]
    assert message.startswith(
        f"the export passed its checks and is in {model}, but was not uploaded to me/there "
        f"(later: hf upload me/there '{model}' .): "
    )
    assert f"HTTP {status}" in message
    assert ("try again later" if status == 500 else "log in with a token") in message
    assert "\n" not in message


def test_a_proxy_that_answers_with_a_web_page(model: Path, tmp_path: Path) -> None:
    with HubServer({"me/there": Repository({})}) as server:
        server.broken_uploads["commit"] = 200
        (done,) = calls(server, tmp_path / "home", _push(model, "me/there"), HF_TOKEN=TOKEN)
    assert done["error"] == "HubError"


def _export(folder: Path, server: HubServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-m", "timesformer_exporter", "--model", "model", *arguments],
        cwd=folder,
        env=inherited | server.environment(folder / "home") | {"HF_TOKEN": TOKEN},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_the_command_uploads_what_passed_and_only_that(tmp_path: Path) -> None:
    import torch  # noqa: PLC0415
    from safetensors.torch import load_file, save_file  # noqa: PLC0415

    preprocessing = Preprocessing(size=32, crop_size=(32, 32)).to_dict()
    write_checkpoint(tmp_path / "model", tiny_config("space_only"), preprocessing=preprocessing)
    with HubServer({}) as server:
        done = _export(tmp_path, server, "--push-to-hub", "me/shots", "--private")
        assert done.returncode == 0, done.stderr
        assert f"Uploaded to {server.url}/me/shots" in done.stdout.splitlines()
        repository = server.repositories["me/shots"]
        output = tmp_path / "model-onnx"
        assert repository.private
        assert repository.files == {
            path.relative_to(output).as_posix(): path.read_bytes()
            for path in output.rglob("*")
            if path.is_file()
        }
        assert b"me/shots" not in repository.files["export_report.json"]
        assert b"timesformer classify me/shots video.mp4" in repository.files["README.md"]

        wrong = _export(tmp_path, server, "--push-to-hub", "someone/else", "--force")
        assert wrong.returncode == 2
        last = wrong.stderr.splitlines()[-1]
        assert "is in model-onnx, but was not uploaded to someone/else" in last
        assert "HTTP 403: You don't have the rights to write under someone" in last
        assert (output / "onnx" / "model.onnx").is_file()

        tensors = load_file(tmp_path / "model" / "model.safetensors")
        tensors["classifier.weight"] = torch.full_like(tensors["classifier.weight"], 3e38)
        save_file(tensors, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
        failed = _export(tmp_path, server, "--push-to-hub", "me/shots", "--force")
        assert failed.returncode == 1
        assert len(repository.commits) == 1
        server.requests.clear()
        for bad in ("shots", "me/shots/", "me/--", "https://huggingface.co/me/shots", ""):
            refused = _export(tmp_path, server, "--push-to-hub", bad, "--force")
            assert refused.returncode == 2
            assert "it must be a name on the Hub" in refused.stderr
        assert not server.requests
