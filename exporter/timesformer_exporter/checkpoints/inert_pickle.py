"""Tensors out of a file that ``torch.save`` wrote, without running anything that is in it.

Training states carry more than tensors: optimizers, configurations, paths, numpy scalars. Such
a pickle is code, so it is read here by an unpickler that knows plain containers and tensors
only: every other global that the file names becomes an inert placeholder, never an import.
Both of torch's layouts are read: the zip archive and the older stream of pickles.
"""

from __future__ import annotations

import contextlib
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

import torch
from torch import Tensor

ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # what torch.save wrote first before its zip archives

_STORAGE_TYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Storage(NamedTuple):
    """A run of numbers in the file, of which a tensor is a view."""

    key: str
    dtype: torch.dtype
    length: int


class StoredTensor(NamedTuple):
    """A tensor that is still in the file."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Its size, under the name that tensors have for it."""
        return self.size


class Placeholder:
    """Stands for every object that is neither a container nor a tensor; does nothing at all."""

    def __new__(cls, *args: object, **kwargs: object) -> Self:  # noqa: ARG004
        """Takes whatever the pickle passes."""
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def _ignore(self, *args: object) -> Self:  # noqa: ARG002
        return self

    # All that an unpickler may call on an object that it has made.
    __call__ = __setstate__ = __setitem__ = append = extend = add = _ignore


class _Rebuild:
    """A function that the pickle may call, sealed against changes by the pickle."""

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *args: object) -> object:
        return self._function(*args)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("the file changes a function")


def _tensor(storage: object, offset: object, size: object, stride: object, *_: object) -> object:
    """What ``torch._utils._rebuild_tensor`` and ``_rebuild_tensor_v2`` are called with."""
    if not isinstance(storage, Storage):
        return Placeholder()
    if not isinstance(offset, int) or not _integers(size) or not _integers(stride):
        raise pickle.UnpicklingError("a tensor has a shape that is not made of integers")
    return StoredTensor(storage, offset, size, stride)  # type: ignore[arg-type]


def _integers(values: object) -> bool:
    return isinstance(values, tuple) and all(isinstance(value, int) for value in values)


def _parameter(tensor: object, *_: object) -> object:
    return tensor


_GLOBALS: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _Rebuild(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Rebuild(_tensor),
    ("torch._utils", "_rebuild_parameter"): _Rebuild(_parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): _Rebuild(_parameter),
    ("torch", "Size"): _Rebuild(tuple),
}


class _Unpickler(pickle.Unpickler):
    """Makes containers, numbers, strings and StoredTensors; all else becomes a Placeholder."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Never imports."""
        if module in {"torch", "torch.cuda", "torch.storage"} and name in _STORAGE_TYPES:
            return _STORAGE_TYPES[name]
        return _GLOBALS.get((module, name), Placeholder)

    def persistent_load(self, pid: Any) -> Any:
        """Reads ``("storage", type, key, location, length[, view])``."""
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            return Placeholder()
        dtype, key, _, length, *view = pid[1:]
        if not isinstance(dtype, torch.dtype) or not isinstance(length, int):
            return Placeholder()
        if any(part is not None for part in view):
            raise pickle.UnpicklingError("it has views of storages, as PyTorch wrote before 0.4")
        return self.storages.setdefault(str(key), Storage(str(key), dtype, length))


class InertFile:
    """An open file of ``torch.save``: its object tree, and its tensors on demand.

    Attributes:
        tree: What was saved, with StoredTensors for tensors and Placeholders for all objects.
    """

    def __init__(self, tree: object, read: Callable[[Storage], bytearray], swap: bool) -> None:
        self.tree = tree
        self._read = read
        self._swap = swap

    def tensor(self, stored: StoredTensor) -> Tensor:
        """Reads a tensor.

        Raises:
            EOFError, KeyError, ValueError: The file ends before it.
            RuntimeError: It reaches beyond its storage.
        """
        storage = stored.storage
        data = self._read(storage)
        if self._swap:
            width = storage.dtype.itemsize
            data = bytearray(
                b"".join(data[i : i + width][::-1] for i in range(0, len(data), width))
            )
        numbers = (
            torch.frombuffer(data, dtype=storage.dtype)
            if data
            else torch.empty(0, dtype=storage.dtype)
        )
        # It checks that the view stays inside the storage.
        return numbers.as_strided(stored.size, stored.stride, stored.offset)


@contextlib.contextmanager
def open_inert(path: Path) -> Iterator[InertFile]:
    """Opens a file of ``torch.save``.

    Raises:
        ValueError, EOFError, OSError, LookupError, TypeError, AttributeError,
        pickle.UnpicklingError, zipfile.BadZipFile, struct.error: It is not one, or broken.
    """
    with path.open("rb") as file:
        if file.read(len(ZIP_MAGIC)) == ZIP_MAGIC:
            with zipfile.ZipFile(path) as archive:
                yield _open_zip(archive)
        else:
            file.seek(0)
            yield _open_stream(file)


def _open_zip(archive: zipfile.ZipFile) -> InertFile:
    pickles = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise ValueError("the zip archive has no data.pkl")
    root = pickles[0].split("/")[0]
    names = set(archive.namelist())

    with archive.open(pickles[0]) as file:
        tree = _Unpickler(file).load()  # type: ignore[arg-type]  # it reads; that suffices

    def read(storage: Storage) -> bytearray:
        info = archive.getinfo(f"{root}/data/{storage.key}")
        width = storage.dtype.itemsize
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError("the zip archive is compressed, which torch.save never does")
        if info.file_size != storage.length * width:
            raise ValueError(f"storage {storage.key} does not have the length that it should")
        return bytearray(archive.read(info))

    order = archive.read(f"{root}/byteorder") if f"{root}/byteorder" in names else b"little"
    return InertFile(tree, read, swap=order.decode("ascii") != sys.byteorder)


def _open_stream(file: BinaryIO) -> InertFile:
    if _Unpickler(file).load() != _LEGACY_MAGIC:
        raise ValueError("it does not begin as torch.save begins a file")
    _Unpickler(file).load()  # the version of the format
    system = _Unpickler(file).load()
    main = _Unpickler(file)
    tree = main.load()
    begins: dict[str, int] = {}
    for key in _Unpickler(file).load():
        (length,) = struct.unpack("<q", file.read(8))
        begins[str(key)] = file.tell()
        file.seek(length * main.storages[str(key)].dtype.itemsize, 1)

    def read(storage: Storage) -> bytearray:
        width = storage.dtype.itemsize
        file.seek(begins[storage.key])
        data = bytearray(file.read(storage.length * width))
        if len(data) != storage.length * width:
            raise EOFError("the file ends before its last tensor")
        return data

    little = system.get("little_endian", True) if isinstance(system, dict) else True
    return InertFile(tree, read, swap=little != (sys.byteorder == "little"))
