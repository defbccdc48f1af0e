"""Weights that are mapped give the same answers as those that are parsed."""

from __future__ import annotations

import contextlib
import os
import random
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from timesformer_runtime.errors import InvalidModelError
from timesformer_runtime.model.device import choose_device
from timesformer_runtime.model.mapped_weights import MappedModel, map_weights
from timesformer_runtime.model.session import Session
from timesformer_runtime.model.settings import SessionSettings
from timesformer_runtime.model.wire_format import MessageReader

SIZE = 300
SETTINGS = SessionSettings(device="cpu", threads=1)


def save_model(path: Path, *, dtype: type[np.generic] = np.int8, **options: object) -> Path:
    """y = x @ weights, twice: with large weights, and with small ones."""
    generator = np.random.default_rng(0)
    large = generator.integers(-60, 60, (SIZE, SIZE)).astype(dtype)
    small = generator.integers(-60, 60, (SIZE, 4)).astype(dtype)
    nodes = []
    for name in ("large", "small"):
        nodes += [
            helper.make_node("Cast", [name], [f"{name}_float"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["x", f"{name}_float"], [f"{name}_y"]),
        ]
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", SIZE])],
        [
            helper.make_tensor_value_info("large_y", TensorProto.FLOAT, ["batch", SIZE]),
            helper.make_tensor_value_info("small_y", TensorProto.FLOAT, ["batch", 4]),
        ],
        [numpy_helper.from_array(large, "large"), numpy_helper.from_array(small, "small")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {"key": "value"})
    onnx.save(model, path, **options)
    return path


def mapped_weights(path: Path) -> MappedModel | None:
    return map_weights(path, MessageReader(path.read_bytes()))


def answers(graph: Path) -> list[np.ndarray]:
    session = Session(graph, choose_device(SETTINGS), SETTINGS)
    assert session.metadata == {"key": "value"}
    x = np.random.default_rng(1).normal(size=(3, SIZE)).astype(np.float32)
    return session.run(["large_y", "small_y"], {"x": x})


def plain_answers(graph: Path) -> list[np.ndarray]:
    x = np.random.default_rng(1).normal(size=(3, SIZE)).astype(np.float32)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return list(session.run(["large_y", "small_y"], {"x": x}))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_mapped_weights_give_the_same_answers(tmp_path: Path, dtype: type[np.generic]) -> None:
    path = save_model(tmp_path / "ö model.onnx", dtype=dtype)
    mapped = mapped_weights(path)
    assert mapped is not None
    assert mapped.folder == tmp_path
    assert len(mapped.graph) == pytest.approx(path.stat().st_size - SIZE * SIZE, abs=200)
    for found, expected in zip(answers(path), plain_answers(path), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_graph_without_weights_says_where_they_are(tmp_path: Path) -> None:
    path = save_model(tmp_path / "model.onnx")
    mapped = mapped_weights(path)
    assert mapped is not None
    whole, lean = onnx.load(path), onnx.load_from_string(mapped.graph)
    assert lean.graph.initializer[1] == whole.graph.initializer[1]
    assert (lean.graph.node, lean.metadata_props) == (whole.graph.node, whole.metadata_props)
    onnx.load_external_data_for_model(lean, str(mapped.folder))
    for found, expected in zip(lean.graph.initializer, whole.graph.initializer, strict=True):
        np.testing.assert_array_equal(numpy_helper.to_array(found), numpy_helper.to_array(expected))


def test_a_symbolic_link_into_another_folder(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    blob = save_model(tmp_path / "blobs/0a1b2c")
    link = tmp_path / "model.onnx"
    link.symlink_to(blob)
    for found, expected in zip(answers(link), plain_answers(blob), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_folder_that_is_not_in_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    save_model(tmp_path / "model.onnx").rename(folder / "model.onnx")
    monkeypatch.chdir(folder)
    assert len(answers(Path("model.onnx"))) == 2


def test_files_that_are_loaded_as_they_are(tmp_path: Path) -> None:
    assert mapped_weights(save_model(tmp_path / "floats.onnx", dtype=np.float32)) is None
    external = save_model(
        tmp_path / "external.onnx", save_as_external_data=True, location="w", size_threshold=1
    )
    assert mapped_weights(external) is None
    assert len(answers(external)) == 2
    (tmp_path / "empty.onnx").touch()
    for name in ("empty.onnx", "missing.onnx", "."):
        assert map_weights(tmp_path / name, MessageReader(b"")) is None


def test_damaged_files_never_break_more_than_loading(tmp_path: Path) -> None:
    whole = save_model(tmp_path / "model.onnx").read_bytes()
    path = tmp_path / "damaged.onnx"
    generator = random.Random(0)
    cases = [whole[:end] for end in (1, 20, 300, len(whole) - SIZE * SIZE - 9, len(whole) - 1)]
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(generator.randint(1, 3)):
            damaged[
                generator.choice([generator.randrange(400), generator.randrange(len(whole))])
            ] = generator.randrange(256)
        cases.append(bytes(damaged))
    mapped = 0
    for case in cases:
        path.write_bytes(case)
        mapped += mapped_weights(path) is not None
        with contextlib.suppress(InvalidModelError):
            Session(path, choose_device(SETTINGS), SETTINGS)
    assert mapped > 100
