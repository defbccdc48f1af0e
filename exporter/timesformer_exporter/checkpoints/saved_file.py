"""Reads files of ``torch.save``: zip archives, and before PyTorch 1.6 streams of pickles.

The file is mapped into memory and a tensor is a view of it, so that only the tensors in use are
read. Only this module reads the zip archive. Checking it with one reader and loading it with
another would not be safe: two readers can find different contents in one archive.
"""

from __future__ import annotations

import io
import mmap
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from timesformer_exporter.checkpoints.inert_pickle import InertUnpickler, Storage, StoredTensor
from timesformer_exporter.errors import InvalidCheckpointError

ZIP_MAGIC = b"PK\x03\x04"
_STREAM_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a stream
# Limit of a zip archive's list of entries: enough for over 100,000 tensors.
_MOST_DIRECTORY_BYTES = 16 << 20


class SavedFile:
    """The contents of a file that ``torch.save`` wrote.

    Attributes:
        tree: The object that was saved, with StoredTensors for tensors.
        has_objects: True where the pickle has objects besides containers and tensors.
    """

    def __init__(
        self,
        data: mmap.mmap,
        tree: Any,
        offset_of: Callable[[Storage], int],
        *,
        has_objects: bool,
        is_little_endian: bool,
    ) -> None:
        self.tree = tree
        self.has_objects = has_objects
        self._data = data
        self._offset_of = offset_of
        self._swap = is_little_endian != (sys.byteorder == "little")
        self._storages: dict[str, Tensor] = {}

    def tensor(self, stored: StoredTensor) -> Tensor:
        """Reads a tensor.

        Raises:
            EOFError, LookupError, ValueError: The file ends before the tensor's storage does, or
                states another length of the storage.
            RuntimeError: The tensor reaches beyond its storage.
        """
        storage = stored.storage
        if storage.key not in self._storages:
            self._storages[storage.key] = self._numbers(storage)
        numbers = self._storages[storage.key].view(storage.dtype)
        # as_strided checks that the view stays inside the storage.
        return numbers.as_strided(stored.size, stored.stride, stored.offset)

    def _numbers(self, storage: Storage) -> Tensor:
        width, begin = storage.dtype.itemsize, self._offset_of(storage)
        size = storage.length * width
        if not 0 <= size <= len(self._data) - begin:
            raise EOFError(f"the file ends before the end of storage {storage.key}")
        if size == 0:
            return torch.empty(0, dtype=storage.dtype)
        if begin % width == 0 and not self._swap:
            return torch.frombuffer(
                self._data, dtype=storage.dtype, count=storage.length, offset=begin
            )
        numbers = torch.frombuffer(bytearray(self._data[begin : begin + size]), dtype=torch.uint8)
        if self._swap:
            numbers = numbers.reshape(-1, width).flip(1).flatten()
        return numbers.view(storage.dtype)


def read_saved_file(path: Path) -> SavedFile:
    """Reads a file of ``torch.save``, except the values of its tensors.

    Raises:
        InvalidCheckpointError: The file is a zip archive that ``torch.save`` does not write.
        ValueError, EOFError, OSError, LookupError, TypeError, pickle.UnpicklingError,
        zipfile.BadZipFile, struct.error: The file is broken.
    """
    with path.open("rb") as file:
        # torch.frombuffer takes writable memory only; with ACCESS_COPY no write reaches the file.
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    return _read_zip(path, data) if data[: len(ZIP_MAGIC)] == ZIP_MAGIC else _read_stream(data)


class _LimitedReads(io.FileIO):
    """A file that refuses large reads: zipfile reads the whole list of an archive's entries."""

    def read(self, size: int | None = -1, /) -> Any:
        if size is not None and size > _MOST_DIRECTORY_BYTES:
            raise InvalidCheckpointError(
                f"{self.name} has a list of entries of {size:,} bytes, and at most "
                f"{_MOST_DIRECTORY_BYTES:,} are read; save the state dict alone"
            )
        return super().read(size)


def _read_zip(path: Path, data: mmap.mmap) -> SavedFile:
    with _LimitedReads(path) as file, zipfile.ZipFile(file) as archive:
        entries = {info.filename: info for info in archive.infolist()}
    if any(name.endswith("/constants.pkl") for name in entries):
        raise InvalidCheckpointError(
            f"{path} is a TorchScript program, not a checkpoint; give the state dict it was made of"
        )
    roots = [name.split("/")[0] for name in entries if name.split("/")[1:] == ["data.pkl"]]
    if len(roots) != 1:
        raise InvalidCheckpointError(
            f"{path} is a zip archive that torch.save did not write (it has no data.pkl); unpack "
            "it and give the checkpoint that is in it"
        )

    def offset_of_entry(name: str) -> int:
        info = entries[f"{roots[0]}/{name}"]
        if info.compress_type != zipfile.ZIP_STORED:
            raise InvalidCheckpointError(
                f"{path} has a compressed {name}, which torch.save never writes; unpack the "
                "archive and pack it without compression, or save the checkpoint again"
            )
        name_length, extra_length = struct.unpack_from("<HH", data, info.header_offset + 26)
        begin: int = info.header_offset + 30 + name_length + extra_length
        is_entry = data[info.header_offset : info.header_offset + 4] == ZIP_MAGIC
        if not is_entry or begin + info.file_size > len(data):
            raise EOFError(f"the file ends before its {name}")
        return begin

    def read(name: str) -> bytes:
        begin = offset_of_entry(name)
        return data[begin : begin + entries[f"{roots[0]}/{name}"].file_size]

    def offset_of(storage: Storage) -> int:
        name = f"data/{storage.key}"
        begin = offset_of_entry(name)
        if entries[f"{roots[0]}/{name}"].file_size != storage.length * storage.dtype.itemsize:
            raise ValueError(f"storage {storage.key} has another length than its pickle states")
        return begin

    unpickler = InertUnpickler()
    return SavedFile(
        data,
        unpickler.load(io.BytesIO(read("data.pkl"))),
        offset_of,
        has_objects=unpickler.has_objects,
        is_little_endian=f"{roots[0]}/byteorder" not in entries or read("byteorder") == b"little",
    )


def _read_stream(data: mmap.mmap) -> SavedFile:
    unpickler = InertUnpickler()
    if unpickler.load(data) != _STREAM_MAGIC:
        raise ValueError("it does not begin as torch.save begins a file")
    unpickler.load(data)  # the version of the format
    system, tree, keys = unpickler.load(data), unpickler.load(data), unpickler.load(data)
    offsets: dict[str, int] = {}
    for key in keys:
        if not isinstance(key, str):
            raise TypeError("the key of a storage is not a string")
        storage = unpickler.storages[key]
        (length,) = struct.unpack("<q", data.read(8))
        if length != storage.length:
            raise ValueError(f"storage {key} has another length than its pickle states")
        offsets[key] = data.tell()
        data.seek(length * storage.dtype.itemsize, 1)
    return SavedFile(
        data,
        tree,
        lambda storage: offsets[storage.key],
        has_objects=unpickler.has_objects,
        is_little_endian=not isinstance(system, dict) or bool(system.get("little_endian", True)),
    )
