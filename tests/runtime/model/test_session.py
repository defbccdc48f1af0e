"""Sessions: devices, threads, options and every way in which a file cannot be loaded."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from timesformer_runtime.errors import DeviceError, InvalidModelError, InvalidOptionError
from timesformer_runtime.model import cpu, device
from timesformer_runtime.model.device import choose_device, cuda_problem, installed_wheels
from timesformer_runtime.model.session import Session
from timesformer_runtime.model.settings import SessionSettings

from tests.tiny_graphs import TinyGraph

CPU_SETTINGS = SessionSettings(device="cpu", threads=1)


@pytest.fixture
def fresh_cuda_check() -> Iterator[None]:
    cuda_problem.cache_clear()
    yield
    cuda_problem.cache_clear()


def on_cpu(graph: Path | bytes, settings: SessionSettings = CPU_SETTINGS) -> Session:
    return Session(graph, choose_device(settings), settings)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


# --- What the CPU grants -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        pytest.param({}, None, id="not Linux"),
        pytest.param({"proc/self/cgroup": "0::/\n"}, None, id="v2, no files"),
        pytest.param(
            {"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "150000 100000\n"},
            1.5,
            id="v2, own group",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
                "sys/fs/cgroup/a/cpu.max": "50000 100000\n",
            },
            0.5,
            id="v2, the group above",
        ),
        pytest.param(
            {"proc/self/cgroup": "0::/host/path\n", "sys/fs/cgroup/cpu.max": "300000 100000\n"},
            3.0,
            id="v2, own group is the mount's root",
        ),
        pytest.param(
            {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"},
            None,
            id="v2, no limit",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "4:memory:/m\n3:cpu,cpuacct:/c\n",
                "sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_period_us": "100000\n",
            },
            2.5,
            id="v1",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
            id="v1, no limit",
        ),
        pytest.param(
            {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "nonsense\n"},
            None,
            id="v2, unreadable",
        ),
    ],
)
def test_quota_of_control_groups(
    tmp_path: Path, files: dict[str, str], quota: float | None
) -> None:
    for name, text in files.items():
        write(tmp_path / name, text)
    assert cpu.cpu_quota(tmp_path) == quota


@pytest.mark.parametrize(
    ("affinity", "cpu_max", "threads"),
    [
        (8, "max 100000", 8),
        (8, "150000 100000", 2),  # rounded up
        (1, "400000 100000", 1),
        (8, "10000 100000", 1),  # never none
    ],
)
def test_granted_threads(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    affinity: int,
    cpu_max: str,
    threads: int,
) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/\n")
    write(tmp_path / "sys/fs/cgroup/cpu.max", cpu_max)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(affinity)), raising=False)
    assert cpu.granted_threads(tmp_path) == threads


@pytest.mark.parametrize(
    ("cpuinfo", "sets"),
    [
        ("flags\t\t: fpu avx2 avx512f\n", ("avx2", "avx512f")),
        ("flags : avx2 avx512_vnni\n", ("avx2", "avx512_vnni")),
        ("Features\t: fp asimddp\n", ("asimddp",)),
        ("", None),
    ],
)
def test_instruction_sets(tmp_path: Path, cpuinfo: str, sets: tuple[str, ...] | None) -> None:
    write(tmp_path / "proc/cpuinfo", cpuinfo)
    assert cpu.instruction_sets(tmp_path) == sets


@pytest.mark.parametrize("saturates", [True, False])
def test_overflow_is_seen_in_the_products(monkeypatch: pytest.MonkeyPatch, saturates: bool) -> None:
    """A processor without VNNI, simulated: two products are added in 16 bits, signed."""

    class Simulated:
        def __init__(self, graph: bytes, *_: Any, **__: Any) -> None:
            self.inputs = onnx.load_from_string(graph).graph.input

        def run(self, _: None, feeds: dict[str, Any]) -> list[Any]:
            assert [tensor.name for tensor in self.inputs] == list(feeds)
            a, b = feeds["a"].astype(np.int64), feeds["b"].astype(np.int64)
            pairs = a[:, ::2, None] * b[None, ::2] + a[:, 1::2, None] * b[None, 1::2]
            limit = (1 << 15) - 1 if saturates else 1 << 31
            return [pairs.clip(-limit - 1, limit).sum(axis=1).astype(np.int32)]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Simulated)
    assert cpu.saturates_int8.__wrapped__() is saturates


# --- Options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, "`device` is 'gpu'; it must be one of auto, cpu, cuda"),
        ({"threads": 0}, "`threads` is 0; it must be an integer from 1"),
        ({"threads": True}, "`threads` is True"),
        ({"threads": 1.5}, "`threads` is 1.5"),
        ({"threads": 100_000}, "`threads` is 100000; it must be an integer from 1 to 1024"),
        ({"provider_options": [{}]}, "`provider_options` needs `providers`"),
        ({"device": "cpu", "providers": ["CPUExecutionProvider"]}, "and `providers` contradict"),
        ({"providers": "CPUExecutionProvider"}, "must be a list of names"),
        ({"providers": []}, "must be a list of names"),
        ({"providers": 5}, "`providers` is 5; it must be a list of names"),
        ({"providers": iter(["CPUExecutionProvider"])}, "must be a list of names"),
        ({"providers": ["cpu"], "provider_options": {"a": "1"}}, "must be a list with one mapping"),
        ({"providers": ["cpu"], "provider_options": [None]}, "must be a list with one mapping"),
        ({"providers": ["cpu"], "provider_options": 5}, "`provider_options` is 5; it must be"),
        ({"device": "cuda", "allow_cpu_nodes": "no"}, "'no'; it must be True or False"),
        ({"session_options": "session.x"}, "`session_options` is 'session.x'; it must be a mapp"),
        ({"session_options": 5}, "`session_options` is 5; it must be a mapping"),
        (
            {"providers": ["CPUExecutionProvider"], "provider_options": [{}, {}]},
            "`provider_options` has 2 entries for 1 `providers`",
        ),
        ({"session_options": {"allow_spinning": "1"}}, "`session_options` has 'allow_spinning'"),
        ({"session_options": {"session.x": 1}}, "values are strings"),
        ({"session_options": {"enable_mem_pattern": True}}, "True; give '0' or '1'"),
        ({"session_options": {"session.disable_prepacking": "yes"}}, "'yes'; give '0' or '1'"),
        (
            {"session_options": {"session.intra_op.alow_spinning": "1"}},
            "ignores; 'session.intra_op.allow_spinning' is meant",
        ),
    ],
)
def test_settings_that_are_not_valid(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        SessionSettings(**options)


def test_threads_are_always_set(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = TinyGraph().proto().SerializeToString()
    monkeypatch.setattr(cpu, "granted_threads", lambda: 3)
    by_default = on_cpu(graph, SessionSettings(device="cpu"))
    assert by_default.threads == 3
    assert by_default._session.get_session_options().intra_op_num_threads == 3
    chosen = on_cpu(graph, SessionSettings(device="cpu", threads=2))
    assert chosen._session.get_session_options().intra_op_num_threads == 2


@pytest.mark.parametrize("saturates", [True, False])
def test_session_entries(monkeypatch: pytest.MonkeyPatch, saturates: bool) -> None:
    monkeypatch.setattr(cpu, "saturates_int8", lambda: saturates)
    graph = TinyGraph().proto().SerializeToString()
    spinning = "session.intra_op.allow_spinning"
    options = on_cpu(graph)._session.get_session_options()
    assert options.get_session_config_entry(spinning) == "0"
    if saturates:
        assert options.get_session_config_entry("session.x64quantprecision") == "1"
    else:
        with pytest.raises(RuntimeError):
            options.get_session_config_entry("session.x64quantprecision")
    assert on_cpu(graph).wide_products is saturates
    seven_bits = TinyGraph(metadata={"int8_target": "avx2"}).proto().SerializeToString()
    assert not on_cpu(seven_bits).wide_products
    narrow = SessionSettings(device="cpu", session_options={"session.x64quantprecision": "0"})
    assert not on_cpu(graph, narrow).wide_products
    assert (options.enable_cpu_mem_arena, options.enable_mem_pattern) == (True, False)
    asked = SessionSettings(
        device="cpu", session_options={spinning: "1", "enable_cpu_mem_arena": "0"}
    )
    options = on_cpu(graph, asked)._session.get_session_options()
    assert options.get_session_config_entry(spinning) == "1"
    assert (options.enable_cpu_mem_arena, options.enable_mem_pattern) == (False, False)


# --- Devices -------------------------------------------------------------------------------------


def test_the_probe_is_a_valid_model() -> None:
    model = onnx.load_from_string(device._PROBE)
    onnx.checker.check_model(model)
    session = on_cpu(device._PROBE)
    (answer,) = session.run(["y"], {"x": np.array([2.5], dtype=np.float32)})
    assert answer.tolist() == [2.5]


def test_cpu_is_what_was_asked_for() -> None:
    session = on_cpu(TinyGraph().proto().SerializeToString())
    assert session.providers == ("CPUExecutionProvider",)
    assert (session.device.name, session.device.reason) == ("cpu", "")


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this is a GPU build"
)
def test_cuda_without_a_gpu_build_says_which_wheel(fresh_cuda_check: None) -> None:
    with pytest.raises(DeviceError, match=r"has no CUDAExecutionProvider.*timesformer-onnx\[gpu\]"):
        choose_device(SessionSettings(device="cuda"))
    chosen = choose_device(SessionSettings(device="auto"))
    assert chosen.name == "cpu"
    assert chosen.reason == "this ONNX Runtime is built without CUDA"


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this is a GPU build"
)
@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
def test_cuda_that_is_listed_but_does_not_load(
    monkeypatch: pytest.MonkeyPatch, fresh_cuda_check: None, caplog: pytest.LogCaptureFixture
) -> None:
    """As with a GPU wheel without CUDA's libraries: ONNX Runtime would silently take the CPU."""
    names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    with pytest.raises(DeviceError, match=r"cannot load: .*providers_cuda.*No such file") as caught:
        choose_device(SessionSettings(device="cuda"))
    assert "install an NVIDIA driver, CUDA" in str(caught.value)
    with pytest.raises(DeviceError, match="cannot load"):
        choose_device(SessionSettings(providers=names))
    with caplog.at_level(logging.WARNING, "timesformer_runtime"):
        chosen = choose_device(SessionSettings(device="auto"))
    assert chosen.name == "cpu"
    assert "providers_cuda" in chosen.reason
    assert "running on the CPU" in caplog.text


