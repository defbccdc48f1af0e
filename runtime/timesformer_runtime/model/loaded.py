"""Loads a model, and describes it: its graph, input, outputs, labels and golden check.

An ``.onnx`` file of timesformer-export states all of this in its ``metadata_props``. For other
files, ``config.json`` and ``preprocessor_config.json`` beside the graph state it.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from timesformer_runtime.errors import (
    InvalidModelError,
    explained_memory_errors,
    named,
    quoted,
)
from timesformer_runtime.input.model_input import GraphInput
from timesformer_runtime.input.preprocess import Preprocessing
from timesformer_runtime.json_object import parse_json_object, whole_number
from timesformer_runtime.model.class_names import class_names
from timesformer_runtime.model.device import choose_device
from timesformer_runtime.model.golden import GENERATOR
from timesformer_runtime.model.locate import ModelFiles, find_model
from timesformer_runtime.model.session import Session, TensorInfo
from timesformer_runtime.model.settings import SessionSettings

_log = logging.getLogger("timesformer_runtime")

PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")

_MOST_FRAMES = 8192  # of a clip
MOST_CLASSES = 1_000_000  # values of logits or features
_LONGEST_NAME = 32  # of a variant
# The remedy in messages about memory.
LESS_MEMORY = "end other programs, or take a smaller variant or another model"
# Values of all golden frames together, and of one frame, whose generation takes 64 bits a value.
_MOST_GOLDEN, _MOST_OF_A_FRAME = 1 << 28, 1 << 24
_FORMAT_KEY = "timesformer_onnx.format"
_FORMAT = "1"
_FLOAT_TYPES: Mapping[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}
_NUMBER_TYPES = tuple(
    f"tensor({name})"
    for name in (
        *("float", "double", "float16", "bool"),
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    )
)
ROLLOUT = "attention_rollout"
_MAIN_OUTPUTS = ("logits", "features")
_FRAMES_TYPE = "tensor(uint8)"


@dataclasses.dataclass(frozen=True)
class Golden:
    """The golden check of a file: generated frames, and PyTorch's answer for them.

    Attributes:
        seed: Seed of the generator in ``golden.py``.
        shape: Number of frames, their height, width and channels.
        output: Name of the output, ``logits``, ``features`` or ``attention_rollout``.
        values: PyTorch's values of the output, float32 [n].
    """

    seed: int
    shape: tuple[int, int, int, int]
    output: str
    values: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 1 << 64:
            raise ValueError(f"seed {self.seed}")
        t, height, width, channels = self.shape
        if min(self.shape) < 1 or channels not in (1, 3):
            raise ValueError(f"frames of {self.shape}")
        frame = height * width * channels
        if t > _MOST_FRAMES or frame > _MOST_OF_A_FRAME or t * frame > _MOST_GOLDEN:
            raise ValueError(f"frames of {self.shape}, which take too much memory")
        if self.output not in ("logits", "features", ROLLOUT):
            raise ValueError(f"output {self.output!r}")
        if self.values.ndim != 1 or not self.values.size or not np.isfinite(self.values).all():
            raise ValueError("values that are not a list of finite numbers")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Reads the metadata entry ``golden``.

        Raises:
            InvalidModelError: The entry is not a golden check, or its generator is unknown.
        """
        if values.get("generator") != GENERATOR:
            raise InvalidModelError(
                f"the golden check is of generator {quoted(values.get('generator'))}; this version "
                f"knows {GENERATOR!r}: pip install -U timesformer-onnx"
            )
        try:
            t, height, width, channels = (int(length) for length in values["shape"])
            with np.errstate(over="ignore"):  # infinite values are refused
                answer = np.array(values["values"], dtype=np.float32)
            seed, output = int(values["seed"]), str(values["output"])
            return cls(seed, (t, height, width, channels), output, answer)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InvalidModelError(
                f"the golden check in the file's metadata is broken ({named(str(error))}); export "
                "it again"
            ) from error


