"""Finds a model's files: in an exported model's folder, beside one .onnx file, or on the Hub."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from timesformer_runtime.errors import (
    HubError,
    InvalidModelError,
    InvalidOptionError,
    MissingDependencyError,
    ModelNotFoundError,
    listed,
)
from timesformer_runtime.input.preprocessor_files import (
    PREPROCESSOR_FILES,
    PreprocessorConfig,
    choose_preprocessor,
)
from timesformer_runtime.json_object import read_json_object
from timesformer_runtime.model import cpu, hub
from timesformer_runtime.model.graph_file import linked_paths
from timesformer_runtime.option_checks import check_flag
from timesformer_runtime.source_names import shown

# The file name of each variant, as on the Hub and in transformers.js, in onnx/ or at the root.
DTYPES: Mapping[str, str] = {
    "fp32": "model.onnx",
    "fp16": "model_fp16.onnx",
    "int8": "model_int8.onnx",
    "uint8": "model_uint8.onnx",
    "q8": "model_quantized.onnx",
    "q4": "model_q4.onnx",
    "q4f16": "model_q4f16.onnx",
    "bnb4": "model_bnb4.onnx",
}

# The int8 file of weights of 7 bits, beside that of 8 bits: fast where products of 8 bits overflow.
INT8_OF_7_BITS = "model_int8_avx2.onnx"

_GRAPH_FOLDERS = ("onnx", "")  # "" is the root; the first one wins
_EXTERNAL_DATA = ("_data", ".data")  # suffixes that exporters append to the graph's name
_CONFIG = "config.json"
_ROOT = PurePosixPath()
_PYTORCH_SUFFIXES = (".safetensors", ".bin", ".pth", ".pyth", ".pt")


@dataclasses.dataclass(frozen=True)
class ModelFiles:
    """The files of a model.

    Attributes:
        name: The model as it was asked for.
        graph: The ``.onnx`` file, or its contents.
        dtype: The variant that the file's name stands for; None for another name.
        config_file: The ``config.json`` beside the graph, if there is one.
        preprocessor_files: The files named in ``PREPROCESSOR_FILES`` that exist beside the graph,
            those in the nearest folder first.
    """

    name: str
    graph: Path | bytes
    dtype: str | None = None
    config_file: Path | None = None
    preprocessor_files: tuple[Path, ...] = ()

    # The properties read the files only on demand: a graph that states everything itself needs no
    # files, and the files beside it may belong to another model.

    @property
    def config(self) -> Mapping[str, Any] | None:
        """Contents of ``config_file``; raises InvalidModelError where the file is broken."""
        return None if self.config_file is None else read_json_object(self.config_file)

    @property
    def preprocessor(self) -> PreprocessorConfig | None:
        """The description of the preprocessing, from one of ``preprocessor_files``.

        Raises:
            InvalidModelError: One of the files is broken.
        """
        return choose_preprocessor(self.preprocessor_files)


def find_model(
    model: str | Path | bytes,
    *,
    device: str,
    dtype: str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
) -> ModelFiles:
    """Finds a model's files; downloads them where the model is a Hub id.

    A path that exists is never looked up on the Hub. If a folder ``runs`` exists, the name
    ``runs/last`` counts as a mistyped path: it is looked up in the Hub's cache only, unless
    ``revision`` is given.

    Args:
        model: A folder, one ``.onnx`` file, a Hub id such as ``owner/name``, or the contents of
            an ``.onnx`` file.
        device: Kind of the device on which the model will run; decides the default variant.
        dtype: One of ``DTYPES``. By default on the CPU ``int8``, on CUDA ``fp16``, else ``fp32``.
        revision: Branch, tag or commit of a Hub id.
        local_files_only: True to use only files that were downloaded before.

    Raises:
        ModelNotFoundError: The model does not exist, or does not have that variant.
        InvalidModelError: A file of the model is broken.
        InvalidOptionError: An option does not apply to this model.
        HubError: The Hub cannot be reached or refuses access.
        MissingDependencyError: The model is on the Hub and ``huggingface_hub`` is not installed.
    """
    if not isinstance(model, str | Path | bytes):
        raise InvalidOptionError(
            f"model is a {type(model).__name__}; give a path, a Hub id or an .onnx file's bytes"
        )
    check_flag("local_files_only", local_files_only)
    if not isinstance(model, Path) and not model:
        raise ModelNotFoundError(
            "the model is empty; give the folder of an exported model, an .onnx file or a Hub id"
        )
    if dtype is not None and dtype not in tuple(DTYPES):
        raise InvalidOptionError(f"`dtype` is {dtype!r}; it must be one of {', '.join(DTYPES)}")
    if isinstance(model, str) and not _exists(Path(model)) and hub.looks_like_hub_id(model):
        if revision is None and not local_files_only and Path(model).parent.is_dir():
            return _in_cache(model, device, dtype)
        return _on_hub(model, device, dtype, revision, local_files_only)
    name = "the model's bytes" if isinstance(model, bytes) else shown(str(model))
    if revision is not None:
        raise InvalidOptionError(
            f"`revision` is {revision!r}, but {name} is not a Hub id: leave `revision` out"
        )
    if isinstance(model, bytes):
        _check_dtype(name, None, dtype)
        return ModelFiles(name, model)
    path = Path(model)
    _exists(path)  # raises an error if the path cannot be accessed
    if path.is_dir():
        return _in_folder(path, name, device, dtype)
    if path.is_file():
        return _one_file(path, name, dtype)
    raise ModelNotFoundError(
        f"{name}: there is no such folder or file; give the folder of an exported model, an "
        ".onnx file or a Hub id such as onnx-community/timesformer-base-finetuned-k400"
    )


def list_dtypes(
    model: str | Path, *, revision: str | None = None, local_files_only: bool = False
) -> tuple[str, ...]:
    """Lists the variants of a model that ``find_model`` would find; downloads none of them.

    Args:
        model: As for ``find_model``.
        revision: As for ``find_model``.
        local_files_only: As for ``find_model``.

    Returns:
        The dtypes; nothing for one ``.onnx`` file, and for a folder without files of these names.

    Raises:
        ModelNotFoundError: The model does not exist.
        HubError: The Hub cannot be reached or refuses access.
        MissingDependencyError: The model is on the Hub and ``huggingface_hub`` is not installed.
    """
    path = Path(model)
    if _exists(path):
        return tuple(_variants(_names_in(path, str(model)), "cpu")) if path.is_dir() else ()
    if not hub.looks_like_hub_id(str(model)):
        return ()
    is_path = revision is None and path.parent.is_dir()
    names = hub.list_files(
        str(model), revision=revision, local_files_only=local_files_only or is_path
    )
    return tuple(_variants(names, "cpu"))


def path_exists(path: Path) -> bool:
    """Says if there is a file or folder; ``Path.exists`` hides why from Python 3.14 on.

    Raises:
        OSError: The path cannot be accessed, for example for lack of permission.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    return True