@pytest.mark.skipif(cuda_problem() is None, reason="CUDA works here")
@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
def test_a_session_that_lacks_a_provider_is_an_error() -> None:
    names = ("CUDAExecutionProvider", "CPUExecutionProvider")
    wanted = device.Device("cuda", names, ({}, {}))
    with pytest.raises(DeviceError, match="runs without CUDAExecutionProvider"):
        Session(TinyGraph().proto().SerializeToString(), wanted, CPU_SETTINGS)


def test_providers_by_name() -> None:
    chosen = choose_device(
        SessionSettings(providers=["CPUExecutionProvider"], provider_options=[{}])
    )
    assert chosen.name == "cpu"
    assert chosen.options == ({},)
    with pytest.raises(DeviceError, match=r"'NoExecutionProvider' is not in ONNX Runtime .*it has"):
        choose_device(SessionSettings(providers=["NoExecutionProvider"]))


@pytest.mark.skipif(cuda_problem() is not None, reason="no NVIDIA GPU that works")
def test_cuda_agrees_with_the_cpu() -> None:
    graph = TinyGraph().proto().SerializeToString()
    settings = SessionSettings(device="cuda")
    clip = np.random.default_rng(0).standard_normal((1, 4, 3, 24, 24), dtype=np.float32)
    session = Session(graph, choose_device(settings), settings)
    assert "CUDAExecutionProvider" in session.providers
    (by_cuda,) = session.run(["logits"], {"pixel_values": clip})
    (by_cpu,) = on_cpu(graph).run(["logits"], {"pixel_values": clip})
    np.testing.assert_allclose(by_cuda, by_cpu, atol=1e-5)


