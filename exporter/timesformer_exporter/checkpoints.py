"""PyTorch checkpoints: Hugging Face's, the authors' and mmaction2's, read into one form."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from timesformer_exporter import checkpoint_files
from timesformer_exporter.architecture import Known, infer_config
from timesformer_exporter.checkpoint_files import CheckpointFiles, read_json, sha256
from timesformer_exporter.config import TimesformerConfig
from timesformer_exporter.embedding_resize import resize_positions, resize_times
from timesformer_exporter.errors import (
    ExportError,
    InvalidCheckpointError,
    InvalidConfigError,
    InvalidOptionError,
)
from timesformer_exporter.key_maps import KeyMap, recognize
from timesformer_exporter.labels import read_labels
from timesformer_exporter.model import TimesformerForVideoClassification
from timesformer_exporter.preprocessor_config import default_preprocessing, with_image_size
from timesformer_exporter.tensor_files import TensorFile, read_tensor_file

TASKS = ("video-classification", "feature-extraction")

_POSITIONS = "timesformer.embeddings.position_embeddings"
_TIMES = "timesformer.embeddings.time_embeddings"
_HEAD = "classifier."
_LISTED = 10  # so many names of tensors stand in a message


@dataclass(frozen=True)
class Source:
    """Where a checkpoint came from.

    Attributes:
        model: The Hub id, or the name of the local folder or file (not its path).
        revision: The commit on the Hub; None for local files.
        format: "huggingface", "facebook" or "mmaction2".
        files: SHA-256 of every file that was read, by its name.
    """

    model: str
    revision: str | None
    format: str
    files: Mapping[str, str]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of any format, in Hugging Face's terms.

    Attributes:
        config: The architecture and the labels; without labels where there is no head.
        state_dict: float32 tensors under Hugging Face's names (``timesformer.``, ``classifier.``).
        preprocessing: The contents of a preprocessor_config.json.
        source: Where it came from.
        notes: What was assumed, inferred or changed, a sentence each.
    """

    config: TimesformerConfig
    state_dict: dict[str, Tensor]
    preprocessing: dict[str, Any]
    source: Source
    notes: tuple[str, ...]


def load_checkpoint(
    model: str | Path,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    labels: Path | None = None,
    task: str = "video-classification",
    num_frames: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    attention_heads: int | None = None,
) -> Checkpoint:
    """Loads a checkpoint; nothing in its files is ever executed.

    Args:
        model: A Hub id, a folder, or a file (safetensors, ``.bin``, ``.pth``, ``.pyth``, or the
            index of a sharded checkpoint).
        revision: Branch, tag or commit on the Hub.
        local_files_only: Take the Hub's files from its cache only.
        labels: A file with the names of the classes; replaces those of the checkpoint.
        task: "video-classification", or "feature-extraction", which drops the head.
        num_frames: Frames of a clip. Time embeddings for another number are resized.
        image_size: Height and width of a frame. Position embeddings for another grid are
            resized, and the preprocessing follows.
        attention_heads: For files without a configuration; hidden size / 64 if not given.

    Raises:
        CheckpointNotFoundError: There is nothing under that path or Hub id.
        InvalidCheckpointError: A file is broken, or not a whole TimeSformer.
        InvalidConfigError: The configuration is not one of a TimeSformer.
        InvalidOptionError: An option is missing, or contradicts the checkpoint.
        timesformer_runtime.errors.TimesformerError: The Hub refused or broke off, or
            huggingface_hub is not installed.
    """
    if task not in TASKS:
        raise InvalidOptionError(f"--task is {task!r}; it must be one of {', '.join(TASKS)}")
    wanted = Known(num_frames, _pair(image_size), attention_heads)
    files = checkpoint_files.find_files(model, revision, local_files_only)
    return _Loader(files, wanted, task, labels).load()


def build_model(checkpoint: Checkpoint, task: str) -> TimesformerForVideoClassification:
    """The model with the checkpoint's weights, in evaluation mode.

    Its tensors are copies. For "feature-extraction" the classifier is the identity.

    Raises:
        InvalidCheckpointError: The checkpoint has no head for "video-classification".
    """
    config, state = checkpoint.config, checkpoint.state_dict
    if task == "feature-extraction":
        config = dataclasses.replace(config, id2label=None)
        state = _without_head(state)
    elif config.id2label is None:
        raise _no_head(checkpoint.source.model)
    model = _empty_model(config).to_empty(device="cpu")
    model.load_state_dict(state, strict=True)
    return model.eval()


