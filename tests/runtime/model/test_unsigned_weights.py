"""Unsigned copies of s8 weights, for processors where u8 x s8 overflows."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from timesformer_runtime.model import cpu, graph_file
from timesformer_runtime.model.device import choose_device, ort_errors
from timesformer_runtime.model.mapped_weights import MappedModel, map_weights
from timesformer_runtime.model.session import Session
from timesformer_runtime.model.settings import SessionSettings
from timesformer_runtime.model.wire_format import MessageReader, encoded

ROWS, COLUMNS = 300, 280
FOLDER = "session.model_external_initializers_file_folder_path"
SWITCH = "session.x64quantprecision"
WEIGHTS = np.random.default_rng(0).integers(-127, 128, (ROWS, COLUMNS)).astype(np.int8)
# ONNX's helper writes integers as varints, numpy_helper as bytes.
ZEROS = {
    "for each column": numpy_helper.from_array(np.zeros(COLUMNS, np.int8), "zero"),
    "as varints": helper.make_tensor("zero", TensorProto.INT8, [COLUMNS], [0] * COLUMNS),
    "one for all": numpy_helper.from_array(np.zeros((), np.int8), "zero"),
}


def save(
    path: Path,
    initializers: Sequence[onnx.TensorProto],
    nodes: Sequence[onnx.NodeProto],
    values: Sequence[onnx.ValueInfoProto] = (),
) -> Path:
    """From ``x`` float32 [batch, 300], quantized to ``a`` (u8), to ``y`` int32 [batch, 280]."""
    graph = helper.make_graph(
        [helper.make_node("DynamicQuantizeLinear", ["x"], ["a", "scale", "a_zero"]), *nodes],
        "products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", ROWS])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, ["batch", COLUMNS])],
        list(initializers),
        value_info=list(values),
    )
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def product(*inputs: str, output: str = "y") -> onnx.NodeProto:
    return helper.make_node("MatMulInteger", list(inputs), [output])


def weights(values: npt.NDArray[Any] = WEIGHTS, name: str = "w") -> onnx.TensorProto:
    return numpy_helper.from_array(values, name)


def mapped(path: Path) -> MappedModel:
    found = map_weights(path, MessageReader(path.read_bytes()), unsigned=True)
    assert found is not None
    return found


def answer(path: Path, **entries: str) -> npt.NDArray[np.int32]:
    settings = SessionSettings(device="cpu", threads=1, session_options={SWITCH: "1"} | entries)
    x = np.random.default_rng(1).normal(size=(3, ROWS)).astype(np.float32)
    (found,) = Session(path, choose_device(settings), settings).run(["y"], {"x": x})
    return found


def signed_answer(weight: npt.NDArray[Any] = WEIGHTS) -> npt.NDArray[np.int64]:
    """By hand: ONNX's dynamic quantization, and the product of the signed integers."""
    x = np.random.default_rng(1).normal(size=(3, ROWS)).astype(np.float32)
    low, high = min(x.min(), np.float32(0)), max(x.max(), np.float32(0))
    scale = (high - low) / np.float32(255)
    zero = np.clip(np.rint(-low / scale), 0, 255)
    quantized = np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.int64) - int(zero)
    products: npt.NDArray[np.int64] = quantized @ weight.astype(np.int64)
    return products


@pytest.mark.parametrize("zeros", [*ZEROS, "left out"])
def test_the_products_stay_equal(tmp_path: Path, zeros: str) -> None:
    tensors = [weights(), *([ZEROS[zeros]] if zeros in ZEROS else [])]
    inputs = ["a", "w", "a_zero", *(["zero"] if zeros in ZEROS else [])]
    stated = helper.make_tensor_value_info("w", TensorProto.INT8, [ROWS, COLUMNS])
    path = save(tmp_path / "ö.onnx", tensors, [product(*inputs)], [stated])
    found = mapped(path)
    assert list(found.unsigned) == ["w"]
    assert found.unsigned["w"].dtype == np.uint8
    np.testing.assert_array_equal(found.unsigned["w"].astype(int) - 128, WEIGHTS)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(FOLDER, str(found.folder))
    with pytest.raises(ort_errors()):  # the file has only the signed weights
        onnxruntime.InferenceSession(found.graph, options)
    np.testing.assert_array_equal(answer(path), signed_answer())
    np.testing.assert_array_equal(
        answer(path, **{"session.disable_prepacking": "1"}), signed_answer()
    )