def test_installed_wheels_has_the_one_in_use() -> None:
    assert onnxruntime.__version__ in installed_wheels().values()


# --- Files that cannot be loaded -----------------------------------------------------------------

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not a model at all", id="text"),
        pytest.param(b"<!DOCTYPE html><html><body>Not found</body></html>", id="html"),
        pytest.param(LFS_POINTER, id="git-lfs pointer"),
        pytest.param(TinyGraph().proto().SerializeToString()[:200], id="truncated"),
    ],
)
@pytest.mark.parametrize("as_bytes", [True, False], ids=["bytes", "file"])
def test_broken_models(
    tmp_path: Path, content: bytes, as_bytes: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(InvalidModelError) as caught:
        on_cpu(content if as_bytes else path)
    message = str(caught.value)
    assert ("the model's bytes" if as_bytes else str(path)) in message
    assert "cannot load it" in message
    assert "export it again" in message
    assert "\n" not in message
    assert capfd.readouterr() == ("", "")  # nothing of ONNX Runtime's log reaches the terminal


def test_missing_external_data(tmp_path: Path) -> None:
    path = TinyGraph().save(
        tmp_path / "model.onnx",
        save_as_external_data=True,
        location="model.onnx_data",
        size_threshold=80,  # the weights only
    )
    (tmp_path / "model.onnx_data").unlink()
    with pytest.raises(InvalidModelError, match=r"model\.onnx_data"):
        on_cpu(path)


def test_an_input_that_does_not_fit(capfd: pytest.CaptureFixture[str]) -> None:
    session = on_cpu(TinyGraph().proto().SerializeToString())
    with pytest.raises(InvalidModelError) as caught:
        session.run(["logits"], {"pixel_values": np.zeros((1, 5, 3, 24, 24), dtype=np.float32)})
    assert "failed on cpu for pixel_values [1, 5, 3, 24, 24]" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_name_in_the_graph_does_not_reach_the_terminal_as_it_is() -> None:
    graph = TinyGraph().proto()
    graph.graph.output[0].name = "\x1b[2J\ufeff"  # which ONNX Runtime's message quotes
    with pytest.raises(InvalidModelError) as caught:
        on_cpu(graph.SerializeToString())
    assert str(caught.value).isprintable()
    assert device.one_line("a\nb \x1b[2J\ufeff. ") == "a b \\x1b[2J\\ufeff"
    assert len(device.one_line("\x1b" * 10_000)) <= 600


# --- Without ONNX Runtime, each in its own process -----------------------------------------------

BLOCKER = """
    import sys

    class Blocker:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in {blocked!r}:
                raise {error}

    sys.meta_path.insert(0, Blocker())
"""


def run_blocked(code: str, *blocked: str, error: str | None = None) -> str:
    raised = error or "ModuleNotFoundError(f'No module named {name!r}', name=name)"
    source = textwrap.dedent(BLOCKER).format(blocked=blocked, error=raised) + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


USE_IT = """
    import timesformer_runtime
    from timesformer_runtime import MissingDependencyError, VideoClassifier
    try:
        VideoClassifier.from_pretrained(b"x", device="auto")
    except MissingDependencyError as error:
        assert isinstance(error, ImportError)
        print(error)
"""


def test_not_installed() -> None:
    message = run_blocked(USE_IT, "onnxruntime")
    assert message == (
        'ONNX Runtime is not installed: pip install "timesformer-onnx[cpu]" '
        '(or "timesformer-onnx[gpu]" for NVIDIA GPUs)'
    )


def test_installed_but_broken() -> None:
    broken = "ImportError('libfoo.so.1: cannot open\\nshared object file')"
    message = run_blocked(USE_IT, "onnxruntime", error=broken)
    assert message.startswith(
        "ONNX Runtime cannot be loaded (libfoo.so.1: cannot open shared object file): pip install"
    )


def test_half_installed() -> None:
    """Both wheels share a folder: uninstalling one leaves a package without the library."""
    leftover = "import sys, types; sys.modules['onnxruntime'] = types.ModuleType('onnxruntime')"
    message = run_blocked(leftover + textwrap.dedent(USE_IT))
    assert "only half installed: pip uninstall -y onnxruntime onnxruntime-gpu, then" in message