class _Loader:
    """One checkpoint on its way from files to a Checkpoint; collects notes on it."""

    def __init__(
        self, files: CheckpointFiles, wanted: Known, task: str, labels: Path | None
    ) -> None:
        self.files = files
        self.wanted = wanted
        self.task = task
        self.labels = labels
        self.notes: list[str] = []

    def load(self) -> Checkpoint:
        file = _read_weights(self.files)
        keys = recognize(file.tensors)
        if keys is None:
            raise InvalidCheckpointError(
                f"{self.files.name} is no TimeSformer: its tensors ({_listing(file.tensors)}) are "
                "named like none of Hugging Face's, the authors' or mmaction2's"
            )
        tensors, unexpected = _rename(file.tensors, keys)
        if self.task == "feature-extraction":
            tensors = _without_head(tensors)
        elif f"{_HEAD}weight" not in tensors:
            raise _no_head(self.files.name)
        config = self._config(tensors, keys)
        _check_tensors(self.files.name, config, tensors, unexpected, keys)
        tensors = self._float32(tensors, keys)
        config = self._with_labels(config)
        preprocessing = self._preprocessing(keys.format, config)
        config, tensors, preprocessing = self._resize(config, tensors, preprocessing)
        return Checkpoint(config, tensors, preprocessing, self._source(keys), tuple(self.notes))

    def _config(self, tensors: Mapping[str, Tensor], keys: KeyMap) -> TimesformerConfig:
        classes = tensors[f"{_HEAD}weight"].shape[0] if f"{_HEAD}weight" in tensors else 0
        generic = {index: f"LABEL_{index}" for index in range(classes)} or None
        if self.files.config is None or keys.format != "huggingface":
            config, notes = infer_config(tensors, self.wanted, self.files.name)
            self.notes += notes
            return dataclasses.replace(config, id2label=generic)
        return self._read_config(self.files.config, generic)

    def _read_config(self, path: Path, generic: dict[int, str] | None) -> TimesformerConfig:
        try:
            config = TimesformerConfig.from_dict(read_json(path))
        except InvalidConfigError as error:
            raise InvalidConfigError(f"{path}: {error}") from error
        heads = self.wanted.attention_heads
        if heads is not None and heads != config.num_attention_heads:
            raise InvalidOptionError(
                f"--attention-heads is {heads}, but {path} says {config.num_attention_heads}; "
                "leave the option out"
            )
        if generic is None or config.id2label is None:
            # transformers leaves out labels that are LABEL_0 and LABEL_1.
            return dataclasses.replace(config, id2label=generic)
        return config

    def _float32(self, tensors: Mapping[str, Tensor], keys: KeyMap) -> dict[str, Tensor]:
        converted = {}
        for name, tensor in tensors.items():
            if not tensor.is_floating_point():
                raise InvalidCheckpointError(
                    f"{self.files.name}: tensor {keys.theirs(name)} is {_dtype(tensor)}, not "
                    "floating-point; quantized checkpoints cannot be loaded"
                )
            converted[name] = tensor.to(torch.float32)
            if not bool(torch.isfinite(converted[name]).all()):
                raise InvalidCheckpointError(
                    f"{self.files.name}: tensor {keys.theirs(name)} has values that are not "
                    "finite; the training diverged or the file is broken"
                )
        others = sorted({_dtype(tensor) for tensor in tensors.values()} - {"float32"})
        if others:
            self.notes.append(f"Weights in {', '.join(others)} were converted to float32.")
        return converted

    def _with_labels(self, config: TimesformerConfig) -> TimesformerConfig:
        if self.labels is not None:
            if self.task == "feature-extraction":
                raise InvalidOptionError(
                    f"--labels {self.labels} names classes, but --task feature-extraction has none"
                )
            return dataclasses.replace(config, id2label=read_labels(self.labels, config.num_labels))
        if config.id2label and all(
            label == f"LABEL_{index}" for index, label in config.id2label.items()
        ):
            self.notes.append(
                f"The {config.num_labels} classes have no names; give them with --labels."
            )
        return config

    def _preprocessing(self, checkpoint_format: str, config: TimesformerConfig) -> dict[str, Any]:
        path = self.files.preprocessor
        if path is not None and checkpoint_format == "huggingface":
            return read_json(path)
        values = default_preprocessing(checkpoint_format, config)
        height, width = config.image_hw
        self.notes.append(
            "There is no preprocessor_config.json: the format's defaults were taken, frames of "
            f"{height}x{width}, mean {values['image_mean'][0]}, std {values['image_std'][0]}."
        )
        return values

    def _resize(
        self, config: TimesformerConfig, tensors: dict[str, Tensor], preprocessing: dict[str, Any]
    ) -> tuple[TimesformerConfig, dict[str, Tensor], dict[str, Any]]:
        """Brings the checkpoint to the number of frames and the size that were asked for."""
        frames, size = self.wanted.num_frames, self.wanted.image_hw
        if frames is not None and frames != config.num_frames:
            self.notes.append(
                f"Clips of {frames} frames were asked for, the checkpoint is for "
                f"{config.num_frames}: its time embeddings were resized."
            )
            config = dataclasses.replace(config, num_frames=frames)
            if _TIMES in tensors:
                tensors = {**tensors, _TIMES: resize_times(tensors[_TIMES], frames)}
        if size is not None and size != config.image_hw:
            resized = dataclasses.replace(config, image_size=size)
            self.notes.append(
                f"Frames of {size[0]}x{size[1]} were asked for, the checkpoint is for "
                f"{config.image_hw[0]}x{config.image_hw[1]}: its position embeddings were resized."
            )
            positions = resize_positions(tensors[_POSITIONS], config.grid, resized.grid)
            tensors = {**tensors, _POSITIONS: positions}
            config = resized
            preprocessing = with_image_size(preprocessing, size)
        return config, tensors, preprocessing

    def _source(self, keys: KeyMap) -> Source:
        files = self.files
        read = [*files.weights, files.index_file]
        if keys.format == "huggingface":
            read += [files.config, files.preprocessor]
        return Source(
            model=files.name,
            revision=files.revision,
            format=keys.format,
            files={path.name: sha256(path) for path in read if path is not None},
        )


