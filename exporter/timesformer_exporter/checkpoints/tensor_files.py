"""Reads the tensors of a ``.safetensors``, ``.bin``, ``.pth`` or ``.pyth`` file safely."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from timesformer_runtime.errors import listed, printable
from torch import Tensor

from timesformer_exporter.checkpoints.inert_pickle import SavedObject, TooManyOpcodesError
from timesformer_exporter.checkpoints.saved_file import ZIP_MAGIC, SavedFile, read_saved_file
from timesformer_exporter.checkpoints.saved_module import module_config
from timesformer_exporter.checkpoints.weight_sets import MODEL_KEYS, choose, weight_sets
from timesformer_exporter.errors import ExportError, InvalidCheckpointError, NotEnoughMemoryError

_MOST_HEADER_BYTES = 16 << 20  # of a safetensors file: enough for over 100,000 tensors

# A broken or hostile file can raise any of these, as the pickle module documents.
_PARSE_ERRORS = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
)

_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf": "7z",
}


@dataclass(frozen=True)
class TensorFile:
    """The tensors of one file.

    Attributes:
        tensors: The tensors, by their names in the file.
        settings: The trainer's settings as text, where the file has them (key ``cfg``).
        config: The values of the model's own configuration, where the whole model was saved.
        has_other_objects: True where the file also carries objects, which were not loaded.
        where: The key of the tensors in the file; empty where they are not under a key.
        is_averaged: True where the tensors are an average over training steps (EMA).
        had_choice: True where the file has both raw and averaged weights, so that the option
            ``weights`` has chosen between them already.
        notes: Sentences for the user about that choice.
    """

    tensors: dict[str, Tensor] = field(repr=False)
    settings: str = ""
    config: Mapping[str, Any] | None = None
    has_other_objects: bool = False
    where: str = ""
    is_averaged: bool = False
    had_choice: bool = False
    notes: tuple[str, ...] = ()


def read_tensor_file(path: Path, weights: str | None = None) -> TensorFile:
    """Reads the model's tensors from a file; the first bytes, not the name, tell its format.

    Nothing in the file is executed or imported.

    Args:
        path: The file.
        weights: "raw" or "ema", for a file that has both; None for the set that the trainer saved
            as the model.

    Raises:
        InvalidCheckpointError: The file is broken, of another kind, or has no tensors.
        InvalidOptionError: The file has two sets of weights, and neither is the one that
            ``weights`` asks for.
        NotEnoughMemoryError: The file does not fit into this machine's memory.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise InvalidCheckpointError(f"{path} cannot be read: {error.strerror}") from error
    _refuse_other_files(path, head)
    if _is_safetensors(head):
        return _read_safetensors(path, int.from_bytes(head[:8], "little"))
    if not head.startswith((ZIP_MAGIC, b"\x80")):
        raise InvalidCheckpointError(
            f"{path} is not a checkpoint: neither safetensors nor a file of torch.save"
        )
    return _read_torch(path, weights)


def _refuse_other_files(path: Path, head: bytes) -> None:
    text = head.lstrip().lower()
    if not head:
        raise InvalidCheckpointError(f"{path} is empty; download it again")
    if text.startswith(b"version https://git-lfs"):
        raise InvalidCheckpointError(
            f"{path} is a Git LFS pointer, not the file itself; run `git lfs pull` in its folder"
        )
    if text.startswith((b"<!doctype html", b"<html", b"<?xml")):
        raise InvalidCheckpointError(
            f"{path} is a web page, not a checkpoint; download the file itself"
        )
    # Only the first header's magic is read: tarfile would decompress a file to look at it.
    if head[257:262] == b"ustar":
        raise InvalidCheckpointError(
            f"{path} is a tar archive, as PyTorch wrote before 0.1.10 or as others pack files; "
            "unpack it, or save the state dict again with a current PyTorch"
        )
    for magic, name in _COMPRESSED.items():
        if head.startswith(magic):
            raise InvalidCheckpointError(
                f"{path} is compressed ({name}); unpack it and give the checkpoint that is in it"
            )


def _is_safetensors(head: bytes) -> bool:
    """A safetensors file begins with eight bytes of header length and the header, a JSON object."""
    return head[8:9] == b"{"


def _read_safetensors(path: Path, header_bytes: int) -> TensorFile:
    if _MOST_HEADER_BYTES < header_bytes < path.stat().st_size:
        raise InvalidCheckpointError(
            f"{path} has a header of {header_bytes:,} bytes, and at most {_MOST_HEADER_BYTES:,} "
            "are read; save the tensors of the model alone"
        )
    try:
        with safe_open(path, framework="pt") as file:
            return TensorFile({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise InvalidCheckpointError(
            f"{path} is not a whole safetensors file ({_first_line(error)}); download it again"
        ) from error


def _read_torch(path: Path, weights: str | None) -> TensorFile:
    try:
        return _choose_tensors(path, read_saved_file(path), weights)
    except ExportError:
        raise
    except TooManyOpcodesError as error:
        raise InvalidCheckpointError(
            f"{path} is not a checkpoint of a model: {error}; save the state dict alone, with "
            "torch.save(model.state_dict(), FILE)"
        ) from error
    except MemoryError as error:
        raise NotEnoughMemoryError(
            f"{path} takes more memory than this machine has; save the state dict alone, with "
            "torch.save(model.state_dict(), FILE)"
        ) from error
    except _PARSE_ERRORS as error:
        raise InvalidCheckpointError(
            f"{path} is broken or cut short ({_first_line(error)}); download it again"
        ) from error


def _choose_tensors(path: Path, file: SavedFile, wanted: str | None) -> TensorFile:
    """Chooses the raw or the averaged weights of the file, and reads their tensors."""
    tree = file.tree
    sets = weight_sets(tree)
    if not sets:
        raise InvalidCheckpointError(
            f"{path} has no state dict: it holds {_description(tree)}, where a mapping of names to "
            f"tensors was expected, or one under {', '.join(MODEL_KEYS)}; save it with "
            "torch.save(model.state_dict(), FILE)"
        )
    had_choice = len(sets) > 1
    chosen, notes = choose(sets, wanted, path.name) if had_choice else (sets[0], [])
    whole = tree.get(chosen.where) if isinstance(tree, dict) else tree
    settings = tree.get("cfg") if isinstance(tree, dict) else None
    return TensorFile(
        {name: file.tensor(value) for name, value in chosen.tensors.items()},
        settings=settings if isinstance(settings, str) else "",
        config=module_config(whole) if isinstance(whole, SavedObject) else None,
        has_other_objects=file.has_objects,
        where=chosen.where,
        is_averaged=chosen.is_averaged,
        had_choice=had_choice,
        notes=tuple(notes),
    )


def _description(tree: object) -> str:
    if isinstance(tree, dict):
        return listed(str(key)[:100] for key in tree) or "nothing"
    if isinstance(tree, SavedObject):
        return f"an object ({printable(str(tree.type)[:100])})"
    return type(tree).__name__


def _first_line(error: BaseException) -> str:
    lines = str(error).strip()[:500].splitlines()
    return printable(lines[0]) if lines else type(error).__name__
