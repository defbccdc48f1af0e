"""The files of a graph: where weights may be, and that a model is never mixed of two."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from timesformer_runtime.errors import InvalidModelError
from timesformer_runtime.model.device import choose_device
from timesformer_runtime.model.graph_file import source_of_bytes, source_of_file
from timesformer_runtime.model.session import Session
from timesformer_runtime.model.settings import SessionSettings
from timesformer_runtime.model.wire_format import MessageReader, encoded, message

from tests.runtime.model.test_mapped_weights import answers, plain_answers, save_model
from tests.tiny_graphs import TinyGraph

SETTINGS = SessionSettings(device="cpu", threads=1)


def loaded(graph: Path | bytes, settings: SessionSettings = SETTINGS) -> Session:
    return Session(graph, choose_device(settings), settings)


# --- A model that is replaced while it is loaded -------------------------------------------------


def turned_around(path: Path, to: Path) -> Path:
    """The same weights at other offsets."""
    model = onnx.load(path)
    model.doc_string = "longer" * 1000
    model.graph.initializer.sort(key=lambda tensor: tensor.name, reverse=True)
    onnx.save(model, to)
    return to


class Swapping:
    """Puts the other file under the model's name before ONNX Runtime opens it, time after time.

    Args:
        path: The model's name.
        other: The other file.
        times: How often.
        back: Whether the first file is back once it is loaded.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, path: Path, other: Path, times: int, *, back: bool
    ) -> None:
        self.swaps = 0
        start = onnxruntime.InferenceSession

        def swap() -> None:
            path.rename(path.parent / "aside")
            other.rename(path)
            (path.parent / "aside").rename(other)

        def swap_and_start(*arguments: Any, **options: Any) -> Any:
            if self.swaps == times:
                return start(*arguments, **options)
            self.swaps += 1
            swap()
            session = start(*arguments, **options)
            if back:
                swap()
            return session

        monkeypatch.setattr(onnxruntime, "InferenceSession", swap_and_start)


@pytest.mark.parametrize("back", [False, True], ids=["stays", "and back"])
@pytest.mark.parametrize("times", [1, 9])
def test_a_model_that_is_replaced_while_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int, back: bool
) -> None:
    path = save_model(tmp_path / "model.onnx")
    other = turned_around(path, tmp_path / "other.onnx")
    expected = plain_answers(path)
    device = choose_device(SETTINGS)  # starts no session any more
    time.sleep(0.05)  # longer than a tick of the clock that stamps files
    swapping = Swapping(monkeypatch, path, other, times, back=back)
    found = Session(path, device, SETTINGS).run(
        ["large_y", "small_y"], {"x": np.random.default_rng(1).normal(size=(3, 300)).astype("f4")}
    )
    assert swapping.swaps == min(times, 2)  # the second time the whole file is taken at once
    for array, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(array, right)


def test_a_model_that_is_replaced_by_a_broken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_model(tmp_path / "model.onnx")
    (tmp_path / "other.onnx").write_bytes(path.read_bytes()[:2000])
    Swapping(monkeypatch, path, tmp_path / "other.onnx", 1, back=False)
    with pytest.raises(InvalidModelError, match="cannot load it"):  # not of the mixture
        loaded(path)


def external(path: Path, location: str = "w", **options: Any) -> Path:
    return save_model(
        path, save_as_external_data=True, location=location, size_threshold=1, **options
    )


def test_weights_beside_the_graph_that_are_replaced_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = external(tmp_path / "model.onnx")
    shutil.copy(tmp_path / "w", tmp_path / "other")
    swapping = Swapping(monkeypatch, tmp_path / "w", tmp_path / "other", 99, back=False)
    with pytest.raises(InvalidModelError, match="its files change while they are read"):
        loaded(path)
    assert swapping.swaps < 10


# --- Weights in other files ----------------------------------------------------------------------


def tensor(location: str, name: str = "w") -> TensorProto:
    found = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4])
    found.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        found.external_data.add(key=key, value=value)
    return found


def sparse(location: str) -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(
        values=tensor(location), indices=TensorProto(data_type=TensorProto.INT64), dims=[9]
    )


def sparse_indices(location: str) -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(
        values=TensorProto(data_type=TensorProto.FLOAT), indices=tensor(location), dims=[9]
    )


def constant(location: str) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], value=tensor(location))