def _pair(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    return (size, size) if isinstance(size, int) else size


def _read_weights(files: CheckpointFiles) -> TensorFile:
    """The tensors of all shards."""
    if files.index is None:
        return read_tensor_file(files.weights[0])
    shards = {path.name: read_tensor_file(path) for path in files.weights}
    absent = [name for name, shard in files.index.items() if name not in shards[shard].tensors]
    if absent:
        raise InvalidCheckpointError(
            f"{files.index_file} names {len(absent)} tensors that are not in their shards: "
            f"{_listing(absent)}; download the shards again"
        )
    return TensorFile(
        {name: tensor for shard in shards.values() for name, tensor in shard.tensors.items()}
    )


def _rename(tensors: Mapping[str, Tensor], keys: KeyMap) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors by our names, and the names of those that have none."""
    names = {theirs: keys.ours(theirs) for theirs in tensors}
    renamed = {ours: tensors[theirs] for theirs, ours in names.items() if ours is not None}
    return renamed, [theirs for theirs, ours in names.items() if ours is None]


def _check_tensors(
    model: str,
    config: TimesformerConfig,
    tensors: Mapping[str, Tensor],
    unexpected: list[str],
    keys: KeyMap,
) -> None:
    """Compares names and shapes with those of the model of that configuration."""
    expected = {
        name: list(value.shape) for name, value in _empty_model(config).state_dict().items()
    }
    missing = [keys.theirs(name) for name in expected if name not in tensors]
    unexpected = [*unexpected, *(keys.theirs(name) for name in tensors if name not in expected)]
    misshapen = [
        f"{keys.theirs(name)} {list(tensor.shape)} instead of {expected[name]}"
        for name, tensor in tensors.items()
        if name in expected and list(tensor.shape) != expected[name]
    ]
    problems = [
        f"{len(names)} {what} ({_listing(names)})"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("misshapen", misshapen),
        )
        if names
    ]
    if problems:
        raise InvalidCheckpointError(
            f"{model} does not have the tensors of its TimeSformer: {'; '.join(problems)}; "
            "is the file whole, and does config.json belong to it?"
        )


def _empty_model(config: TimesformerConfig) -> TimesformerForVideoClassification:
    """The model without memory for its weights."""
    with torch.device("meta"):
        return TimesformerForVideoClassification(config)


def _without_head(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(_HEAD)}


def _no_head(model: str) -> ExportError:
    return InvalidCheckpointError(
        f"{model} has no classification head; take its features with --task feature-extraction, "
        "or give a fine-tuned checkpoint"
    )


def _listing(names: Mapping[str, object] | list[str]) -> str:
    names = list(names)
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
