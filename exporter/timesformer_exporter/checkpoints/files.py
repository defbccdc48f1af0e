"""Finds the files of a checkpoint that is given as a Hub id, a folder or a file."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from timesformer_runtime.errors import InvalidModelError, ModelNotFoundError, listed, quoted
from timesformer_runtime.input.preprocessor_files import PREPROCESSOR_FILES
from timesformer_runtime.json_object import read_json_object
from timesformer_runtime.model import hub
from timesformer_runtime.model.locate import path_exists
from timesformer_runtime.source_names import shown

from timesformer_exporter.errors import (
    CheckpointNotFoundError,
    InvalidCheckpointError,
    InvalidOptionError,
)

CONFIG = "config.json"

# Names of files of weights, the preferred ones first: those without pickle.
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_WEIGHTS_SUFFIXES = (".safetensors", ".bin", ".pyth", ".pth", ".pt", ".ckpt", ".pth.tar", ".pt.tar")
_ADAPTER_CONFIG = "adapter_config.json"
_ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.\w+$")


@dataclass(frozen=True)
class CheckpointFiles:
    """The files of one checkpoint, on this machine.

    Attributes:
        name: The Hub id, or the name of the local folder or file, as text.
        revision: The commit on the Hub; None for a local checkpoint.
        weights: The file of tensors, or all shards.
        index: The shard of each tensor, by the tensor's name; None for a single file.
        index_file: The file with the index; None for a single file.
        config: ``config.json`` beside the weights; None if there is none.
        preprocessors: Those of ``PREPROCESSOR_FILES`` that lie beside the weights.
        adapter_config: ``adapter_config.json`` where the weights are an adapter's; else None.
    """

    name: str
    revision: str | None
    weights: tuple[Path, ...]
    index: Mapping[str, str] | None = None
    index_file: Path | None = None
    config: Path | None = None
    preprocessors: tuple[Path, ...] = ()
    adapter_config: Path | None = None


def find_files(model: str | Path, revision: str | None, local_files_only: bool) -> CheckpointFiles:
    """Finds the files of a checkpoint, and downloads them if ``model`` is a Hub id.

    A local path comes first: a Hub id is looked up only if no such path exists.

    Raises:
        CheckpointNotFoundError: There is nothing under that path or Hub id.
        InvalidCheckpointError: There is no file of weights, or an index is broken.
        InvalidOptionError: A revision was given for local files.
        timesformer_runtime.errors.HubError: The Hub refused the download or broke it off.
    """
    try:
        path = Path(model).expanduser()
        exists = path_exists(path)
        names = _names(path) if path.is_dir() else []
        is_folder = exists and not path.is_file()
    except (OSError, RuntimeError) as error:
        raise CheckpointNotFoundError(
            f"{shown(str(model))} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error
    if not exists:
        return find_on_hub(str(model), revision, local_files_only)
    if revision is not None:
        raise InvalidOptionError(
            f"`revision` is {revision}, but {model} is a local path, which has no revisions; "
            "leave the option out"
        )
    if is_folder:
        return _from_file(path / choose_weights(names, str(model)), path.resolve().name)
    return _from_file(path, path.name)


def choose_weights(names: Iterable[str], where: str) -> str:
    """Chooses the file of weights, or the index of shards, among the files of a folder.

    Raises:
        InvalidCheckpointError: The folder has no weights, or several files of weights.
    """
    names = list(names)
    for name in (*_WEIGHTS, *_ADAPTER_WEIGHTS):
        if name in names:
            return name
    others = sorted(name for name in names if "/" not in name and name.endswith(_WEIGHTS_SUFFIXES))
    if len(others) == 1:
        return others[0]
    if others:
        raise InvalidCheckpointError(
            f"{where} has several files of weights ({listed(others)}); give one by its path"
        )
    if any(name.endswith(".onnx") for name in names):
        raise InvalidCheckpointError(
            f"{where} has exported ONNX files but no PyTorch weights; run it with "
            f"`timesformer classify {where} VIDEO`, or export the checkpoint it was made from"
        )
    raise InvalidCheckpointError(f"{where} has no weights: none of {', '.join(_WEIGHTS)} is there")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a file that holds a JSON object.

    Raises:
        InvalidCheckpointError: The file is not a JSON object.
    """
    try:
        return read_json_object(path)
    except InvalidModelError as error:
        raise InvalidCheckpointError(str(error)) from error