def test_a_product_without_any_zero_point_and_two_products_of_one_weight(tmp_path: Path) -> None:
    nodes = [
        product("a", "w", output="without"),
        product("a", "w", "a_zero", output="with"),
        helper.make_node("Sub", ["with", "without"], ["offset"]),
        helper.make_node("Add", ["without", "offset"], ["y"]),
    ]
    path = save(tmp_path / "m.onnx", [weights()], nodes)
    assert list(mapped(path).unsigned) == ["w"]
    np.testing.assert_array_equal(answer(path), signed_answer())


def test_weights_that_are_left_in_their_file(tmp_path: Path) -> None:
    """ONNX Runtime's own switch computes these without overflow, or they need none."""
    seven_bits = (WEIGHTS.astype(int) // 2).astype(np.int8)
    shifted = numpy_helper.from_array(np.array(3, np.int8), "zero")
    scales = numpy_helper.from_array(np.ones(COLUMNS, np.float32), "scales")
    plain = product("a", "w", "a_zero")
    cast = helper.make_node("Cast", ["w"], ["floats"], to=TensorProto.FLOAT)
    body = helper.make_graph(
        [helper.make_node("Identity", ["one"], ["also"])],
        "body",
        [],
        [helper.make_tensor_value_info("also", TensorProto.INT32, None)],
    )
    branch = helper.make_node("If", ["yes"], ["b"], then_branch=body, else_branch=body)
    one = numpy_helper.from_array(np.array(1, np.int32), "one")
    yes = numpy_helper.from_array(np.array(True), "yes")
    sums = helper.make_node("Mul", ["p", "b"], ["y"])
    operators = [
        helper.make_node("DequantizeLinear", ["w", "scales"], ["floats"], axis=1),
        helper.make_node("MatMul", ["x", "floats"], ["f"]),
        helper.make_node("Cast", ["f"], ["y"], to=TensorProto.INT32),
    ]
    signed_activations = [
        helper.make_node("Cast", ["x"], ["s"], to=TensorProto.INT8),
        product("s", "w"),
    ]
    cases: dict[str, Path] = {
        name: save(tmp_path / f"{name}.onnx", tensors, nodes)
        for name, (tensors, nodes) in {
            "seven": ([weights(seven_bits)], [plain]),
            "shifted": ([weights(), shifted], [product("a", "w", "a_zero", "zero")]),
            "also-float": ([weights()], [plain, cast]),
            "operators": ([weights(), scales], operators),
            "branch": (
                [weights(), one, yes],
                [product("a", "w", "a_zero", output="p"), branch, sums],
            ),
            "signed": ([weights()], signed_activations),
            "own": (
                [weights()],
                [
                    helper.make_node(
                        "MatMulInteger", ["a", "w", "a_zero"], ["y"], domain="some.other"
                    )
                ],
            ),
        }.items()
    }
    for name, path in cases.items():
        found = mapped(path)
        assert (found.unsigned, found.folder) == ({}, tmp_path), name
        whole = map_weights(path, MessageReader(path.read_bytes()))
        assert whole is not None, name
        assert found.graph == whole.graph, name
        assert found.cannot_overflow == (name == "seven"), name
    np.testing.assert_array_equal(answer(cases["seven"]), signed_answer(seven_bits))
    for name in ("also-float", "branch"):
        np.testing.assert_array_equal(answer(cases[name]), signed_answer())
    np.testing.assert_array_equal(
        answer(cases["shifted"]), signed_answer(WEIGHTS.astype(np.int64) - 3)
    )


def test_the_switch_is_off_only_where_no_product_can_overflow(tmp_path: Path) -> None:
    """It costs time at loading, also for weights of 7 bits."""
    small = WEIGHTS[:COLUMNS, :8].copy()
    nodes = [
        product("a", "w", "a_zero", output="sums"),
        helper.make_node("Cast", ["sums"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("DynamicQuantizeLinear", ["floats"], ["b", "b_scale", "b_zero"]),
        product("b", "v", "b_zero", output="few"),
        helper.make_node("ReduceMax", ["few"], ["most"], keepdims=1),
        helper.make_node("Sub", ["sums", "most"], ["y"]),
    ]
    settings = SessionSettings(device="cpu", threads=1, session_options={SWITCH: "1"})
    for name, tensors, safe in (
        ("unsafe", [weights(), weights(small, "v")], False),
        ("safe", [weights(), weights((small // 2), "v")], True),
        ("seven", [weights(WEIGHTS // 2), weights((small // 2), "v")], True),
    ):
        path = save(tmp_path / f"{name}.onnx", tensors, nodes)
        loaded = Session(path, choose_device(settings), settings)
        entry = loaded._session.get_session_options().get_session_config_entry(SWITCH)
        assert entry == ("0" if safe else "1"), name
        assert loaded.wide_products, name


@pytest.mark.parametrize(
    ("lower", "upper", "safe"),
    [(-64, 64, True), (-64, 65, False), (-128, 64, False), (None, 64, False)],
)
def test_activations_of_7_bits_cannot_overflow(
    tmp_path: Path, lower: int | None, upper: int, safe: bool
) -> None:
    """As in an export with attention rollout over long sequences."""
    bounds = {"lower": lower, "upper": upper}
    constants = [
        numpy_helper.from_array(np.array(value, np.int8), name)
        for name, value in bounds.items()
        if value is not None
    ]
    constants += [
        numpy_helper.from_array(np.array(0, np.int8), "zero"),
        numpy_helper.from_array(np.array(1 / 32, np.float32), "step"),
    ]
    nodes = [
        helper.make_node("Transpose", ["x"], ["columns"]),
        helper.make_node("QuantizeLinear", ["columns", "step", "zero"], ["s8"]),
        helper.make_node("Clip", ["s8", "" if lower is None else "lower", "upper"], ["c"]),
        product("a", "c", "a_zero", "zero", output="scores"),
        helper.make_node("ReduceMax", ["scores"], ["most"], keepdims=1),
        product("a", "w", "a_zero", output="sums"),
        helper.make_node("Sub", ["sums", "most"], ["y"]),
    ]
    path = save(tmp_path / "scores.onnx", [weights(), *constants], nodes)
    settings = SessionSettings(device="cpu", threads=1, session_options={SWITCH: "1"})
    loaded = Session(path, choose_device(settings), settings)
    entry = loaded._session.get_session_options().get_session_config_entry(SWITCH)
    assert entry == ("0" if safe else "1")
    if not safe:  # right only on some processors
        return
    x = np.random.default_rng(1).normal(size=(3, ROWS)).astype(np.float32)
    clipped = np.clip(np.rint(x.T * 32), -64, 64)
    (found,) = loaded.run(["y"], {"x": x})
    np.testing.assert_array_equal(found, signed_answer() - signed_answer(clipped).max())


def test_weights_of_other_types_stay_in_their_file(tmp_path: Path) -> None:
    """transformers.js writes u8 weights: one file with both kinds."""
    other = (WEIGHTS.astype(int) + 128).astype(np.uint8)
    middle = numpy_helper.from_array(np.array(128, np.uint8), "middle")
    nodes = [
        product("a", "w", "a_zero", output="signed"),
        product("a", "u", "a_zero", "middle", output="unsigned"),
        helper.make_node("Add", ["signed", "unsigned"], ["y"]),
    ]
    path = save(tmp_path / "m.onnx", [weights(), weights(other, "u"), middle], nodes)
    assert list(mapped(path).unsigned) == ["w"]
    np.testing.assert_array_equal(answer(path), 2 * signed_answer())


def test_shapes_whose_sizes_are_packed(tmp_path: Path) -> None:
    """The onnx package writes a field for each size; other writers pack all into one."""
    path = save(tmp_path / "m.onnx", [weights()], [product("a", "w", "a_zero")])
    sizes = encoded(ROWS), encoded(COLUMNS)
    apart = b"".join(b"\x08" + size for size in sizes)
    together = b"\x0a" + encoded(len(b"".join(sizes))) + b"".join(sizes)
    assert weights().SerializeToString().startswith(apart)
    assert len(apart) == len(together)
    path.write_bytes(path.read_bytes().replace(apart, together, 1))
    assert mapped(path).unsigned["w"].shape == (ROWS, COLUMNS)
    np.testing.assert_array_equal(answer(path), signed_answer())


def test_the_temporary_file_is_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "m.onnx", [weights()], [product("a", "w", "a_zero")])
    folder = tmp_path / "temporary"
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    np.testing.assert_array_equal(answer(path), signed_answer())  # there is no such folder
    assert mapped(path).unsigned == {}
    folder.mkdir()
    np.testing.assert_array_equal(answer(path), signed_answer())
    assert not list(folder.iterdir())


def test_an_onnxruntime_that_cannot_own_given_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(onnxruntime.OrtValue, "from_dlpack")
    path = save(tmp_path / "m.onnx", [weights()], [product("a", "w", "a_zero")])
    np.testing.assert_array_equal(answer(path), signed_answer())


def test_a_loaded_model_keeps_only_the_weights_that_it_still_needs(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [weights()], [product("a", "w", "a_zero")])
    kept: list[weakref.ref[npt.NDArray[np.uint8]]] = []

    def load(packs: bool) -> Session:
        def remember(*arguments: Any, **options: Any) -> MappedModel | None:
            found = map_weights(*arguments, **options)
            assert found is not None
            kept.append(weakref.ref(found.unsigned["w"]))
            return found

        entries = {SWITCH: "1", "session.disable_prepacking": "0" if packs else "1"}
        settings = SessionSettings(device="cpu", threads=1, session_options=entries)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(graph_file, "map_weights", remember)
            return Session(path, choose_device(settings), settings)

    loaded = load(packs=True)
    assert kept[0]() is None
    unpacked = load(packs=False)
    assert kept[1]() is not None
    feeds = {"x": np.random.default_rng(1).normal(size=(3, ROWS)).astype(np.float32)}
    for session in (loaded, unpacked):
        np.testing.assert_array_equal(session.run(["y"], feeds)[0], signed_answer())


# Loads a model, and stops where the copy is complete: at the start of ONNX Runtime's session.
_LOAD = """
import sys, time
import onnxruntime
from timesformer_runtime.model import session
from timesformer_runtime.model.device import choose_device, ort_errors
from timesformer_runtime.model.settings import SessionSettings

settings = SessionSettings(device="cpu", threads=1, session_options={sys.argv[2]: "1"})
device = choose_device(settings)

def wait(*arguments, **options):
    print("loading", flush=True)
    time.sleep(60)

onnxruntime.InferenceSession = wait
session.Session(session.Path(sys.argv[1]), device, settings)
"""


@pytest.mark.skipif(os.name != "posix", reason="other systems remove the file in another way")
def test_a_killed_load_leaves_no_file(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [weights()], [product("a", "w", "a_zero")])
    folder = tmp_path / "temporary"
    folder.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", _LOAD, str(path), SWITCH],
        stdout=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(folder)},
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.kill()
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("saturates", "entries", "wanted"),
    [(True, {}, True), (True, {SWITCH: "0"}, False), (False, {}, False)],
)
def test_only_where_products_overflow(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    saturates: bool,
    entries: dict[str, str],
    wanted: bool,
) -> None:
    monkeypatch.setattr(cpu, "saturates_int8", lambda: saturates)
    path = save(tmp_path / "m.onnx", [weights()], [product("a", "w", "a_zero")])
    asked = []

    def asked_for(*arguments: Any, unsigned: bool) -> MappedModel | None:
        asked.append(unsigned)
        return map_weights(*arguments, unsigned=unsigned)

    monkeypatch.setattr(graph_file, "map_weights", asked_for)
    settings = SessionSettings(device="cpu", threads=1, session_options=entries)
    assert Session(path, choose_device(settings), settings).wide_products == wanted
    assert asked == [wanted]
