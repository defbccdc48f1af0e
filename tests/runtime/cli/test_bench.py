"""``timesformer bench`` as users run it: a table, JSON, and its errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from timesformer_runtime.cli.bench import _powers_of_two

from tests.command_line import COMMAND, Result, timesformer
from tests.hub_server import HubServer, Repository
from tests.patience import PATIENCE
from tests.tiny_graphs import TinyGraph, write_exported_model

QUICK = ("--seconds", "0", "--threads", "1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The exported model ``shots``, whose int8 file disagrees with its fp32 file."""
    write_exported_model(tmp_path / "shots", ("fp32", "int8"))
    TinyGraph(scale=-1.0).save(tmp_path / "shots" / "onnx" / "model_int8.onnx")
    return tmp_path


def bench(folder: Path, *arguments: str, **options: Any) -> Result:
    return timesformer(folder, "bench", *arguments, **options)


def test_a_table_that_ends_with_a_recommendation(folder: Path) -> None:
    done = bench(folder, "shots", *QUICK)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("shots: measuring fp32, int8, device cpu, 1 thread, for")
    head, fp32, int8, sentence = done.stdout.splitlines()
    assert head.split() == [
        *("variant", "threads", "median", "p95", "clips/s", "load", "MB", "agreement")
    ]
    assert fp32.split()[:2] == ["fp32", "1"]
    assert int8.split()[:2] == ["int8", "1"]
    assert " FAILED " in int8
    assert sentence.startswith("Use fp32 with 1 thread: ")
    assert "int8 disagrees with fp32" in sentence


def test_json(folder: Path) -> None:
    done = bench(folder, "shots", *QUICK, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    fp32, int8 = found["measurements"]
    assert (fp32["dtype"], fp32["threads"], fp32["agreement"]) == ("fp32", 1, None)
    assert fp32["runs"] >= fp32["rounds"] == 5
    assert not int8["agreement"]["passed"]
    assert found["failures"] == []
    assert found["recommendation"]["one_clip"] == {"dtype": "fp32", "threads": 1}
    assert found["recommendation"]["sentence"].startswith("Use fp32")
    assert {"device", "cores", "versions", "instructions"} <= set(found)


def test_chosen_variants(folder: Path) -> None:
    done = bench(folder, "shots", *QUICK, "--dtype", "int8", "--json")
    found = json.loads(done.stdout)
    assert [one["dtype"] for one in found["measurements"]] == ["int8"]
    assert "fp32 was not measured" in found["recommendation"]["sentence"]


def test_the_int8_file_of_7_bits_is_named(folder: Path) -> None:
    graphs = folder / "shots" / "onnx"
    (graphs / "model_int8.onnx").rename(graphs / "model_int8_avx2.onnx")
    done = bench(folder, "shots", *QUICK, "--dtype", "int8")
    assert done.returncode == 0, done.stderr
    assert "int8 is model_int8_avx2.onnx: weights of 7 bits" in done.stderr


def test_a_provider_with_its_options(folder: Path) -> None:
    done = bench(folder, "shots", *QUICK, "--dtype", "fp32", "--provider", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["device"] == "cpu"


def test_what_a_provider_refuses_is_told_with_the_commands_options(folder: Path) -> None:
    if "AzureExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has no provider that leaves all nodes to the CPU")
    arguments = ("shots", *QUICK, "--dtype", "fp32", "--provider", "azure")
    done = bench(folder, *arguments)
    assert done.returncode == 2
    assert "accept these nodes with --allow-cpu-nodes" in done.stderr
    done = bench(folder, *arguments, "--allow-cpu-nodes", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["device"] == "azure"


def test_one_file_of_any_name(folder: Path) -> None:
    (folder / "shots" / "onnx" / "model.onnx").rename(folder / "shots" / "mine.onnx")
    done = bench(folder, "shots/mine.onnx", *QUICK)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].startswith("mine.onnx ")


@pytest.mark.parametrize("content", [b"", b"\x08\x08"])
def test_a_variant_that_cannot_run_does_not_stop_the_others(content: bytes, folder: Path) -> None:
    (folder / "shots" / "onnx" / "model_int8.onnx").write_bytes(content)
    done = bench(folder, "shots", "--seconds", "0", "--threads", "1", "--threads", "2")
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("timesformer: ")]
    assert len(errors) == 1  # although both numbers of threads failed
    assert "model_int8.onnx" in errors[0]
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        *("variant", "fp32", "fp32", "Use")
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "missing: there is no such folder or file"),
        (["shots", "--dtype", "int9"], "--dtype is 'int9'; it must be one of"),
        (["shots", "--dtype", "q4"], "there is no q4 (model_q4.onnx); it has fp32, int8"),
        (["shots", "--threads", "0"], "'--threads'"),
        (["shots", "--seconds", "-1"], "--seconds is -1.0; it must be a number from 0 to"),
        (["shots", "--seconds", "nan"], "--seconds is nan; it must be a number from 0 to"),
        (["shots", "--session-option", "x"], "'x' is not KEY=VALUE"),
        (["shots", "--provider", "cpu", "--device", "cpu"], "contradict each other"),
        (["shots", "--provider-option", "a=b"], "'a=b' needs a provider; name it with --provider"),
        (["shots", "--revision", "main"], "shots is not a Hub id: leave --revision out"),
        (["shots/config.json"], "a model file must end in .onnx"),
    ],
)
def test_bad_input(folder: Path, arguments: list[str], message: str) -> None:
    done = bench(folder, *arguments)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert message in line


def test_no_variant_can_run(folder: Path) -> None:
    for file in (folder / "shots" / "onnx").iterdir():
        file.write_bytes(b"\x08\x08")
    done = bench(folder, "shots", *QUICK)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == "timesformer: no variant could be measured"


@pytest.mark.skipif(os.name != "posix", reason="this system has no such signals")
def test_interrupt(folder: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "bench", "shots"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    process.stderr.readline()  # it has begun
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert (process.returncode, stdout) == (130, "")
    assert stderr.strip() == "timesformer: interrupted"


def test_of_a_model_on_the_hub_the_chosen_variants_are_downloaded(folder: Path) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    with HubServer({"owner/shots": Repository.of_folder(folder / "shots")}) as server:
        environment = inherited | server.environment(folder / "home")
        done = bench(folder, "owner/shots", *QUICK, "--dtype", "fp32", env=environment)
        fetched = {line.rpartition("/")[2] for line in server.requests if "/resolve/" in line}
        assert done.returncode == 0, done.stderr
        assert "model_int8.onnx" not in fetched
        every = bench(folder, "owner/shots", *QUICK, "--json", env=environment)
        assert every.returncode == 0, every.stderr
    assert [one["dtype"] for one in json.loads(every.stdout)["measurements"]] == ["fp32", "int8"]


def test_the_usual_numbers_of_threads() -> None:
    expected = {1: [1], 2: [1, 2], 3: [1, 2, 3], 4: [1, 2, 4], 12: [1, 2, 4, 8, 12]}
    assert {cores: _powers_of_two(cores) for cores in expected} == expected