def _exists(path: Path) -> bool:
    try:
        return path_exists(path)
    except OSError as error:
        raise ModelNotFoundError(
            f"{shown(str(path))}: cannot be accessed ({error.strerror}); check its name and "
            "permissions"
        ) from error


def _one_file(path: Path, name: str, dtype: str | None) -> ModelFiles:
    """Finds the files beside one ``.onnx`` file, also where the path is a link."""
    if path.suffix in _PYTORCH_SUFFIXES:
        raise InvalidModelError(f"{name}: PyTorch weights cannot run here; {_export_remedy(name)}")
    if path.suffix != ".onnx":
        raise InvalidModelError(f"{name}: a model file must end in .onnx")
    found = _dtype_of(path.name)
    _check_dtype(name, found, dtype)
    # The folders of the path and of all that it links to: in the Hub's cache a file is a link into
    # a folder of blobs.
    folders = []
    for linked in (*(link.absolute() for link in linked_paths(path)), path.resolve()):
        folders.append(linked.parent)
        if linked.parent.name == "onnx":
            folders.append(linked.parent.parent)
    return ModelFiles(name, path, found, *_beside(folders))


def _in_folder(folder: Path, name: str, device: str, dtype: str | None) -> ModelFiles:
    """Chooses the graph in a folder, and finds the files beside the graph."""
    names = _names_in(folder, name)
    graph, found = _choose_graph(names, name, device, dtype)
    folders = ((folder / graph).parent, folder)
    return ModelFiles(name, folder / graph, found, *_beside(folders))


def _names_in(folder: Path, name: str) -> list[str]:
    """Lists the files in a folder that may be graphs, as paths with forward slashes."""
    try:
        return [
            path.relative_to(folder).as_posix()
            for part in _GRAPH_FOLDERS
            if (folder / part).is_dir()
            for path in sorted((folder / part).iterdir())
            if path.is_file()
        ]
    except OSError as error:
        raise ModelNotFoundError(f"{name}: cannot be read ({error.strerror})") from error


def _in_cache(name: str, device: str, dtype: str | None) -> ModelFiles:
    """Finds the files of a model that was downloaded before; never asks the Hub."""
    try:
        hub.list_files(name, local_files_only=True)
    except (ModelNotFoundError, HubError, MissingDependencyError) as error:
        raise ModelNotFoundError(
            f"{name}: there is no such folder or file; because the folder {Path(name).parent} is "
            "here, it counts as a path: give a `revision`, such as main, to look on the Hub"
        ) from error
    return _on_hub(name, device, dtype, None, local_files_only=True)


