"""Files that carry more than tensors: their tensors load, and nothing in them ever runs."""

from __future__ import annotations

import argparse
import collections
import datetime
import functools
import io
import os
import pathlib
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timesformer_exporter.checkpoints import inert_pickle
from timesformer_exporter.checkpoints.inert_pickle import StoredTensor
from timesformer_exporter.checkpoints.saved_file import read_saved_file
from timesformer_exporter.checkpoints.tensor_files import read_tensor_file
from timesformer_exporter.errors import InvalidCheckpointError
from torch import Tensor


class TrainerSettings(dict[str, Any]):
    """A dict subclass with attributes, like yacs's CfgNode or mmengine's ConfigDict."""


class Trainer:
    def __init__(self) -> None:
        self.steps = 3


def some_tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    base = torch.randn(4, 6)
    with_attribute = torch.randn(3)
    with_attribute.origin = "a note"  # type: ignore[attr-defined]
    return {
        "float8": torch.randn(6).to(torch.float8_e5m2),
        "with attribute": with_attribute,
        "float32": torch.randn(3, 5),
        "float16": torch.randn(7).half(),
        "bfloat16": torch.randn(2, 2, 2).bfloat16(),
        "float64": torch.randn(2).double(),
        "int64": torch.arange(5),
        "uint8": torch.arange(5, dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(1.5),
        "empty": torch.empty(0, 3),
        "view": base[1:3, ::2],
        "transposed": base.T,
        "same storage": base,
        "parameter": torch.nn.Parameter(torch.randn(2)),
    }


def training_state(tensors: dict[str, Tensor]) -> dict[str, object]:
    """Objects that trainers save beside the model."""
    settings = TrainerSettings(lr=0.1)
    settings.frozen = True  # type: ignore[attr-defined]
    return {
        "epoch": np.int64(3),
        "args": argparse.Namespace(out=pathlib.Path("/tmp/out"), when=datetime.date(2021, 2, 9)),
        "settings": settings,
        "history": collections.defaultdict(list, loss=[np.float32(0.1), np.arange(3)]),
        "queue": collections.deque([1, 2]),
        "schedule": functools.partial(print, "never printed"),
        "trainer": Trainer(),
        "names": {"a", "b"},
        "optimizer": {"state": {0: {"exp_avg": torch.randn(3)}}, "param_groups": [{"lr": 0.1}]},
        "bytes": b"\x00\xff",
        "model": collections.OrderedDict(tensors),
    }


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_tensors_of_a_training_state_are_read_bit_by_bit(
    tmp_path: Path, zipped: bool, protocol: int
) -> None:
    tensors = some_tensors()
    path = tmp_path / "state.pth"
    torch.save(
        training_state(tensors),
        path,
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)  # else this would not test the inert reader

    file = read_tensor_file(path)

    assert file.has_other_objects
    assert list(file.tensors) == list(tensors)
    for name, tensor in tensors.items():
        assert file.tensors[name].dtype == tensor.dtype, name
        assert same_bytes(file.tensors[name], tensor), name


def same_bytes(one: Tensor, other: Tensor) -> bool:
    """Compares tensors, also of a type for which torch has no comparison."""
    if one.dtype == torch.float8_e5m2:
        one, other = one.view(torch.uint8), other.view(torch.uint8)
    return torch.equal(one, other)


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_tensors_alone_need_no_placeholders(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "model.bin"
    tensors = some_tensors()
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    file = read_tensor_file(path)
    assert not file.has_other_objects
    assert all(same_bytes(file.tensors[name], tensor) for name, tensor in tensors.items())


def test_only_the_tensors_that_are_asked_for_are_read(tmp_path: Path) -> None:
    path = tmp_path / "state.pth"
    torch.save(training_state({"weight": torch.arange(4.0)}), path)
    file = read_saved_file(path)
    assert isinstance(file.tree, dict)
    stored = file.tree["optimizer"]["state"][0]["exp_avg"]
    assert isinstance(stored, StoredTensor)
    assert stored.size == (3,)
    assert torch.equal(file.tensor(file.tree["model"]["weight"]), torch.arange(4.0))


def test_big_endian_files(tmp_path: Path) -> None:
    path = tmp_path / "state.pth"
    torch.save(training_state({"weight": torch.arange(4.0)}), path)
    swapped = tmp_path / "swapped.pth"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(swapped, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("byteorder"):
                data = b"big"
            elif "/data/" in name and len(data) == 16:
                data = np.frombuffer(data, "<f4").astype(">f4").tobytes()
            new.writestr(name, data)
    assert torch.equal(read_tensor_file(swapped).tensors["weight"], torch.arange(4.0))


class Attack:
    """Unpickled by pickle, this calls ``function(*arguments)``."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def attacks(marker: Path) -> dict[str, object]:
    command = f"touch {marker}"
    return {
        "os.system": Attack(os.system, command),
        "eval": Attack(eval, f"open({str(marker)!r}, 'w')"),
        "exec": Attack(exec, f"open({str(marker)!r}, 'w')"),
        "open": Attack(open, str(marker), "w"),
        "getattr": Attack(getattr, Attack(__import__, "os"), "system"),
        "partial": functools.partial(os.system, command),
        "map": Attack(list, Attack(map, os.system, [command])),
        "import": Attack(__import__, "antigravity"),
        "torch": Attack(torch.save, torch.zeros(1), str(marker)),
        "numpy": Attack(np.save, str(marker), np.zeros(1)),
        "path": Attack(pathlib.Path.touch, marker),
        "hook": Attack(
            torch._utils._rebuild_tensor_v2,
            Attack(os.system, command),
            0,
            (1,),
            (1,),
            False,
            Attack(os.system, command),
        ),
    }


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("attack", attacks(Path("marker")))
def test_nothing_in_a_file_is_executed(
    tmp_path: Path, zipped: bool, protocol: int, attack: str
) -> None:
    marker = tmp_path / "executed"
    path = tmp_path / "evil.pth"
    for where in (
        {"model": {"weight": torch.ones(2)}, "extra": attacks(marker)[attack]},
        {"weight": torch.ones(2), "extra": attacks(marker)[attack]},
        {attacks(marker)[attack]: 1, "weight": torch.ones(2)},
    ):
        torch.save(where, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
        assert torch.equal(read_tensor_file(path).tensors["weight"], torch.ones(2))
        assert not list(tmp_path.glob("executed*"))


def test_the_attacks_above_are_real(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    pickle.loads(pickle.dumps(attacks(marker)["os.system"], protocol=2))
    assert marker.exists()


def archive_with(path: Path, data: bytes) -> Path:
    """A file of torch.save whose object tree is the given pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/data/0", np.arange(4, dtype=np.float32).tobytes())
        archive.writestr("archive/version", "3\n")
    return path


GLOBAL_THEN_BUILD = {
    "a placeholder": b"cos\nsystem\n",
    "a rebuild function": b"ctorch._utils\n_rebuild_tensor_v2\n",
    "a container": b"ccollections\nOrderedDict\n",
    "a storage type": b"ctorch\nFloatStorage\n",
    "a size": b"ctorch\nSize\n",
}


@pytest.mark.parametrize("target", GLOBAL_THEN_BUILD)
def test_a_pickle_cannot_change_what_it_is_read_with(tmp_path: Path, target: str) -> None:
    # BUILD with (None, {name: value}) sets attributes on whatever lies on the stack.
    state = pickle.dumps((None, {"__call__": 1, "__new__": 1, "find_class": 1, "changed": 1}), 2)
    data = b"\x80\x02" + GLOBAL_THEN_BUILD[target] + state[2:-1] + b"b."
    reader = (
        *inert_pickle._FUNCTIONS.values(),
        inert_pickle.InertUnpickler,
        inert_pickle.SavedObject,
        inert_pickle.Storage,
        collections.OrderedDict,
        torch.Size,
        torch._utils._rebuild_tensor_v2,
    )
    before = {id(value): dict(getattr(value, "__dict__", {})) for value in reader}

    with pytest.raises(InvalidCheckpointError):
        read_tensor_file(archive_with(tmp_path / "evil.pth", data))

    for value in reader:
        assert dict(getattr(value, "__dict__", {})) == before[id(value)]
        assert not hasattr(value, "changed")


def tensor_pickle(size: tuple[object, ...], stride: tuple[object, ...], offset: object) -> bytes:
    """``{"weight": tensor}`` with a view of the four numbers in the archive."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: object) -> object:
            if isinstance(obj, Trainer):
                return ("storage", torch.FloatStorage, "0", "cpu", 4)
            return None

    rebuild = Attack(torch._utils._rebuild_tensor_v2, Trainer(), offset, size, stride, False, {})
    buffer = io.BytesIO()
    Pickler(buffer, 2).dump({"weight": rebuild, "other": Trainer})
    return buffer.getvalue()


def test_a_view_is_read_with_its_strides(tmp_path: Path) -> None:
    path = archive_with(tmp_path / "view.pth", tensor_pickle((2,), (2,), 1))
    assert read_tensor_file(path).tensors["weight"].tolist() == [1.0, 3.0]


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((5,), (1,), 0),
        ((2, 2), (4, 1), 0),
        ((1,), (1,), 4),
        ((4,), (1,), -1),
        ((2,), (-1,), 3),
        ((-1,), (1,), 0),
        ((2,), (1, 1), 0),
        ((2,), (2**62,), 0),
        ((3,), (2**62,), 0),
        ((2**33, 2**33), (2**31, 1), 0),
        ((2,), (1,), 2**63 - 1),
        ((2,), (2**64,), 0),
        ((2.5,), (1,), 0),
        (("2",), (1,), 0),
        ((2,), (1,), "0"),
    ],
)
def test_views_beyond_their_storage_are_refused(
    tmp_path: Path, size: tuple[object, ...], stride: tuple[object, ...], offset: object
) -> None:
    path = archive_with(tmp_path / "beyond.pth", tensor_pickle(size, stride, offset))
    with pytest.raises(InvalidCheckpointError, match="beyond"):
        read_tensor_file(path)


def test_a_storage_that_is_shorter_than_promised_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "short.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", tensor_pickle((4,), (1,), 0))
        archive.writestr("archive/data/0", b"\0" * 12)
    with pytest.raises(
        InvalidCheckpointError, match="storage 0 has another length than its pickle states"
    ):
        read_tensor_file(path)


def test_a_compressed_storage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", tensor_pickle((4,), (1,), 0))
        archive.writestr("archive/data/0", b"\0" * 16)
    with pytest.raises(InvalidCheckpointError, match="compressed"):
        read_tensor_file(path)


def test_a_zip_archive_with_two_directories_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of the archive gives the offset of one directory; zipfile reads another one.

    A reader that checks the one and loads the other would run the TorchScript.
    """
    program = io.BytesIO()
    with zipfile.ZipFile(program, "w") as archive:
        for name in ("archive/data.pkl", "archive/constants.pkl"):
            archive.writestr(name, b"\x80\x02}." * 20)
        archive.writestr("archive/version", "3\n")
    plain = io.BytesIO()
    with zipfile.ZipFile(plain, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
    first, second = program.getvalue(), plain.getvalue()
    size, begin = struct.unpack_from("<II", first, len(first) - 10)
    own_size, own_begin = struct.unpack_from("<II", second, len(second) - 10)
    entry = bytearray(second[own_begin : own_begin + own_size])
    head = first[: begin + size] + second[:own_begin]
    struct.pack_into("<H", entry, 32, size - own_size)  # a comment fills the rest
    struct.pack_into("<I", entry, 42, begin + size - (len(head) - begin) & 0xFFFFFFFF)
    entry += bytes(size - own_size)
    path = tmp_path / "two.pth"
    path.write_bytes(head + entry + first[-22:])

    def run(*_: object, **__: object) -> None:
        raise AssertionError("the program was loaded")

    monkeypatch.setattr(torch.jit, "load", run)
    with pytest.raises(InvalidCheckpointError, match=r"two\.pth"):
        read_tensor_file(path)


def test_a_setting_of_torch_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
    path = tmp_path / "state.pth"
    torch.save(training_state({"weight": torch.arange(4.0)}), path)
    assert torch.equal(read_tensor_file(path).tensors["weight"], torch.arange(4.0))