def graph_with(**parts: Any) -> onnx.GraphProto:
    """A graph that is valid but for what it lacks: y = x."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"]), *parts.pop("nodes", [])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    for name, value in parts.items():
        getattr(graph, name).append(value)
    return graph


def model_with(graph: onnx.GraphProto | None = None, **options: Any) -> onnx.ModelProto:
    return helper.make_model(
        graph or graph_with(),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
        **options,
    )


def if_node(branch: onnx.GraphProto) -> onnx.NodeProto:
    return helper.make_node("If", ["b"], ["z"], then_branch=branch, else_branch=graph_with())


def function(node: onnx.NodeProto) -> onnx.FunctionProto:
    opset = helper.make_opsetid("", 18)
    return helper.make_function("local", "f", ["a"], ["c"], [node], [opset])


def function_default(location: str) -> onnx.FunctionProto:
    found = function(helper.make_node("Neg", ["a"], ["c"]))
    found.attribute_proto.append(helper.make_attribute("w", tensor(location)))
    return found


def training(location: str) -> onnx.ModelProto:
    model = model_with()
    model.training_info.add().algorithm.CopyFrom(graph_with(initializer=tensor(location)))
    return model


def attribute(value: Any) -> onnx.ModelProto:
    return model_with(graph_with(nodes=[helper.make_node("Op", ["x"], ["z"], a=value)]))


# Every place of onnx.proto that holds a tensor.
PLACES: dict[str, Callable[[str], onnx.ModelProto]] = {
    "initializer": lambda file: model_with(graph_with(initializer=tensor(file))),
    "sparse values": lambda file: model_with(graph_with(sparse_initializer=sparse(file))),
    "sparse indices": lambda file: model_with(graph_with(sparse_initializer=sparse_indices(file))),
    "tensor": lambda file: model_with(graph_with(nodes=[constant(file)])),
    "tensors": lambda file: attribute([tensor("good"), tensor(file)]),
    "sparse tensor": lambda file: attribute(sparse(file)),
    "sparse tensors": lambda file: attribute([sparse("good"), sparse(file)]),
    "subgraph": lambda file: model_with(
        graph_with(nodes=[if_node(graph_with(initializer=tensor(file)))])
    ),
    "subgraphs": lambda file: attribute([graph_with(), graph_with(nodes=[constant(file)])]),
    "subgraph of a subgraph": lambda file: model_with(
        graph_with(nodes=[if_node(graph_with(nodes=[if_node(graph_with(nodes=[constant(file)]))]))])
    ),
    "function": lambda file: model_with(functions=[function(constant(file))]),
    "attribute of a function": lambda file: model_with(functions=[function_default(file)]),
    "training": training,
}


@pytest.mark.parametrize("place", PLACES)
def test_weights_in_files_are_found_everywhere(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "secret").write_bytes(bytes(16))
    for name in ("good", "sub/good"):
        (tmp_path / "folder" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(bytes(16))
    path = tmp_path / "folder" / "model.onnx"
    for location, is_allowed in (
        ("good", True),
        ("sub/good", True),
        ("../secret", False),
        ("sub/../../secret", False),
        (str(tmp_path / "secret"), False),
        ("missing", False),
    ):
        model = PLACES[place](location).SerializeToString()
        with pytest.raises(InvalidModelError, match="weights are in another file, '"):
            source_of_bytes(model, None, "it")
        path.write_bytes(model)
        if is_allowed:
            files = {file.path for file in source_of_file(path, "it", maps=True).files}
            assert {path, path.parent / location} <= files
            assert source_of_bytes(model, path.parent, "it").files
            continue
        with pytest.raises(InvalidModelError, match=r"outside of its folder|which is not in"):
            source_of_file(path, "it", maps=True)
        with pytest.raises(InvalidModelError, match=r"outside of its folder|which is not in"):
            source_of_bytes(model, path.parent, "it")


@pytest.mark.parametrize(
    "location",
    ["", ".", "..", "/etc/passwd", "C:\\w", "\\\\host\\w", "..\\w", "*/_ORT_MEM_ADDR_/*", "a\0b"],
)
def test_names_of_files_that_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "model.onnx").write_bytes(PLACES["initializer"](location).SerializeToString())
    with pytest.raises(InvalidModelError, match=r"outside of its folder|which is not in") as caught:
        loaded(tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)
    with pytest.raises(InvalidModelError, match="weights are in another file"):
        loaded((tmp_path / "model.onnx").read_bytes())


def test_a_link_to_a_file_outside_of_the_folder(tmp_path: Path) -> None:
    path = external(tmp_path / "folder.onnx")
    folder = tmp_path / "folder"
    folder.mkdir()
    path.rename(folder / "model.onnx")
    (folder / "w").symlink_to(tmp_path / "w")
    with pytest.raises(InvalidModelError, match="'w' as a file of weights, which is outside"):
        loaded(folder / "model.onnx")


def test_bytes_never_read_files_of_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = external(tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InvalidModelError, match="'w', and bytes do not say in which folder"
    ) as caught:
        loaded(path.read_bytes())
    assert "give the path of the .onnx file" in str(caught.value)
    key = "session.model_external_initializers_file_folder_path"
    told = SessionSettings(device="cpu", threads=1, session_options={key: str(tmp_path)})
    x = np.ones((1, 300), np.float32)
    (found,) = loaded(path.read_bytes(), told).run(["large_y"], {"x": x})
    (expected,) = loaded(path).run(["large_y"], {"x": x})
    np.testing.assert_array_equal(found, expected)


def odd_forms() -> Iterator[bytes]:
    """Ways to write the same that protobuf takes, and a reader of half of it would not see."""
    initializer = tensor("secret").SerializeToString()
    rest = model_with().SerializeToString()
    plain = message(7, message(5, initializer))
    yield rest + plain  # a second graph: the two are merged
    yield plain + rest
    group = encoded(90 << 3 | 3) + encoded(90 << 3 | 4)  # a field in a way that is out of use
    yield group + plain + rest
    yield encoded(1 << 32 | 7 << 3 | 2) + plain[1:] + rest  # more bits than a tag has
    far = initializer.replace(encoded(14 << 3) + b"\1", encoded(14 << 3) + encoded(1 << 32 | 1))
    assert far != initializer
    yield message(7, message(5, far)) + rest


@pytest.mark.parametrize("model", odd_forms())
def test_odd_forms_of_the_same(model: bytes) -> None:
    with pytest.raises(InvalidModelError, match=r"weights are in another file|cannot load it"):
        source_of_bytes(model, None, "it")


def test_a_text_that_says_location_is_no_file() -> None:
    model = PLACES["initializer"]("w")
    model.doc_string = "location"
    model.graph.initializer[0].data_location = TensorProto.DEFAULT
    assert source_of_bytes(model.SerializeToString(), None, "it").files == ()


def test_a_link_to_a_graph_with_weights_beside_its_target(tmp_path: Path) -> None:
    """As to a file in the Hub's cache, which itself is a link to where all files of it are."""
    graph = external(tmp_path / "blobs")
    expected = plain_answers(graph)
    blobs, snapshot, here = (tmp_path / name for name in ("blobs_", "snapshot", "here"))
    for folder in (blobs, snapshot, here):
        folder.mkdir()
    graph.rename(blobs / "1")
    (tmp_path / "w").rename(blobs / "2")
    (snapshot / "model.onnx").symlink_to(Path("../blobs_/1"))
    (snapshot / "w").symlink_to(Path("../blobs_/2"))
    (here / "mine.onnx").symlink_to(snapshot / "model.onnx")
    (here / "again.onnx").symlink_to("mine.onnx")
    for path in (snapshot / "model.onnx", here / "mine.onnx", here / "again.onnx"):
        for found, right in zip(answers(path), expected, strict=True):
            np.testing.assert_array_equal(found, right)


