"""Checks an ``.onnx`` file before ONNX Runtime loads it: its size, its nodes, its weights' files.

Any tensor can name another file that holds its values, which ONNX calls external data. Some
versions of ONNX Runtime open whatever file a graph names, so that a stranger's graph could read
every file of the user. This module accepts only files in the model's folder.

ONNX Runtime opens the file again after this module has read the graph's structure. If the file is
replaced in between, the old structure meets new weights: ``GraphSource.was_replaced`` detects this
after loading.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple, Self

from timesformer_runtime.errors import InvalidModelError, quoted
from timesformer_runtime.model.function_calls import count_nodes
from timesformer_runtime.model.graph_outline import GraphOutline, outline
from timesformer_runtime.model.mapped_weights import Weights, map_weights
from timesformer_runtime.model.wire_format import DELIMITED, Buffer, Field, MessageReader

# The messages of onnx.proto that hold tensors, directly or in other messages. For each message: the
# numbers of such fields, and the kind of message in them.
_PARTS = {
    "model": {7: "graph", 20: "training info", 25: "function"},
    "training info": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse tensor",
        23: "sparse tensor",
    },
    "sparse tensor": {1: "tensor", 2: "tensor"},
}
_MODEL_GRAPH, _GRAPH_INITIALIZER = 7, 5
_TENSOR_EXTERNAL, _TENSOR_LOCATION = 13, 14
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_KEY = b"location"  # the key of the entry that names a file of weights

_LONG = 1 << 12  # bytes; a longer initializer holds weights, too long to search for _KEY
_CHUNK = 1 << 20
_LARGEST = (1 << 31) - 1  # bytes; protobuf reads no more
_MOST_NODES = 100_000  # a large model has some thousands
_MOST_LINKS = 40  # symbolic links that Linux follows


class FileVersion(NamedTuple):
    """Identifies a file as it was when it was read.

    Attributes:
        path: The absolute path of the file.
        contents: Device, inode, size and time of the last write; one of them differs after the
            file was written to or replaced.
        name_changed: Time of the last change of the name or permissions; differs after the file
            was moved away and back again.
    """

    path: Path
    contents: tuple[int, ...]
    name_changed: int

    @classmethod
    def of(cls, path: Path, status: os.stat_result | None = None) -> Self:
        """Identifies the file at a path as it is now, or as the status of an open file tells.

        Raises:
            OSError: The file does not exist.
        """
        status = status or path.stat()
        contents = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
        return cls(path.absolute(), contents, status.st_ctime_ns)

    @property
    def size(self) -> int:
        """The size of the file, in bytes."""
        return self.contents[2]

    def read(self, take: Callable[[bytes], object]) -> None:
        """Reads the contents, and hands each chunk to ``take``.

        Raises:
            InvalidModelError: The file was replaced.
            OSError: The file does not exist any more.
        """
        with self.path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                take(chunk)
            found = FileVersion.of(self.path, os.fstat(file.fileno()))
        if found.contents != self.contents:
            raise InvalidModelError(
                f"{self.path}: it was replaced after it was loaded: load the model again"
            )


@dataclasses.dataclass(frozen=True)
class GraphSource:
    """The graph and weights that ONNX Runtime is given.

    Attributes:
        model: The path of a graph, or its contents.
        folder: The folder of the files that contents refer to; None for a path, and for contents
            that hold all of their weights.
        files: The files that were read, the ``.onnx`` file first; for contents that the user gave,
            only the files of weights.
        is_mapped: True if the contents refer to a file, the ``.onnx`` file or a temporary one, for
            the large weights.
        unsigned: The weights that were made unsigned, by name; empty once the model is loaded.
        cannot_overflow: True if no product can overflow; False if that is not known.
    """

    model: Path | bytes
    folder: Path | None = None
    files: tuple[FileVersion, ...] = ()
    is_mapped: bool = False
    unsigned: Weights = dataclasses.field(default_factory=dict)
    cannot_overflow: bool = False

    @functools.cached_property
    def outline(self) -> GraphOutline:
        """The facts about the graph that a device other than the CPU needs."""
        return outline(self.model)

    def clean_up(self) -> None:
        """Gives up the unsigned weights, once the model is loaded: ONNX Runtime has packed them."""
        self.unsigned.clear()

    def was_replaced(self) -> bool:
        """True if ONNX Runtime may have opened other files than this module read."""
        is_complete = isinstance(self.model, bytes) and self.folder is None
        return not is_complete and not all(_is_current(file) for file in self.files)


def _is_current(file: FileVersion) -> bool:
    try:
        return file == FileVersion.of(file.path)
    except OSError:
        return False


def source_of_bytes(graph: bytes, folder: Path | None, name: str) -> GraphSource:
    """Checks a graph whose contents are given.

    Args:
        graph: The contents.
        folder: The folder where files with its weights may be; None where no such files may be.
        name: The model's name, for errors.

    Raises:
        InvalidModelError: The weights are in files, but no folder is given, or the files are
            outside of the folder.
    """
    locations = _locations(graph, name)
    _check_functions(graph, name)
    if not locations:
        return GraphSource(graph)
    if folder is None:
        raise InvalidModelError(
            f"{name}: weights are in another file, {quoted(min(locations))}, and bytes do not say "
            "in which folder: give the path of the .onnx file instead"
        )
    with _system_errors_translated(name):
        files = _files_beside(locations, (folder,), name)[1]
        return GraphSource(graph, folder, tuple(map(FileVersion.of, files)))


def source_of_file(
    graph: Path, name: str, *, maps: bool, unsigned: bool = False, copies: bool = False
) -> GraphSource:
    """Checks a graph in a file; opens the file only once.

    Args:
        graph: The path of the file.
        name: The model's name, for errors.
        maps: True to leave large weights in the file; see ``map_weights``.
        unsigned: With ``maps``, True to make weights unsigned whose products could overflow.
        copies: True to take the contents instead of the path, unless weights are in other files.

    Raises:
        InvalidModelError: The file cannot be read, or weights are outside of its folder.
    """
    with _system_errors_translated(name), graph.open("rb") as file:
        status = os.fstat(file.fileno())
        if not 0 < status.st_size <= _LARGEST:
            raise _unreadable_error(name, f"it has {status.st_size} bytes")
        version = FileVersion.of(graph, status)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            locations = _locations(data, name)
            _check_functions(data, name)
            if locations:
                paths = linked_paths(graph)
                folder, files = _files_beside(locations, [path.parent for path in paths], name)
                near = next(path for path in paths if path.parent == folder)
                return GraphSource(near, None, (version, *map(FileVersion.of, files)))
            if copies:
                contents = data[:]
                if FileVersion.of(graph, os.fstat(file.fileno())).contents != version.contents:
                    raise being_written(name)
                return GraphSource(contents, None, (version,))
            mapped = map_weights(graph, MessageReader(data), unsigned=unsigned) if maps else None
    if mapped is None:
        return GraphSource(graph, None, (version,))
    return GraphSource(
        mapped.graph,
        mapped.folder,
        (version,),
        is_mapped=True,
        unsigned=mapped.unsigned,
        cannot_overflow=mapped.cannot_overflow,
    )


def being_written(name: str) -> InvalidModelError:
    """Makes the error for a model whose files change while they are read."""
    return InvalidModelError(
        f"{name}: its files change while they are read: wait until they are complete; replace a "
        "model by renaming a new file to its name"
    )


@contextlib.contextmanager
def _system_errors_translated(name: str) -> Iterator[None]:
    """Turns an error of the system into an error about the model."""
    try:
        yield
    except OSError as error:
        raise InvalidModelError(
            f"{name}: cannot load it ({error.strerror or error}); check the file and its "
            "permissions"
        ) from error


def linked_paths(path: Path) -> list[Path]:
    """Lists a path and, while it is a symbolic link, the paths to which it leads in turn."""
    paths = [path]
    while paths[-1].is_symlink() and len(paths) <= _MOST_LINKS:
        paths.append(paths[-1].parent / paths[-1].readlink())
    return paths


def _files_beside(
    locations: set[str], folders: Sequence[Path], name: str
) -> tuple[Path, list[Path]]:
    """Finds the first folder that has all of the files; returns the folder and the files.

    Raises:
        InvalidModelError: No folder has all of the files, or a link leads out of the folder.
    """
    for location in sorted(locations):
        _check_location(location, name)
    folder = next(
        (
            folder
            for folder in folders
            if all((folder / location).is_file() for location in locations)
        ),
        None,
    )
    if folder is None:
        missing = next(file for file in locations if not (folders[0] / file).is_file())
        raise InvalidModelError(
            f"{name}: cannot load it: its weights are in {quoted(missing)}, which is not "
            f"in {folders[0]}; put that file there too"
        )
    # In the Hub's cache the files of a folder are links into another folder, which has them all.
    homes = {home.resolve() for home in (folder, folders[-1])}
    for location in sorted(locations):
        if not any((folder / location).resolve().is_relative_to(home) for home in homes):
            raise _outside_error(location, name)
    return folder, [folder / location for location in sorted(locations)]


def _check_location(location: str, name: str) -> None:
    for path in (PurePosixPath(location), PureWindowsPath(location)):
        if path.anchor or not path.parts or ".." in path.parts or "*" in path.parts:
            raise _outside_error(location, name)


def _outside_error(location: str, name: str) -> InvalidModelError:
    return InvalidModelError(
        f"{name}: it names {quoted(location)} as a file of weights, which is outside of "
        "its folder: do not trust it, or put that file into the folder and export it again"
    )


def _unreadable_error(name: str, reason: str) -> InvalidModelError:
    return InvalidModelError(
        f"{name}: cannot load it: it is not an ONNX model, or damaged ({reason}); give a complete "
        "file, or export it again"
    )


def _check_functions(data: Buffer, name: str) -> None:
    try:
        count = count_nodes(MessageReader(data))
    except (ValueError, IndexError):
        return  # ONNX Runtime says what is wrong
    if count > _MOST_NODES:
        shown = "endlessly many" if math.isinf(count) else f"{count:.3g}"
        raise InvalidModelError(
            f"{name}: cannot load it: with its functions inlined it has {shown} nodes; at most "
            f"{_MOST_NODES} can be run: do not trust it, or export it without functions"
        )


def _locations(data: Buffer, name: str) -> set[str]:
    """Finds the files that tensors of a graph name.

    Raises:
        InvalidModelError: The file is damaged, so that its tensors cannot be read.
    """
    try:
        reader = MessageReader(data)
        if not _may_name_files(reader):
            return set()
        return {location for tensor in _tensors(reader) for location in _files_of(reader, tensor)}
    except (ValueError, IndexError) as error:
        if data.find(_KEY) < 0:
            return set()  # ONNX Runtime says what is wrong
        raise _unreadable_error(name, str(error)) from error


def _may_name_files(reader: MessageReader) -> bool:
    """False for most graphs, which name no files; takes a tenth of the time of ``_tensors``."""
    for field in reader.fields():
        is_graph = (field.number, field.wire_type) == (_MODEL_GRAPH, DELIMITED)
        for part in reader.fields(field) if is_graph else (field,):
            if is_graph and part.number == _GRAPH_INITIALIZER and part.end - part.start > _LONG:
                if any(inner.number == _TENSOR_LOCATION for inner in reader.fields(part)):
                    return True
            elif reader.data.find(_KEY, part.contents, part.end) >= 0:
                return True
    return False


def _tensors(reader: MessageReader) -> Iterator[Field]:
    """Gives all tensors of a model, also those in nested graphs, functions and attributes."""
    waiting: list[tuple[str, Field | None]] = [("model", None)]
    while waiting:
        kind, message = waiting.pop()
        for field in reader.fields(message):
            part = _PARTS[kind].get(field.number) if field.wire_type == DELIMITED else None
            if part == "tensor":
                yield field
            elif part is not None:
                waiting.append((part, field))


def _files_of(reader: MessageReader, tensor: Field) -> Iterator[str]:
    """Gives the file that a tensor names, if any; several if the tensor contradicts itself."""
    fields = list(reader.fields(tensor))
    if not any(reader.integer(field) for field in fields if field.number == _TENSOR_LOCATION):
        return
    for entry in fields:
        if (entry.number, entry.wire_type) != (_TENSOR_EXTERNAL, DELIMITED):
            continue
        if any(reader.contents(key) == _KEY for key in reader.messages(entry, _ENTRY_KEY)):
            for value in reader.messages(entry, _ENTRY_VALUE):
                yield os.fsdecode(reader.contents(value))
