"""A model that is ready to run: its graph, what goes in and comes out, labels, golden check.

An ``.onnx`` file of timesformer-export says all of it in its ``metadata_props``; for other files
``config.json`` and ``preprocessor_config.json`` beside them do.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from timesformer_runtime.class_names import class_names
from timesformer_runtime.device import choose_device
from timesformer_runtime.errors import InvalidModelError
from timesformer_runtime.golden import GENERATOR
from timesformer_runtime.json_object import parse_json_object, quoted, whole_number
from timesformer_runtime.model_files import ModelFiles, find_model
from timesformer_runtime.preprocess import Preprocessing
from timesformer_runtime.session import Session, TensorInfo
from timesformer_runtime.settings import SessionSettings

_log = logging.getLogger("timesformer_runtime")

PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")

_LONGEST = 8192  # of each side of the golden frames, and their number
_FORMAT_KEY = "timesformer_onnx.format"
_FORMAT = "1"
_FLOAT_TYPES: Mapping[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}
_FRAMES_TYPE = "tensor(uint8)"


@dataclasses.dataclass(frozen=True)
class GraphInput:
    """The one input of the graph.

    Attributes:
        name: Its name in the graph.
        takes_frames: True for uint8 RGB frames [1, T, H, W, 3] of any size, which the graph
            preprocesses; False for preprocessed ``pixel_values`` [1, T, C, h, w].
        dtype: What its array must hold.
        num_frames: T.
    """

    name: str
    takes_frames: bool
    dtype: type[np.generic]
    num_frames: int


@dataclasses.dataclass(frozen=True)
class Golden:
    """The golden check of a file: what PyTorch answered for generated frames.

    Attributes:
        seed: Seed of the generator in ``golden.py``.
        shape: Frames, height, width and channels of its frames.
        output: Name of the output, ``logits`` or ``features``.
        values: PyTorch's float32 values of it.
    """

    seed: int
    shape: tuple[int, int, int, int]
    output: str
    values: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 1 << 64:
            raise ValueError(f"seed {self.seed}")
        if not all(1 <= length <= _LONGEST for length in self.shape) or self.shape[3] not in (1, 3):
            raise ValueError(f"frames of {self.shape}")
        if self.output not in ("logits", "features"):
            raise ValueError(f"output {self.output!r}")
        if self.values.ndim != 1 or not self.values.size or not np.isfinite(self.values).all():
            raise ValueError("values that are no list of finite numbers")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Reads the metadata entry ``golden``.

        Raises:
            InvalidModelError: It is not one, or of a generator that is not known here.
        """
        if values.get("generator") != GENERATOR:
            raise InvalidModelError(
                f"the golden check is of generator {quoted(values.get('generator'))}; this version "
                f"knows {GENERATOR!r}: pip install -U timesformer-onnx"
            )
        try:
            t, height, width, channels = (int(length) for length in values["shape"])
            answer = np.array(values["values"], dtype=np.float32)
            seed, output = int(values["seed"]), str(values["output"])
            return cls(seed, (t, height, width, channels), output, answer)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InvalidModelError(
                f"the golden check in the file's metadata is broken ({error}); export it again"
            ) from error


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A loaded model and everything that is known about it.

    Attributes:
        name: The model as it was asked for.
        graph: The ``.onnx`` file, or its contents.
        dtype: The variant that was loaded, such as ``int8``; None where nothing tells.
        session: The loaded graph.
        input: What the graph takes.
        preprocessing: From frames to the input; None where the graph does that itself.
        outputs: The graph's outputs by the names used here: ``logits``, ``features``, ...; the
            value is the name in the graph.
        labels: Names of the classes; None where the model has no classes.
        problem_type: As in Hugging Face's configuration.
        golden: The golden check, where the file has one.
        metadata: The file's own metadata, strings.
        notes: A sentence for each thing about the files beside it that the user may not expect.
    """

    name: str
    graph: Path | bytes
    dtype: str | None
    session: Session
    input: GraphInput
    preprocessing: Preprocessing | None
    outputs: Mapping[str, str]
    labels: tuple[str, ...] | None
    problem_type: str | None
    golden: Golden | None
    metadata: Mapping[str, str]
    notes: tuple[str, ...] = ()


def open_bundle(
    model: str | Path | bytes,
    settings: SessionSettings,
    *,
    dtype: str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
) -> Bundle:
    """Finds, loads and checks a model; see ``find_model`` for what it can be.

    Raises:
        TimesformerError: It cannot be found or loaded, is no video model, or its files
            contradict each other.
    """
    device = choose_device(settings)
    files = find_model(
        model,
        device=device.name,
        dtype=dtype,
        revision=revision,
        local_files_only=local_files_only,
    )
    session = Session(files.graph, device, settings)
    try:
        return _describe(files, session)
    except InvalidModelError as error:
        graph = files.graph if isinstance(files.graph, Path) else files.name
        raise InvalidModelError(f"{graph}: {error}") from error


def _describe(files: ModelFiles, session: Session) -> Bundle:
    metadata = _own_metadata(session.metadata)
    config = _json_entry(metadata, "config") or files.config or {}
    _check_sampling(metadata)
    tensor = _only_input(session)
    graph_input = _read_input(tensor, config)
    preprocessing: Preprocessing | None = None
    notes: tuple[str, ...] = ()
    if not graph_input.takes_frames:
        preprocessing, notes = _read_preprocessing(metadata, files)
        _check_preprocessing(preprocessing, tensor, config)
        preprocessing.check_clip(graph_input.num_frames)
    outputs = _read_outputs(session)
    entry = _json_entry(metadata, "golden")
    golden = None if entry is None else Golden.from_dict(entry)
    if golden is not None and golden.output not in outputs:
        raise InvalidModelError(f"its golden check is of {golden.output}, which it does not give")
    return Bundle(
        name=files.name,
        graph=files.graph,
        dtype=metadata.get("dtype", files.dtype),
        session=session,
        input=graph_input,
        preprocessing=preprocessing,
        outputs=outputs,
        labels=_read_labels(config, session, outputs),
        problem_type=_read_problem_type(config),
        golden=golden,
        metadata=metadata,
        notes=notes,
    )


def _own_metadata(metadata: Mapping[str, str]) -> Mapping[str, str]:
    """What timesformer-export wrote; nothing for the files of other tools, whose keys differ."""
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


def _only_input(session: Session) -> TensorInfo:
    if len(session.inputs) != 1 or len(session.inputs[0].shape) != 5:
        found = "; ".join(f"{node.name} {list(node.shape)}" for node in session.inputs)
        raise InvalidModelError(
            f"its inputs are {found or 'none'}; a video model has one, with 5 dimensions "
            "[batch, frames, channels, height, width]"
        )
    tensor = session.inputs[0]
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
            f"its input {tensor.name} is a {tensor.type}; float32, float16 and uint8 can be fed"
        )
    axis, allowed = (4, (3,)) if takes_frames else (2, (1, 3))
    if isinstance(shape[axis], int) and shape[axis] not in allowed:
        order = "frames, height, width, 3" if takes_frames else "frames, channels, height, width"
        raise InvalidModelError(
            f"its input {tensor.name} is {shape}; axis {axis} must hold the channels: export it "
            f"as [batch, {order}]"
        )
    if takes_frames and any(isinstance(side, int) for side in shape[2:4]):
        raise InvalidModelError(
            f"its input {tensor.name} is {shape}; height and width of uint8 frames must be dynamic"
        )
    dtype: type[np.generic] = np.uint8 if takes_frames else _FLOAT_TYPES[tensor.type]
    return GraphInput(tensor.name, takes_frames, dtype, _read_num_frames(tensor, config))


def _read_num_frames(tensor: TensorInfo, config: Mapping[str, Any]) -> int:
    """What the graph was made for; the configuration only counts where that is open."""
    frames = tensor.shape[1]
    if isinstance(frames, int):
        return frames
    given = whole_number(config.get("num_frames"))
    if not isinstance(given, int) or isinstance(given, bool) or not 1 <= given <= _LONGEST:
        raise InvalidModelError(
            f"its input {list(tensor.shape)} leaves the number of frames open, and num_frames in "
            f"config.json is {quoted(given)}: set it there, from 1 to {_LONGEST}"
        )
    return given


def _read_preprocessing(
    metadata: Mapping[str, str], files: ModelFiles
) -> tuple[Preprocessing, tuple[str, ...]]:
    """The preprocessing, and what is to be said about where it is from."""
    entry = _json_entry(metadata, "preprocessor_config")
    if entry:
        return Preprocessing.from_dict(entry), ()
    config = files.preprocessor
    if config is None:
        raise InvalidModelError(
            "nothing says how to preprocess frames; put the checkpoint's preprocessor_config.json "
            "beside it, or export it with timesformer-export"
        )
    for note in config.notes:
        _log.warning("%s: %s", files.name, note)
    return config.read(), config.notes


def _check_preprocessing(
    preprocessing: Preprocessing, tensor: TensorInfo, config: Mapping[str, Any]
) -> None:
    channels = tensor.shape[2]
    if not isinstance(channels, int):
        channels = config.get("num_channels")
    if channels is not None and channels != preprocessing.num_channels:
        raise InvalidModelError(
            f"it takes {channels} channels, but preprocessor_config.json has image_mean for "
            f"{preprocessing.num_channels}: correct image_mean and image_std"
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


def _read_outputs(session: Session) -> Mapping[str, str]:
    outputs = {node.name: node.name for node in session.outputs}
    if len(session.outputs) == 1 and len(session.outputs[0].shape) == 2:
        name = session.outputs[0].name
        if name not in {"logits", "features"}:
            return {"logits": name}  # other exporters name the only output as they like
    return outputs


def _read_labels(
    config: Mapping[str, Any], session: Session, outputs: Mapping[str, str]
) -> tuple[str, ...] | None:
    if "logits" not in outputs:
        return None
    shape = next(node.shape for node in session.outputs if node.name == outputs["logits"])
    classes = shape[-1] if shape and isinstance(shape[-1], int) else None
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
