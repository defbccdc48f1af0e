"""Checkpoints from the Hub, against a loopback server that speaks its API."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file

from tests.checkpoint_samples import random_clips, random_model, tiny_config, to_facebook
from tests.hub_server import TOKEN, HubServer, Repository
from tests.patience import PATIENCE

# huggingface_hub reads its variables when it is imported, so it needs a process of its own. All
# loads share one process, because the import of torch takes a while.
CLIENT = """
import json, sys, time
from timesformer_exporter.checkpoints import build_model, load_checkpoint
from timesformer_exporter.errors import ExportError
from timesformer_runtime.errors import TimesformerError
from tests.checkpoint_samples import random_clips
time.sleep = lambda seconds: None  # huggingface_hub waits longer and longer between retries
for model, options in json.loads(sys.argv[1]):
    try:
        checkpoint = load_checkpoint(model, **options)
        logits = build_model(checkpoint, "video-classification")(random_clips(checkpoint.config))
        source = checkpoint.source
        print(json.dumps({
            "model": source.model, "revision": source.revision, "format": source.format,
            "files": sorted(source.files), "notes": checkpoint.notes, "logits": logits.tolist(),
        }))
    except (ExportError, TimesformerError) as error:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}))
"""

CONFIG = tiny_config()
OLD_COMMIT = "a" * 40


def folder_of(path: Path, **options: Any) -> Path:
    """Makes the checkpoint folder that transformers writes for the random model."""
    theirs = transformers.TimesformerForVideoClassification(
        transformers.TimesformerConfig(**CONFIG.to_dict())
    )
    theirs.load_state_dict(random_model(CONFIG).state_dict())
    theirs.save_pretrained(path, **options)
    values = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    (path / "preprocessor_config.json").write_text(json.dumps(values))
    (path / "README.md").write_text("never downloaded")
    return path


def loads(
    server: HubServer, home: Path, *calls: tuple[str, dict[str, Any]], **variables: str
) -> list[dict[str, Any]]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    root = Path(__file__).parents[3]
    finished = subprocess.run(
        [sys.executable, "-c", CLIENT, json.dumps(calls)],
        env=inherited | server.environment(home) | {"OMP_NUM_THREADS": "1"} | variables,
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    results = [json.loads(line) for line in finished.stdout.splitlines()]
    assert len(results) == len(calls)
    return results


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Repository]:
    root = tmp_path_factory.mktemp("repositories")
    whole = folder_of(root / "safetensors")
    sharded = folder_of(root / "sharded", max_shard_size="20KB")
    pickled = folder_of(root / "bin")
    (pickled / "model.safetensors").unlink()
    torch.save(random_model(CONFIG).state_dict(), pickled / "pytorch_model.bin")
    authors = root / "authors"
    authors.mkdir()
    torch.save({"model_state": to_facebook(random_model(CONFIG).state_dict())}, authors / "m.pyth")
    both = folder_of(root / "both")
    torch.save({"x": torch.zeros(1)}, both / "pytorch_model.bin")
    cut = folder_of(root / "cut")
    adapter = root / "adapter"
    adapter.mkdir()
    settings = {"peft_type": "LORA", "base_model_name_or_path": "me/safetensors", "lora_alpha": 4}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    qkv = "base_model.model.timesformer.encoder.layer.0.attention.attention.qkv"
    factors = {f"{qkv}.lora_A.weight": torch.ones(2, 32), f"{qkv}.lora_B.weight": torch.ones(96, 2)}
    save_file(factors, adapter / "adapter_model.safetensors")
    page = folder_of(root / "page")
    nested = folder_of(root / "nested")
    values = json.loads((nested / "preprocessor_config.json").read_text())
    (nested / "preprocessor_config.json").unlink()
    processors = {
        "video_processor": values,
        "image_processor": values | {"image_mean": [0.1, 0.2, 0.3]},
    }
    (nested / "processor_config.json").write_text(json.dumps(processors))
    (page / "model.safetensors").write_text("<!doctype html><p>sign in</p>")
    return {
        "me/safetensors": Repository.of_folder(whole, revisions=("refs/pr/5",)),
        "me/sharded": Repository.of_folder(sharded),
        "me/bin": Repository.of_folder(pickled),
        "me/authors": Repository.of_folder(authors),
        "me/both": Repository.of_folder(both),
        "me/gated": Repository.of_folder(whole, gated=True),
        "me/cut": Repository.of_folder(cut, broken={"model.safetensors"}),
        "me/adapter": Repository.of_folder(adapter),
        "me/page": Repository.of_folder(page),
        "me/nested": Repository.of_folder(nested),
        "me/empty": Repository({"README.md": b"nothing"}),
        "me/onnx": Repository({"config.json": b"{}", "onnx/model.onnx": b""}),
    }


@torch.no_grad()
def test_every_layout_on_the_hub_gives_the_same_logits(
    repositories: dict[str, Repository], tmp_path: Path
) -> None:
    heads = {"attention_heads": 2}
    with HubServer(repositories) as server:
        results = loads(
            server,
            tmp_path,
            ("me/safetensors", {}),
            ("me/safetensors", {"revision": "refs/pr/5"}),
            ("me/sharded", {}),
            ("me/bin", {}),
            ("me/authors", heads),
            ("me/both", {}),
            ("me/safetensors", {"local_files_only": True}),
            ("me/sharded", {"local_files_only": True}),
            ("me/nested", {}),
        )
    expected = random_model(CONFIG)(random_clips(CONFIG))
    configured = ["config.json", "preprocessor_config.json"]
    commit = repositories["me/safetensors"].commit
    for result in results:
        assert "error" not in result, result
        assert torch.equal(torch.tensor(result["logits"]), expected)
        assert result["revision"] == commit
    assert results[0]["model"] == "me/safetensors"
    assert results[0]["files"] == sorted([*configured, "model.safetensors"])
    assert results[0]["notes"] == []
    assert results[3]["files"] == sorted([*configured, "pytorch_model.bin"])
    assert results[4]["format"] == "facebook"
    assert results[4]["files"] == ["m.pyth"]
    assert results[5]["files"] == results[0]["files"]
    assert results[8]["files"] == ["config.json", "model.safetensors", "processor_config.json"]
    assert "(video_processor) counts, as in transformers" in results[8]["notes"][0]
    assert "model.safetensors.index.json" in results[2]["files"]
    assert len(results[2]["files"]) > 4
    assert not [request for request in server.requests if "README" in request]
    assert not [request for request in server.requests if "both/pytorch_model.bin" in request]


@torch.no_grad()
def test_an_adapter_brings_its_base_model(
    repositories: dict[str, Repository], tmp_path: Path
) -> None:
    with HubServer(repositories) as server:
        (result,) = loads(server, tmp_path, ("me/adapter", {}))
    model = random_model(CONFIG)
    name = "timesformer.encoder.layer.0.attention.attention.qkv.weight"
    model.get_parameter(name).add_(4)  # 4 / 2 * ones @ ones
    expected = model(random_clips(CONFIG))
    assert torch.allclose(torch.tensor(result["logits"]), expected, rtol=0, atol=1e-4)
    assert result["model"] == "me/adapter"
    assert "adapter_config.json" in result["files"]
    assert "The LoRA adapter was merged into its base model me/safetensors." in result["notes"]


def test_an_adapter_of_the_hub_names_no_path_of_this_machine(
    repositories: dict[str, Repository], tmp_path: Path
) -> None:
    adapter = dict(repositories["me/adapter"].files)
    settings = json.loads(adapter["adapter_config.json"])
    folder = folder_of(tmp_path / "private")
    settings["base_model_name_or_path"] = str(folder)
    adapter["adapter_config.json"] = json.dumps(settings).encode()
    with HubServer(repositories | {"me/spy": Repository(adapter)}) as server:
        (result,) = loads(server, tmp_path, ("me/spy", {}))
    assert result["error"] == "CheckpointNotFoundError"
    assert f"base model of the adapter me/spy is absent: {folder}" in result["message"]


def test_refusals_are_one_line_with_the_remedy(
    repositories: dict[str, Repository], tmp_path: Path
) -> None:
    with HubServer(repositories) as server:
        results = loads(
            server,
            tmp_path,
            ("me/missing", {}),
            ("me/safetensors", {"revision": "v9"}),
            ("me/gated", {}),
            ("me/cut", {}),
            ("me/page", {}),
            ("me/empty", {}),
            ("me/onnx", {}),
            ("me/safetensors", {"local_files_only": True}),
        )
    expected = (
        (
            "CheckpointNotFoundError",
            "me/missing is not a local file or folder, and there is no model",
        ),
        ("CheckpointNotFoundError", "me/safetensors has no revision v9"),
        ("HubError", "me/gated is gated"),
        ("HubError", "downloading model.safetensors of me/cut"),
        ("InvalidCheckpointError", "is a web page"),
        ("InvalidCheckpointError", "me/empty has no weights"),
        ("InvalidCheckpointError", "me/onnx has exported ONNX files but no PyTorch weights"),
        ("CheckpointNotFoundError", "is not in the Hub's cache"),
    )
    for result, (error, said) in zip(results, expected, strict=True):
        assert result["error"] == error
        assert said in result["message"]
        assert "\n" not in result["message"]


def test_a_token_opens_gated_models_and_a_commit_pins_all_files(
    repositories: dict[str, Repository], tmp_path: Path
) -> None:
    pinned = dataclasses.replace(repositories["me/gated"], commit=OLD_COMMIT)
    with HubServer({"me/gated": pinned}) as server:
        (result,) = loads(server, tmp_path, ("me/gated", {}), HF_TOKEN=TOKEN)
    assert result["revision"] == OLD_COMMIT
    resolved = [request for request in server.requests if "/resolve/" in request]
    # The first file says which commit the branch is at; the others come from that commit.
    asked = [tuple(request.split("/resolve/")[1].split("/")) for request in resolved]
    assert set(asked) == {
        ("main", "model.safetensors"),
        (OLD_COMMIT, "config.json"),
        (OLD_COMMIT, "preprocessor_config.json"),
    }


def test_a_local_path_comes_before_the_hub(
    repositories: dict[str, Repository], tmp_path: Path
) -> None:
    local = tmp_path / "me" / "safetensors"
    local.mkdir(parents=True)
    save_file({"x": torch.zeros(1)}, local / "model.safetensors")
    with HubServer(repositories) as server:
        (result,) = loads(server, tmp_path, (str(local), {}))
    assert "is not a TimeSformer" in result["message"]
    assert not server.requests