def as_text(name: str) -> str:
    """A file's name as text for JSON: bytes that are not UTF-8 become escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _names(folder: Path) -> list[str]:
    """The names of the files in a folder, and of the graphs where it is an exported model."""
    graphs = [item.relative_to(folder).as_posix() for item in folder.glob("onnx/*.onnx")]
    return [item.name for item in folder.iterdir() if item.is_file()] + graphs


def find_on_hub(model: str, revision: str | None, local_files_only: bool) -> CheckpointFiles:
    """Downloads a checkpoint from the Hub; its name is never taken for a path of this machine.

    Raises:
        CheckpointNotFoundError: ``model`` is not a Hub id, or the Hub does not have it.
        InvalidCheckpointError: The repository's files are not those of one checkpoint.
    """
    if not hub.looks_like_hub_id(model):
        raise CheckpointNotFoundError(
            f"{shown(model)} does not exist; give a folder, a file or a Hub id such as "
            "facebook/timesformer-base-finetuned-k400"
        )
    try:
        names = hub.list_files(model, revision=revision, local_files_only=local_files_only)
        weights = choose_weights(names, model)
        others = [CONFIG, *PREPROCESSOR_FILES]
        if weights in _ADAPTER_WEIGHTS:
            others.append(_ADAPTER_CONFIG)
        wanted = [weights, *(name for name in others if name in names)]
        for name in wanted:
            path = hub.download(model, name, revision=revision, local_files_only=local_files_only)
            # The further files come from the commit of the first one: a branch may move meanwhile.
            revision = path.parent.name
        if weights.endswith(".index.json"):
            for shard in _shards(path.parent / weights)[1]:
                hub.download(model, shard, revision=revision, local_files_only=local_files_only)
    except ModelNotFoundError as error:
        raise CheckpointNotFoundError(
            f"{model} is not a local file or folder, and {error}"
        ) from error
    return _from_file(path.parent / weights, model, revision)


def _from_file(path: Path, name: str, revision: str | None = None) -> CheckpointFiles:
    folder = path.parent
    index: Mapping[str, str] | None = None
    weights: tuple[Path, ...] = (path,)
    if path.name.endswith(".index.json"):
        index, shards = _shards(path)
        weights = tuple(folder / shard for shard in shards)
        # Not Path.is_file, which raises an error for a name that is too long.
        missing = [shard.name for shard in weights if not os.path.isfile(shard)]  # noqa: PTH113
        if missing:
            raise InvalidCheckpointError(
                f"{path} names {len(weights)} shards, of which {len(missing)} are missing: "
                f"{listed(missing)}; download them into the same folder"
            )
    elif _SHARD.search(path.name):
        raise InvalidCheckpointError(
            f"{path} is one shard of several; give its folder, or the .index.json file"
        )
    adapter_config = folder / _ADAPTER_CONFIG if path.name in _ADAPTER_WEIGHTS else None
    if adapter_config is not None and not adapter_config.is_file():
        raise InvalidCheckpointError(
            f"{path} is an adapter of PEFT, whose {_ADAPTER_CONFIG} is not beside it; add it"
        )
    preprocessors = (folder / other for other in PREPROCESSOR_FILES)
    return CheckpointFiles(
        name=as_text(name),
        revision=revision,
        weights=weights,
        index=index,
        index_file=None if index is None else path,
        config=folder / CONFIG if (folder / CONFIG).is_file() else None,
        preprocessors=tuple(path for path in preprocessors if path.is_file()),
        adapter_config=adapter_config,
    )


def _shards(path: Path) -> tuple[Mapping[str, str], list[str]]:
    """Reads an index: the shard of each tensor, and the names of all shards."""
    index = read_json(path).get("weight_map")
    if not isinstance(index, dict) or not index:
        raise InvalidCheckpointError(f"{path} has no weight_map from tensors to shards")
    for shard in index.values():
        if not _is_name(shard):
            raise InvalidCheckpointError(
                f"{path} names the shard {quoted(shard)}; shards must lie in the folder of the "
                "index"
            )
    return index, sorted(set(index.values()))


def _is_name(shard: object) -> bool:
    """True for the name of a file, without a folder."""
    return (
        isinstance(shard, str)
        and PurePosixPath(shard).name == shard
        and shard not in {"", ".", ".."}
        and "\\" not in shard
        and shard.isprintable()
    )
