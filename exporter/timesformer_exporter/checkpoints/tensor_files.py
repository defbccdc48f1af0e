"""Files of tensors, read safely: what is in a ``.safetensors``, ``.bin``, ``.pth``, ``.pyth``."""

from __future__ import annotations

import pickle
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from timesformer_exporter.checkpoints.inert_pickle import (
    ZIP_MAGIC,
    InertFile,
    StoredTensor,
    open_inert,
)
from timesformer_exporter.errors import InvalidCheckpointError

# Under which keys the trainers in use keep the model, in the order in which they are tried.
_WRAPPERS = ("model_state", "state_dict", "model_state_dict", "model", "module")

# A broken or hostile pickle can raise any of these, as the pickle module documents.
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
    AssertionError,
    ImportError,
    MemoryError,
    OverflowError,
)


@dataclass(frozen=True)
class TensorFile:
    """The tensors of one file.

    Attributes:
        tensors: By the names they have in the file.
        settings: The trainer's settings as text, where the file has them (key ``cfg``).
        has_other_objects: Whether the file also carries objects, which were not loaded.
    """

    tensors: dict[str, Tensor] = field(repr=False)
    settings: str = ""
    has_other_objects: bool = False


def read_tensor_file(path: Path) -> TensorFile:
    """Reads the model's tensors of a file of any supported format, told by its content.

    Nothing in the file is executed or imported.

    Raises:
        InvalidCheckpointError: The file is broken, of another kind, or has no tensors.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise InvalidCheckpointError(f"{path} cannot be read: {error.strerror}") from error
    _refuse_what_is_no_checkpoint(path, head)
    if _is_safetensors(head):
        return _read_safetensors(path)
    if head.startswith(ZIP_MAGIC):
        _refuse_torchscript(path)
    elif not head.startswith(b"\x80"):
        raise InvalidCheckpointError(
            f"{path} is not a checkpoint: neither safetensors nor a file of torch.save"
        )
    return _read_torch(path, mapped=head.startswith(ZIP_MAGIC))


def _refuse_what_is_no_checkpoint(path: Path, head: bytes) -> None:
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
    if tarfile.is_tarfile(path):
        raise InvalidCheckpointError(
            f"{path} is a tar archive, as PyTorch wrote before 0.1.10 or as others pack files; "
            "unpack it, or save the state dict again with a current PyTorch"
        )


def _is_safetensors(head: bytes) -> bool:
    """Eight bytes of header length, then the header, which is a JSON object."""
    return head[8:9] == b"{"


def _read_safetensors(path: Path) -> TensorFile:
    try:
        with safe_open(path, framework="pt") as file:
            return TensorFile({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise InvalidCheckpointError(
            f"{path} is not a whole safetensors file ({_first_line(error)}); download it again"
        ) from error


def _refuse_torchscript(path: Path) -> None:
    try:
        names = zipfile.ZipFile(path).namelist()
    except zipfile.BadZipFile as error:
        raise _broken(path, error) from error
    if any(name.endswith("/constants.pkl") for name in names):
        raise InvalidCheckpointError(
            f"{path} is a TorchScript program, not a checkpoint; give the state dict it was made of"
        )


def _read_torch(path: Path, *, mapped: bool) -> TensorFile:
    """Reads a file of torch.save; zip archives are mapped, so that only the model is read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong with a file is said below
            tree = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except _PARSE_ERRORS:
        # Either it carries other objects than tensors, or it is broken: the inert reader knows.
        return _read_inert(path)
    state = _state_dict(path, tree)
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    return TensorFile(tensors, _settings(tree))


def _read_inert(path: Path) -> TensorFile:
    try:
        with open_inert(path) as file:
            return _inert_tensors(path, file)
    except InvalidCheckpointError:
        raise
    except _PARSE_ERRORS as error:
        raise _broken(path, error) from error


def _inert_tensors(path: Path, file: InertFile) -> TensorFile:
    state = _state_dict(path, file.tree)
    tensors = {
        name: file.tensor(value) for name, value in state.items() if isinstance(value, StoredTensor)
    }
    return TensorFile(tensors, _settings(file.tree), has_other_objects=True)


def _state_dict(path: Path, tree: object) -> Mapping[str, object]:
    """The mapping in a file's tree that holds tensors by name."""
    candidates = [tree]
    if isinstance(tree, Mapping):
        candidates = [*(tree[key] for key in _WRAPPERS if key in tree), tree]
    for candidate in candidates:
        if isinstance(candidate, Mapping) and _has_tensors(candidate):
            return {str(name): value for name, value in candidate.items()}
    keys = (
        ", ".join(map(str, list(tree)[:10])) if isinstance(tree, Mapping) else type(tree).__name__
    )
    raise InvalidCheckpointError(
        f"{path} has no state dict: it holds {keys or 'nothing'}, where a mapping of names to "
        f"tensors was expected, or one under {', '.join(_WRAPPERS)}"
    )


def _has_tensors(mapping: Mapping[object, object]) -> bool:
    return any(isinstance(value, Tensor | StoredTensor) for value in mapping.values())


def _settings(tree: object) -> str:
    settings = tree.get("cfg") if isinstance(tree, Mapping) else None
    return settings if isinstance(settings, str) else ""


def _broken(path: Path, error: BaseException) -> InvalidCheckpointError:
    return InvalidCheckpointError(
        f"{path} is broken or cut short ({_first_line(error)}); download it again"
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