class Graph(Protocol):
    """The facts about a graph that a session and ``GraphFacts`` both have."""

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """The inputs of the graph."""

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """The outputs of the graph."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """The file's ``metadata_props``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """Everything that this package knows about a model before it runs.

    Attributes:
        name: The model as it was asked for.
        graph: The ``.onnx`` file, or its contents.
        dtype: The variant, such as ``int8``; None where it is unknown.
        input: The input of the graph.
        preprocessing: Turns frames into the input; None where the graph does the preprocessing.
        outputs: Maps the names used here, ``logits``, ``features``, ..., to the names in the
            graph.
        labels: Names of the classes; None where the model has no classes.
        problem_type: As in Hugging Face's configuration.
        golden: The golden check, where the file has one.
        golden_rollout: The golden check of the output ``attention_rollout``, where the file has it.
        metadata: The file's own metadata, strings.
        notes: A sentence for each thing about the files, or about how the graph runs, that the
            user may not expect.
    """

    name: str
    graph: Path | bytes
    dtype: str | None
    input: GraphInput
    preprocessing: Preprocessing | None
    outputs: Mapping[str, str]
    labels: tuple[str, ...] | None
    problem_type: str | None
    golden: Golden | None
    metadata: Mapping[str, str]
    notes: tuple[str, ...] = ()
    golden_rollout: Golden | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedModel(ModelDescription):
    """A loaded model and everything that is known about it.

    Attributes:
        session: The loaded graph.
    """

    session: Session


def load_model(
    model: str | Path | bytes,
    settings: SessionSettings,
    *,
    dtype: str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
) -> LoadedModel:
    """Finds, loads and checks a model; see ``find_model`` for what it can be.

    Raises:
        TimesformerError: The model cannot be found or loaded, is not a video model, or its files
            contradict each other.
    """
    device = choose_device(settings)
    files = find_model(
        model,
        device=device.kind,
        dtype=dtype,
        revision=revision,
        local_files_only=local_files_only,
    )
    with explained_memory_errors(f"loading {files.name}; {LESS_MEMORY}"):
        session = Session(files.graph, device, settings)
        try:
            stated = vars(describe(files, session))
            notes = (*stated.pop("notes"), *_note_on_cpu_nodes(session))
            return LoadedModel(**stated, notes=notes, session=session)
        except InvalidModelError as error:
            graph = files.graph if isinstance(files.graph, Path) else files.name
            raise InvalidModelError(f"{graph}: {error}") from error


def describe(files: ModelFiles, graph: Graph) -> ModelDescription:
    """Reads and checks what the metadata and files of a model state about the graph.

    Args:
        files: The files of the model.
        graph: A session, or what its file states.

    Raises:
        InvalidModelError: The model is not a video model, or its files contradict each other.
    """
    metadata = _own_metadata(graph.metadata)
    config = _json_entry(metadata, "config") or files.config or {}
    _check_sampling(metadata)
    tensor = _only_input(graph)
    graph_input = _read_input(tensor, config)
    preprocessing: Preprocessing | None = None
    notes: tuple[str, ...] = ()
    if not graph_input.takes_frames:
        preprocessing, notes = _read_preprocessing(metadata, files)
        _check_preprocessing(preprocessing, tensor, config)
        preprocessing.check_clip(graph_input.num_frames)
    outputs = _read_outputs(graph)
    golden, golden_rollout = (
        _read_golden(metadata, key, outputs) for key in ("golden", "golden_rollout")
    )
    return ModelDescription(
        name=files.name,
        graph=files.graph,
        dtype=_read_dtype(metadata) or files.dtype,
        input=graph_input,
        preprocessing=preprocessing,
        outputs=outputs,
        labels=_read_labels(config, graph, outputs),
        problem_type=_read_problem_type(config),
        golden=golden,
        metadata=metadata,
        notes=notes,
        golden_rollout=golden_rollout,
    )


def _read_golden(
    metadata: Mapping[str, str], key: str, outputs: Mapping[str, str]
) -> Golden | None:
    entry = _json_entry(metadata, key)
    golden = None if entry is None else Golden.from_dict(entry)
    if golden is not None and golden.output not in outputs:
        raise InvalidModelError(f"its golden check is of {golden.output}, which it does not give")
    return golden


def _note_on_cpu_nodes(session: Session) -> tuple[str, ...]:
    placement = session.placement
    if not placement.on_cpu:
        return ()
    return (
        f"{len(placement.on_cpu)} of its {placement.total} nodes run on the CPU, not on "
        f"{session.device.name}: {placement.describe()}",
    )


def _own_metadata(metadata: Mapping[str, str]) -> Mapping[str, str]:
    """Gives the metadata that timesformer-export wrote; nothing for files of other tools."""
    version = metadata.get(_FORMAT_KEY)
    if version is None:
        return {}
    if version != _FORMAT:
        raise InvalidModelError(
            f"its metadata has format {quoted(version)}; this version reads {_FORMAT!r}: "
            "pip install -U timesformer-onnx"
        )
    return metadata


def _json_entry(metadata: Mapping[str, str], key: str) -> Mapping[str, Any] | None:
    if key not in metadata:
        return None
    return parse_json_object(metadata[key], f"its metadata entry {key!r}")


def _check_sampling(metadata: Mapping[str, str]) -> None:
    sampling = _json_entry(metadata, "frame_sampling")
    if sampling is not None and sampling.get("method") != "uniform":
        raise InvalidModelError(
            f"it wants frame sampling {quoted(sampling.get('method'))}; this version knows "
            "'uniform': pip install -U timesformer-onnx"
        )


def _read_dtype(metadata: Mapping[str, str]) -> str | None:
    dtype = metadata.get("dtype")
    if dtype is not None and not (dtype.isprintable() and 0 < len(dtype) <= _LONGEST_NAME):
        raise InvalidModelError(
            f"its metadata has dtype {quoted(dtype)}; it must be a short name such as int8"
        )
    return dtype


def _only_input(graph: Graph) -> TensorInfo:
    """Checks that the graph has one input, of 5 dimensions; returns the input."""
    if len(graph.inputs) != 1 or len(graph.inputs[0].shape) != 5:
        found = "; ".join(
            f"{named(node.name)} {quoted(list(node.shape))}" for node in graph.inputs[:10]
        )
        raise InvalidModelError(
            f"its inputs are {found or 'none'}; a video model has one, with 5 dimensions "
            "[batch, frames, channels, height, width]"
        )
    tensor = graph.inputs[0]
    if tensor.shape[0] != 1 and isinstance(tensor.shape[0], int):
        raise InvalidModelError(
            f"its batch size is fixed at {tensor.shape[0]}; clips run one by one: export it with "
            "a dynamic batch axis"
        )
    return tensor


def _read_input(tensor: TensorInfo, config: Mapping[str, Any]) -> GraphInput:
    shape = list(tensor.shape)
    takes_frames = tensor.type == _FRAMES_TYPE
    if not takes_frames and tensor.type not in _FLOAT_TYPES:
        raise InvalidModelError(
            f"its input {named(tensor.name)} is a {named(tensor.type)}; only float32, float16 "
            "and uint8 can run here"
        )
    axis, allowed = (4, (3,)) if takes_frames else (2, (1, 3))
    if isinstance(shape[axis], int) and shape[axis] not in allowed:
        order = "frames, height, width, 3" if takes_frames else "frames, channels, height, width"
        raise InvalidModelError(
            f"its input {named(tensor.name)} is {quoted(shape)}; axis {axis} must hold the "
            f"channels: export it as [batch, {order}]"
        )
    if takes_frames and any(isinstance(side, int) for side in shape[2:4]):
        raise InvalidModelError(
            f"its input {named(tensor.name)} is {quoted(shape)}; height and width of uint8 frames "
            "must be dynamic"
        )
    dtype: type[np.generic] = np.uint8 if takes_frames else _FLOAT_TYPES[tensor.type]
    return GraphInput(tensor.name, takes_frames, dtype, _read_num_frames(tensor, config))


def _read_num_frames(tensor: TensorInfo, config: Mapping[str, Any]) -> int:
    """Reads the number of frames from the graph, or from the configuration where it is dynamic."""
    frames = tensor.shape[1]
    if not isinstance(frames, int):
        stated = whole_number(config.get("num_frames"))
        if type(stated) is not int or not 1 <= stated <= _MOST_FRAMES:
            raise InvalidModelError(
                f"its input {quoted(list(tensor.shape))} leaves the number of frames open, and "
                f"num_frames in config.json is {quoted(stated)}: set it there, from 1 to "
                f"{_MOST_FRAMES}"
            )
        frames = stated
    if not 1 <= frames <= _MOST_FRAMES:
        raise InvalidModelError(
            f"it takes {quoted(frames)} frames; it must be 1 to {_MOST_FRAMES}: export it for fewer"
        )
    return frames


def _read_preprocessing(
    metadata: Mapping[str, str], files: ModelFiles
) -> tuple[Preprocessing, tuple[str, ...]]:
    """Reads the preprocessing, and notes for the user about the file that describes it."""
    entry = _json_entry(metadata, "preprocessor_config")
    if entry:
        return Preprocessing.from_dict(entry), ()
    config = files.preprocessor
    if config is None:
        raise InvalidModelError(
            "no file describes the preprocessing; put the checkpoint's preprocessor_config.json "
            "beside it, or export it with timesformer-export"
        )
    for note in config.notes:
        _log.warning("%s: %s", files.name, note)
    return config.read(), config.notes


def _check_preprocessing(
    preprocessing: Preprocessing, tensor: TensorInfo, config: Mapping[str, Any]
) -> None:
    """Checks that the preprocessing makes the channels and size that the graph takes."""
    channels = tensor.shape[2]
    if not isinstance(channels, int):
        channels = config.get("num_channels")
    if channels is not None and channels != preprocessing.num_channels:
        raise InvalidModelError(
            f"it takes {quoted(channels)} channels, but preprocessor_config.json has image_mean "
            f"for {preprocessing.num_channels}: correct image_mean and image_std"
        )
    size = preprocessing.output_size
    if size is None:
        return
    for wanted, given in zip(tensor.shape[3:], size, strict=True):
        if isinstance(wanted, int) and wanted != given:
            raise InvalidModelError(
                f"it takes frames of {tensor.shape[3]}x{tensor.shape[4]} (height x width), but "
                f"preprocessor_config.json makes {size[0]}x{size[1]}: correct crop_size and size"
            )


def _read_outputs(graph: Graph) -> Mapping[str, str]:
    """Maps the names of outputs that this package uses to their names in the graph."""
    outputs = {node.name: node.name for node in graph.outputs if node.type in _NUMBER_TYPES}
    others = [node for node in graph.outputs if node.name not in outputs]
    if not outputs or any(node.name in _MAIN_OUTPUTS for node in others):
        found = "; ".join(f"{named(node.name)}, a {named(node.type)}" for node in others[:2])
        raise InvalidModelError(
            f"its outputs are {found or 'none'}; a video model gives tensors of numbers: export "
            "it with timesformer-export"
        )
    if len(graph.outputs) == 1 and len(graph.outputs[0].shape) == 2:
        name = graph.outputs[0].name
        if name not in _MAIN_OUTPUTS:
            outputs = {"logits": name}  # other exporters name the only output as they like
    for answer in _MAIN_OUTPUTS:
        length = output_length(graph, outputs[answer]) if answer in outputs else None
        if length is not None and not 1 <= length <= MOST_CLASSES:
            raise InvalidModelError(
                f"its {answer} have {length} values; it must be 1 to {MOST_CLASSES}"
            )
    return outputs


def output_length(graph: Graph, output: str) -> int | None:
    """Gives the last dimension of an output; None where the graph leaves it open.

    Args:
        graph: A session, or what its file states.
        output: The name of the output in the graph.
    """
    shape = next(node.shape for node in graph.outputs if node.name == output)
    return shape[-1] if shape and isinstance(shape[-1], int) else None


def _read_labels(
    config: Mapping[str, Any], graph: Graph, outputs: Mapping[str, str]
) -> tuple[str, ...] | None:
    if "logits" not in outputs:
        return None
    classes = output_length(graph, outputs["logits"])
    labels = class_names(config)
    if labels is None:
        return None if classes is None else tuple(f"LABEL_{i}" for i in range(classes))
    if classes is not None and classes != len(labels):
        raise InvalidModelError(
            f"it has {classes} classes, but config.json names {len(labels)}: correct id2label"
        )
    return labels


def _read_problem_type(config: Mapping[str, Any]) -> str | None:
    problem_type = config.get("problem_type")
    if problem_type is not None and problem_type not in PROBLEM_TYPES:
        raise InvalidModelError(
            f"problem_type is {quoted(problem_type)}; it must be one of {', '.join(PROBLEM_TYPES)}"
        )
    return problem_type
