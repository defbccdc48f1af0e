"""Devices other than the CPU: their names and options, and graphs that they do not take whole.

ONNX Runtime's CPU provider under another name takes the place of such a device; so does a session
that is made up. ``tests/end_to_end/test_openvino.py`` runs on a real one.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from timesformer_runtime import VideoClassifier
from timesformer_runtime.errors import DeviceError, InvalidModelError, InvalidOptionError
from timesformer_runtime.model import device, graph_file, session
from timesformer_runtime.model.device import Device, choose_device
from timesformer_runtime.model.graph_outline import GraphOutline, outline
from timesformer_runtime.model.placement import Placement, find_placement
from timesformer_runtime.model.session import Session
from timesformer_runtime.model.settings import SessionSettings

from tests.tiny_graphs import TinyGraph, own_metadata

CPU = "CPUExecutionProvider"
SETTINGS = SessionSettings(threads=2)


def other(*, allows_cpu_nodes: bool = False, provider: str = CPU, **options: str) -> Device:
    """A device that is not called ``cpu``."""
    return Device("other", (provider,), (options,), allows_cpu_nodes=allows_cpu_nodes)


def tiny(**metadata: str) -> bytes:
    content: bytes = TinyGraph(metadata=own_metadata(**metadata)).proto().SerializeToString()
    return content


# --- Names and options ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cuda:", "cuda:x", "cuda:-1", "CUDA:1", "cpu:1", "cuda:0001", 1])
def test_devices_that_do_not_exist(name: Any) -> None:
    with pytest.raises(InvalidOptionError, match=r"it must be one of auto, cpu, cuda, cuda:N"):
        SessionSettings(device=name)


@pytest.mark.parametrize(
    ("name", "shown", "number", "allowed"),
    [
        ("auto", "cuda", 0, True),
        ("cuda", "cuda", 0, False),
        ("cuda:0", "cuda:0", 0, False),
        ("cuda:1", "cuda:1", 1, False),
    ],
)
def test_the_number_of_a_gpu(
    monkeypatch: pytest.MonkeyPatch, name: str, shown: str, number: int, allowed: bool
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(device, "cuda_problem", asked.append)  # None: there is no problem
    chosen = choose_device(SessionSettings(device=name))
    assert asked == [number]
    assert (chosen.name, chosen.kind, chosen.allows_cpu_nodes) == (shown, "cuda", allowed)
    assert chosen.options[0]["device_id"] == str(number)
    if not allowed:
        settings = SessionSettings(device=name, allow_cpu_nodes=True)
        assert choose_device(settings).allows_cpu_nodes


def test_a_gpu_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "cuda_problem", lambda number: f"there is no GPU {number}")
    with pytest.raises(DeviceError, match="'cuda:7' is not available: there is no GPU 7"):
        choose_device(SessionSettings(device="cuda:7"))


@pytest.mark.parametrize("options", [{"device": "cpu"}, {"device": "auto"}])
def test_the_cpu_takes_all_nodes_anyway(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptionError, match="`allow_cpu_nodes` is for another device"):
        SessionSettings(allow_cpu_nodes=True, **options)
    with pytest.raises(InvalidOptionError, match="`allow_cpu_nodes` is for another device"):
        choose_device(SessionSettings(allow_cpu_nodes=True, providers=["cpu"]))


@pytest.mark.parametrize("name", ["cpu", "CPU", CPU, CPU.lower()])
def test_short_names_of_providers(name: str) -> None:
    chosen = choose_device(SessionSettings(providers=[name]))
    assert (chosen.name, chosen.providers) == ("cpu", (CPU,))


def test_every_provider_has_a_short_name(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["OpenVINOExecutionProvider", "QNNExecutionProvider", CPU]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    chosen = choose_device(
        SessionSettings(providers=["openvino", "QNN"], provider_options=[{"a": "1"}, {}])
    )
    assert (chosen.name, chosen.providers) == ("openvino", tuple(names[:2]))
    assert chosen.options == ({"a": "1"}, {})
    assert not chosen.allows_cpu_nodes
    # ONNX Runtime would add the CPU's provider anyway: who names it wants it.
    assert choose_device(SessionSettings(providers=["openvino", "cpu"])).allows_cpu_nodes


def test_the_gpu_of_a_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(device, "cuda_problem", asked.append)
    names = ["CUDAExecutionProvider", CPU]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    choose_device(SessionSettings(providers=["cuda"], provider_options=[{"device_id": 2}]))
    assert asked == [2]
    with pytest.raises(InvalidOptionError, match="device_id is 'first'"):
        choose_device(
            SessionSettings(providers=["cuda"], provider_options=[{"device_id": "first"}])
        )


@pytest.mark.parametrize("providers", [["cpu"], ["openvino", CPU]])
def test_options_of_the_cpu_would_do_nothing(
    monkeypatch: pytest.MonkeyPatch, providers: list[str]
) -> None:
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["OpenVINOExecutionProvider", CPU]
    )
    options: list[dict[str, str]] = [{} for _ in providers]
    options[-1] = {"arena_extend_strategy": "kSameAsRequested"}
    with pytest.raises(
        InvalidOptionError, match="has 'arena_extend_strategy' for 'cpu', which has no options"
    ):
        choose_device(SessionSettings(providers=providers, provider_options=options))


def test_provider_names_that_are_not_valid() -> None:
    with pytest.raises(InvalidOptionError, match="name each only once"):
        choose_device(SessionSettings(providers=["cpu", CPU]))
    with pytest.raises(DeviceError, match=rf"'tpu' is not in ONNX Runtime .* it has .*{CPU}"):
        choose_device(SessionSettings(providers=["tpu"]))
    with pytest.raises(InvalidOptionError, match="must be a list of names"):
        SessionSettings(providers=[1])  # type: ignore[list-item]


def test_threads_reach_a_provider_that_has_its_own_option(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    real = onnxruntime.InferenceSession

    def start(*arguments: Any, providers: Any, provider_options: Any = None, **rest: Any) -> Any:
        if providers != [CPU]:
            given.append(provider_options)
        return real(*arguments, providers=[CPU], **rest)

    monkeypatch.setattr(onnxruntime, "InferenceSession", start)
    monkeypatch.setattr(session, "_THREADS_OPTIONS", {"Own": "its_threads"})
    monkeypatch.setattr(Session, "_check_providers", lambda self: None)
    for options in ({}, {"its_threads": "7", "more": "1"}):
        wanted = other(provider="Own", allows_cpu_nodes=True, **options)
        Session(tiny(), wanted, SETTINGS)
    Session(tiny(), other(provider="Without", allows_cpu_nodes=True), SETTINGS)
    assert given == [[{"its_threads": "2"}], [{"its_threads": "7", "more": "1"}], [{}]]


def test_a_graph_is_outlined_once_and_not_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    outlined: list[Any] = []

    def count(graph: Any) -> GraphOutline:
        outlined.append(graph)
        return outline(graph)

    monkeypatch.setattr(graph_file, "outline", count)
    loaded = Session(tiny(), other(allows_cpu_nodes=True), SETTINGS)
    assert loaded.placement.total > 1
    assert outlined == [tiny()]
    Session(tiny(), choose_device(SessionSettings(device="cpu")), SETTINGS)
    assert outlined == [tiny()]


# --- Graphs that a device does not take whole ----------------------------------------------------


def test_nodes_that_would_silently_run_on_the_cpu_are_an_error() -> None:
    with pytest.raises(DeviceError) as caught:
        Session(tiny(), other(), SETTINGS)
    message = str(caught.value)
    assert "the model's bytes: other leaves " in message
    assert "Gemm" in message
    assert "ReduceMean" in message
    assert "timesformer-export --target portable" in message
    assert "allow_cpu_nodes=True" in message
    settings = SessionSettings(providers=[CPU], provider_options=[{"device_id": "9"}])
    with pytest.raises(DeviceError, match="perhaps because of its options device_id='9'"):
        Session(tiny(), other(device_id="9"), settings)
    with pytest.raises(DeviceError) as caught:  # of options that the user did not give
        Session(tiny(), other(use_tf32="0"), SETTINGS)
    assert "use_tf32" not in str(caught.value)
    with pytest.raises(DeviceError) as caught:
        Session(tiny(target="portable"), other(), SETTINGS)
    assert "timesformer-export" not in str(caught.value)


def test_nodes_that_may_run_on_the_cpu_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Session(tiny(), other(allows_cpu_nodes=True), SETTINGS)
    assert "Gemm" in found.placement.describe()
    assert found.placement.total == len(found.placement.on_cpu) > 1
    clip = np.random.default_rng(0).standard_normal((1, 4, 3, 24, 24), dtype=np.float32)
    on_cpu = Session(tiny(), choose_device(SessionSettings(device="cpu")), SETTINGS)
    assert on_cpu.placement == Placement()
    for by_cpu, by_other in zip(
        on_cpu.run(["logits"], {"pixel_values": clip}),
        found.run(["logits"], {"pixel_values": clip}),
        strict=True,
    ):
        np.testing.assert_allclose(by_cpu, by_other, atol=1e-6)

    monkeypatch.setattr(
        "timesformer_runtime.model.loaded.choose_device", lambda _: other(allows_cpu_nodes=True)
    )
    classifier = VideoClassifier.from_pretrained(tiny(), providers=[CPU], allow_cpu_nodes=True)
    (note,) = classifier.notes
    assert "nodes run on the CPU, not on other: " in note
    assert "Gemm" in note


def test_providers_that_are_listed_but_take_nothing() -> None:
    """Some are in every build of ONNX Runtime, for operators of their own."""
    for name in onnxruntime.get_available_providers():
        settings = SessionSettings(providers=[name], threads=1)
        if name == CPU:
            continue
        try:
            used = Session(tiny(), choose_device(settings), settings)
        except DeviceError:
            continue
        assert not used.placement.on_cpu


def test_the_batch_is_one_clip_on_other_devices() -> None:
    assert Session(tiny(), other(allows_cpu_nodes=True), SETTINGS).inputs[0].shape[0] == 1
    on_cpu = Session(tiny(), choose_device(SessionSettings(device="cpu")), SETTINGS)
    assert on_cpu.inputs[0].shape[0] == "batch"


def test_placement_leaves_out_arithmetic_on_shapes() -> None:
    def part(name: str, *nodes: tuple[str, str]) -> SimpleNamespace:
        found = [SimpleNamespace(op_type=operator, name=name) for operator, name in nodes]
        return SimpleNamespace(ep_name=name, get_nodes=lambda: found)

    made_up = SimpleNamespace(
        get_provider_graph_assignment_info=lambda: [
            part("OtherExecutionProvider", ("MatMul", "a"), ("MatMul", "b")),
            part(CPU, ("Shape", "shape"), ("Attention", "one"), ("Attention", "two")),
            part(CPU, ("Unique", "")),
        ]
    )
    found = find_placement(made_up, frozenset({("Shape", "shape")}))
    assert found == Placement((("Attention", "one"), ("Attention", "two"), ("Unique", "")), 6)
    assert found.describe() == "2 Attention (one, ...), Unique"
    assert Placement().describe() == ""


def test_an_onnx_runtime_that_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "can_tell", lambda _: False)
    with pytest.raises(DeviceError, match=r"cannot tell which nodes .* install 1\.24 or newer"):
        Session(tiny(), other(), SETTINGS)
    assert Session(tiny(), other(allows_cpu_nodes=True), SETTINGS).placement == Placement()


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime with a provider that refuses every graph."""
    real = onnxruntime.InferenceSession

    def start(*arguments: Any, providers: list[str], **options: Any) -> Any:
        if providers != [CPU]:
            raise RuntimeError("a reason in source.cc:17")
        return real(*arguments, providers=providers, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", start)


def test_a_device_that_refuses_the_graph(refusing: None) -> None:
    wanted = other(provider="RefusingExecutionProvider")
    with pytest.raises(DeviceError) as caught:
        Session(tiny(), wanted, SETTINGS)
    message = str(caught.value)
    assert "other refuses it, though it loads on the CPU (a reason in source.cc:17)" in message
    assert "timesformer-export --target portable" in message
    with pytest.raises(DeviceError) as caught:
        Session(tiny(target="portable"), wanted, SETTINGS)
    assert "use `device=cpu`" in str(caught.value)
    with pytest.raises(InvalidModelError, match="cannot load it on other"):
        Session(b"not a model", wanted, SETTINGS)


def test_a_provider_that_does_not_start_names_its_options() -> None:
    wanted = Device("other", ("NoneExecutionProvider",), ({"device_type": "GPU"},))
    made_up = Session.__new__(Session)
    made_up.device, made_up.providers, made_up._name = wanted, (CPU,), "model.onnx"
    made_up._settings = SessionSettings(
        providers=wanted.providers, provider_options=wanted.options, threads=1
    )
    with pytest.raises(
        DeviceError,
        match=r"runs without NoneExecutionProvider \(perhaps because of its options device_type='G",
    ):
        made_up._check_providers()


@pytest.mark.parametrize("provider", ["CUDAExecutionProvider", "TensorrtExecutionProvider"])
def test_cuda_is_not_started_again_after_a_fork(provider: str) -> None:
    forked = Session(tiny(), choose_device(SessionSettings(device="cpu")), SETTINGS)
    forked.providers = (provider, CPU)
    forked._leave_to_parent()
    clip = np.zeros((1, 4, 3, 24, 24), dtype=np.float32)
    with pytest.raises(DeviceError, match="CUDA does not work in a process that is forked"):
        forked.run(["logits"], {"pixel_values": clip})


def test_the_reason_of_a_long_message_stays() -> None:
    shortened = device.one_line(f"file.cc:{'x' * 5000} Attention is not supported.")
    assert shortened.startswith("file.cc:")
    assert shortened.endswith(" Attention is not supported")
    assert len(shortened) <= 600