# --- Damaged files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"\xff" * 1_000_000,
        bytes(1 << 24),
        b"\x08\x01" * 4_000_000,
        message(7, b"\x08\x01" * 4_000_000),
        message(7, b"\xff" * 1_000_000),
    ],
    ids=["ones", "zeros", "small fields", "small fields of a graph", "ones in a graph"],
)
def test_damaged_files_are_refused_soon(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged.onnx"
    path.write_bytes(content)
    before = time.process_time()
    for graph in (path, content):
        with pytest.raises(InvalidModelError, match="cannot load it"):
            loaded(graph)
    assert time.process_time() - before < 30  # it took minutes


def test_a_varint_has_ten_bytes_at_most() -> None:
    most = (1 << 64) - 1
    ((field),) = MessageReader(b"\x08" + encoded(most)).fields()
    assert MessageReader(b"\x08" + encoded(most)).integer(field) == most
    with pytest.raises(ValueError, match="64 bits"):
        list(MessageReader(b"\x08" + b"\xff" * 11).fields())


def test_a_file_that_protobuf_cannot_read(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(1 << 31)
    with pytest.raises(InvalidModelError, match="it has 2147483648 bytes"):
        loaded(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = TinyGraph().save(tmp_path / "model.onnx")
    path.chmod(0)
    with pytest.raises(InvalidModelError, match="check the file and its permissions"):
        loaded(path)