def _on_hub(
    name: str, device: str, dtype: str | None, revision: str | None, local_files_only: bool
) -> ModelFiles:
    """Chooses the graph of a model on the Hub, and downloads the graph and its files."""

    def download(file: str) -> Path:
        return hub.download(name, file, revision=revision, local_files_only=local_files_only)

    try:
        names = hub.list_files(name, revision=revision, local_files_only=local_files_only)
    except (ModelNotFoundError, HubError, MissingDependencyError) as error:
        # A mistyped path can look like a Hub id, so the message names both.
        raise type(error)(f"{error}; and there is no folder or file {name} here") from error
    graph, found = _choose_graph(names, name, device, dtype)
    folder = PurePosixPath(graph).parent

    def sidecars(*files: str) -> Iterator[Path]:
        paths = dict.fromkeys(str(parent / file) for parent in (folder, _ROOT) for file in files)
        return (download(path) for path in paths if path in names)

    config = next(sidecars(_CONFIG), None)
    preprocessors = tuple(sidecars(*PREPROCESSOR_FILES))
    for file in names:
        if file.startswith(tuple(graph + suffix for suffix in _EXTERNAL_DATA)):
            download(file)
    return ModelFiles(name, download(graph), found, config, preprocessors)


def _choose_graph(
    names: Sequence[str], model: str, device: str, dtype: str | None
) -> tuple[str, str | None]:
    """Chooses the graph among a model's files; returns its path in the model and its dtype."""
    variants = _variants(names, device)
    if dtype is not None:
        if dtype in variants:
            return variants[dtype], dtype
        has = f"it has {', '.join(variants)}" if variants else _what_it_has(names, model)
        raise ModelNotFoundError(f"{model}: there is no {dtype} ({DTYPES[dtype]}); {has}")
    for preferred in _preferences(device):
        if preferred in variants:
            return variants[preferred], preferred
    if len(variants) == 1:
        ((only, path),) = variants.items()
        return path, only
    if variants:
        raise InvalidOptionError(f"{model}: it has {', '.join(variants)}; choose one by `dtype`")
    graphs = _graphs(names)
    if len(graphs) != 1:
        raise ModelNotFoundError(f"{model}: no onnx/model.onnx; {_what_it_has(names, model)}")
    return graphs[0], None


def _variants(names: Sequence[str], device: str) -> dict[str, str]:
    """Finds the variants among a model's files: their paths in the model, by dtype."""
    variants = {
        dtype: path
        for dtype, file in DTYPES.items()
        for path in [_in_graph_folders(names, file)]
        if path is not None
    }
    seven_bits = _in_graph_folders(names, INT8_OF_7_BITS)
    if seven_bits is not None and ("int8" not in variants or _wants_7_bits(device)):
        variants["int8"] = seven_bits
    return variants


def _wants_7_bits(device: str) -> bool:
    return device == "cpu" and cpu.saturates_int8()


def _preferences(device: str) -> tuple[str, ...]:
    if device == "cpu":
        return ("int8", "fp32")
    return ("fp16", "fp32") if device == "cuda" else ("fp32",)


def _in_graph_folders(names: Sequence[str], file: str) -> str | None:
    paths = (f"{folder}/{file}".lstrip("/") for folder in _GRAPH_FOLDERS)
    return next((path for path in paths if path in names), None)


def _graphs(names: Sequence[str]) -> list[str]:
    """Lists the .onnx files that may be a model's graph."""
    return [
        name
        for name in names
        if name.endswith(".onnx") and str(PurePosixPath(name).parent) in {"onnx", "."}
    ]


def _what_it_has(names: Sequence[str], model: str) -> str:
    """Describes the files of a model without a usable graph, with a remedy."""
    graphs = _graphs(names)
    if graphs:
        remedy = f"download one with `hf download {model}` and give its path"
        if Path(model).exists():
            remedy = "give one of these files"
        return f"it has {listed(graphs)}: {remedy}"
    if any(name.endswith(_PYTORCH_SUFFIXES) for name in names):
        return f"it has PyTorch weights: {_export_remedy(model)}"
    if any(name.endswith(".onnx.rejected") for name in names):
        return "it holds an export that failed its check: see export_report.json, and export again"
    return "it has no .onnx file: give a folder that timesformer-export wrote, or a Hub id"


def _export_remedy(model: str) -> str:
    return f"export it first: timesformer-export --model {model}"


def _dtype_of(file: str) -> str | None:
    if file == INT8_OF_7_BITS:
        return "int8"
    return next((dtype for dtype, name in DTYPES.items() if name == file), None)


def _check_dtype(name: str, found: str | None, wanted: str | None) -> None:
    if wanted is not None and wanted != found:
        raise InvalidOptionError(
            f"`dtype` is {wanted!r}, but {name} is one given file: leave `dtype` out, or give the "
            "folder"
        )


def _beside(folders: Sequence[Path]) -> tuple[Path | None, tuple[Path, ...]]:
    """Finds the configuration, and the files that may describe the preprocessing."""
    config = next((folder / _CONFIG for folder in folders if (folder / _CONFIG).is_file()), None)
    # A folder comes twice if the graph is a link to a file in the folder of the link.
    paths = dict.fromkeys(folder / file for folder in folders for file in PREPROCESSOR_FILES)
    return config, tuple(path for path in paths if path.is_file())
