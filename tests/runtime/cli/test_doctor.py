"""``timesformer doctor``: the facts about a machine, and providers that are tried out."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from timesformer_runtime.child_process import ChildProcess
from timesformer_runtime.cli import diagnosis, provider_check
from timesformer_runtime.cli.nvidia_libraries import nvidia_libraries
from timesformer_runtime.cli.provider_check import CPU, ProviderCheck, check_provider
from timesformer_runtime.errors import ChildError, InvalidModelError
from timesformer_runtime.model.inspection import inspect_model
from timesformer_runtime.model.memory import Memory

from tests.patience import PATIENCE

OTHER = "OtherExecutionProvider"
RIGHT = {"works": True, "is_wrong": False, "max_abs": 1e-7, "nodes": 60}


def test_json() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "timesformer_runtime", "doctor", "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode in {0, 1}, done.stderr
    facts = json.loads(done.stdout)
    assert (done.returncode == 1) == bool(facts["problems"])
    assert CPU in facts["providers"]
    assert facts["cpu"]["works"]
    assert facts["cpu"]["max_abs"] < 1e-4
    assert set(facts["int8"]) == {"exact", "products"}
    assert facts["threads"]["granted"] >= 1
    assert facts["decoders"]["h264"]
    assert set(facts["memory"]) == {"total", "available", "limit", "left"}
    assert {"cuda", "ffmpeg", "instructions"} <= set(facts)


@pytest.fixture(scope="module")
def probe_models() -> Any:
    """The module that makes the stored models, for which it needs PyTorch."""
    pytest.importorskip("torch")
    return importlib.import_module("models.probe_models")


def test_the_stored_models_are_those_of_their_maker(probe_models: Any) -> None:
    config = json.loads(json.dumps(probe_models.CONFIG.to_dict()))
    for opset in probe_models.OPSETS:
        found = inspect_model(str(probe_models.FOLDER / f"opset{opset}.onnx"))
        assert found["opsets"] == {"ai.onnx": opset}
        assert found["golden_check"]
        assert found["architecture"].items() <= config.items()
        assert found["labels"] == [*config["label2id"]]


def test_the_stored_models_give_pytorchs_values_on_the_cpu(probe_models: Any) -> None:
    for opset in probe_models.OPSETS:
        check = provider_check._check(CPU, opset)
        assert check.works, check
        assert check.max_abs is not None
        assert check.max_abs < 1e-4
        assert check.cpu_nodes == 0


def answers(monkeypatch: pytest.MonkeyPatch, answer: Callable[[dict[str, str]], Any]) -> None:
    """Makes the process of a provider give an answer, or raise an error."""

    def ask(_self: Any, request: dict[str, str], seconds: float) -> Any:
        return answer(request)

    monkeypatch.setattr(ChildProcess, "ask", ask)


def test_a_provider_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, lambda _: RIGHT)
    assert check_provider(OTHER).text == "works (differs from PyTorch by 1e-07)"
    answers(monkeypatch, lambda _: RIGHT | {"nodes": 65, "cpu_nodes": 15})
    assert check_provider(OTHER).text.endswith("with 15 of 65 nodes on the CPU")


def test_a_provider_that_leaves_all_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, lambda _: RIGHT | {"works": False, "nodes": 65, "cpu_nodes": 65})
    assert check_provider(OTHER).text.startswith("runs no node of a TimeSformer")


def test_a_provider_that_takes_older_operators_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_new(request: dict[str, str]) -> Any:
        if request["model"].endswith("opset23.onnx"):
            raise InvalidModelError("it knows no Attention")
        return RIGHT

    answers(monkeypatch, refuse_new)
    check = check_provider(OTHER)
    assert check.works
    assert "refuses one of opset 23: export with --opset 18" in check.text
    assert check.reason == "it knows no Attention"


def test_a_provider_that_refuses_or_crashes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_request: dict[str, str]) -> Any:
        raise ChildError("the process crashed (SIGSEGV)")

    answers(monkeypatch, refuse)
    check = check_provider(OTHER)
    assert not check.works
    assert check.text == "does not run a TimeSformer: the process crashed (SIGSEGV)"


@pytest.mark.parametrize(
    ("provider", "check", "problem"),
    [
        (CPU, ProviderCheck(works=True, max_abs=1e-7), None),
        (OTHER, ProviderCheck(works=False, reason="no driver"), None),
        (OTHER, ProviderCheck(works=False, is_wrong=True, max_abs=0.5), "computes wrong values"),
        (CPU, ProviderCheck(works=False, reason="crashed"), "install ONNX Runtime again"),
    ],
)
def test_problems_of_providers(
    monkeypatch: pytest.MonkeyPatch, provider: str, check: ProviderCheck, problem: str | None
) -> None:
    found = list(diagnosis._provider_problems(provider, check))
    assert len(found) == (problem is not None)
    assert all(problem in text for text in found if problem)


def test_libraries_of_nvidia(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    there = {"libcuda.so.1", "libcudart.so.12", "libcufft.so.11", "libcudnn.so.9"}

    def load(name: str) -> None:
        if name not in there:
            raise OSError(name)

    found = nvidia_libraries(SimpleNamespace(cuda_version="12.8"), load)
    assert found is not None
    assert {name for name, is_there in found.items() if is_there} == there
    assert {"libcublas.so.12", "libcublasLt.so.12", "libcurand.so.10"} <= set(found) - there
    assert nvidia_libraries(SimpleNamespace(cuda_version=None), load) == {"libcuda.so.1": True}
    text = diagnosis._found_or_missing({"a": True, "b": False, "c": False}).text
    assert text == "found a; missing b, c"


def test_memory_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown(memory: Memory) -> str:
        monkeypatch.setattr(diagnosis, "machine_memory", lambda: memory)
        return diagnosis._memory().text

    assert shown(Memory(None, None, None, None)) == "unknown"
    assert shown(Memory(8_000_000_000, 5_000_000_000, 450_000_000, 20_000_000)) == (
        "8,000 MB in all, 5,000 MB available, a limit of 450 MB by the control group, "
        "20 MB left of it"
    )


def test_a_decoder_that_is_missing() -> None:
    assert diagnosis._decodes("h264")
    assert not diagnosis._decodes("no_such_codec")
