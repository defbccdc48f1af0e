"""Loads a PyTorch checkpoint of Hugging Face, of the authors' code or of mmaction2."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from timesformer_runtime.errors import InvalidModelError
from timesformer_runtime.input.preprocess import Preprocessing
from timesformer_runtime.input.preprocessor_files import PreprocessorConfig
from torch import Tensor

from timesformer_exporter.checkpoints.adapters import Adapter, read_adapter
from timesformer_exporter.checkpoints.architecture import (
    POSITIONS,
    TIMES,
    GivenOptions,
    infer_config,
    match_embeddings,
)
from timesformer_exporter.checkpoints.facebook_settings import FacebookSettings, parse_settings
from timesformer_exporter.checkpoints.files import (
    CheckpointFiles,
    as_text,
    find_files,
    find_on_hub,
    read_json,
    sha256,
)
from timesformer_exporter.checkpoints.key_maps import KeyMap, recognize, without_wrappers
from timesformer_exporter.checkpoints.labels import read_labels
from timesformer_exporter.checkpoints.preprocessor_config import (
    default_preprocessing,
    read_preprocessing,
    with_image_size,
)
from timesformer_exporter.checkpoints.tensor_check import (
    check_memory,
    check_names_and_shapes,
    dtype_name,
    empty_model,
    listing,
    to_float32,
)
from timesformer_exporter.checkpoints.tensor_files import TensorFile, read_tensor_file
from timesformer_exporter.checkpoints.weight_sets import WeightSet, choose, split_by_model
from timesformer_exporter.errors import (
    CheckpointNotFoundError,
    InvalidCheckpointError,
    InvalidConfigError,
    InvalidOptionError,
)
from timesformer_exporter.model.config import TimesformerConfig
from timesformer_exporter.model.embedding_resize import resize_positions, resize_times
from timesformer_exporter.model.timesformer import TimesformerForVideoClassification
from timesformer_exporter.options import Task, Weights, check_choice

_HEAD = "classifier."
_PUBLISHED_HIDDEN_SIZE = 768  # with 12 heads
_MAX_SIDE = 8192  # pixels, as in the runtime's preprocessing


@dataclass(frozen=True)
class Source:
    """The origin of a checkpoint.

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
    """A checkpoint of any format, converted to Hugging Face's names and configuration.

    Attributes:
        config: The architecture and the labels; without labels where there is no head.
        state_dict: float32 tensors under Hugging Face's names (``timesformer.``, ``classifier.``).
        preprocessing: The contents of a preprocessor_config.json.
        source: Where the checkpoint came from.
        notes: One sentence for each thing that was assumed, inferred or changed.
    """

    config: TimesformerConfig
    state_dict: dict[str, Tensor]
    preprocessing: dict[str, Any]
    source: Source
    notes: tuple[str, ...]


def load_checkpoint(  # noqa: PLR0913 (one for each option)
    model: str | Path,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    labels: Path | None = None,
    task: str = "video-classification",
    num_frames: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    attention_heads: int | None = None,
    weights: str | None = None,
) -> Checkpoint:
    """Loads a checkpoint; nothing in its files is ever executed.

    Args:
        model: A Hub id, a folder, or a file (safetensors, ``.bin``, ``.pth``, ``.pyth``, or the
            index of a sharded checkpoint).
        revision: Branch, tag or commit on the Hub.
        local_files_only: Read the Hub's files from the local cache only.
        labels: A file with the names of the classes; replaces those of the checkpoint.
        task: "video-classification", or "feature-extraction", which drops the head.
        num_frames: Frames of a clip. Time embeddings for another number are resized.
        image_size: Height and width of a frame. Position embeddings for another grid are
            resized, and the preprocessing follows.
        attention_heads: For files without a configuration; if not given, hidden size / 64 where
            that can be assumed.
        weights: "raw" or "ema", for checkpoints that hold averaged weights (EMA) beside the raw
            ones; None for the set that the trainer saved as the model.

    Raises:
        CheckpointNotFoundError: There is nothing under that path or Hub id.
        InvalidCheckpointError: A file is broken, or not a whole TimeSformer.
        InvalidConfigError: The configuration is not that of a TimeSformer.
        InvalidOptionError: An option is missing, or contradicts the checkpoint.
        timesformer_runtime.errors.TimesformerError: The Hub refused or broke off, or
            huggingface_hub is not installed.
    """
    check_choice("task", task, get_args(Task))
    if weights is not None:
        check_choice("weights", weights, get_args(Weights))
    given = GivenOptions(num_frames, _height_width(image_size), attention_heads)
    if num_frames is not None and num_frames < 1:
        raise InvalidOptionError(f"`num_frames` is {num_frames}; it must be at least 1")
    files = find_files(model, revision, local_files_only)
    base = _find_base(files, local_files_only)
    return _Loader(files, base, given, task, labels, weights).load()


def build_model(checkpoint: Checkpoint, task: str) -> TimesformerForVideoClassification:
    """Builds the model with the checkpoint's weights, in evaluation mode.

    The tensors are copied. For "feature-extraction" the classifier is the identity.

    Raises:
        InvalidCheckpointError: The checkpoint has no head for "video-classification".
    """
    config, state = checkpoint.config, checkpoint.state_dict
    if task == "feature-extraction":
        config = dataclasses.replace(config, id2label=None)
        state = _without_head(state)
    elif config.id2label is None:
        raise _no_head(checkpoint.source.model)
    model = empty_model(config).to_empty(device="cpu")
    model.load_state_dict(state, strict=True)
    return model.eval()


class _Loader:
    """Turns the files of one checkpoint into a Checkpoint, and collects notes for the user."""

    def __init__(
        self,
        files: CheckpointFiles,
        base: tuple[Adapter, CheckpointFiles] | None,
        given: GivenOptions,
        task: str,
        labels: Path | None,
        weights: str | None,
    ) -> None:
        self.adapter = None if base is None else base[0]
        self.adapter_files = None if base is None else files
        self.base_name = "" if base is None else base[1].name
        self.files = files if base is None else _with_base(files, base[1])
        self.given = given
        self.task = task
        self.labels = labels
        self.weights = weights
        self.notes: list[str] = []
        self.preprocessor: Path | None = None  # the file that describes the preprocessing

    def load(self) -> Checkpoint:
        """Reads, renames, checks and converts the tensors, in this order."""
        file = self._read_weights(self.files)
        originals = without_wrappers(file.tensors, self.files.name)
        originals = self._choose_model(file, originals)
        names = recognize(originals)
        if names is None:
            raise InvalidCheckpointError(
                f"{self.files.name} is not a TimeSformer: its tensors ({listing(file.tensors)}) "
                "have other names than those of Hugging Face, the authors' code or mmaction2"
            )
        settings = parse_settings(file.settings if names.format == "facebook" else "")
        tensors, unexpected, beside = _renamed(file.tensors, originals, names)
        tensors = self._for_task(self._with_adapter(tensors))
        config = self._config(tensors, names, settings, file)
        check_names_and_shapes(tensors, unexpected, beside, config, names, self.files.name)
        check_memory(tensors, self.files.weights, self.files.name)
        self._note_beside(beside)
        self._note_types(tensors)
        tensors = to_float32(tensors, names, self.files.name)
        config = self._with_labels(config)
        preprocessing = self._preprocessing(names.format, config, settings)
        config, tensors = self._resize(config, tensors)
        self._check_clip(preprocessing, config.num_frames)
        source = Source(
            self.files.name, self.files.revision, names.format, self._sha256(names.format)
        )
        return Checkpoint(config, tensors, preprocessing, source, tuple(self.notes))

    def _read_weights(self, files: CheckpointFiles) -> TensorFile:
        """Reads the tensors of all shards into one TensorFile."""
        shards = {path.name: read_tensor_file(path, self.weights) for path in files.weights}
        index = files.index or {}
        absent = [name for name, shard in index.items() if name not in shards[shard].tensors]
        if absent:
            raise InvalidCheckpointError(
                f"{files.index_file} names {len(absent)} tensors that are not in their shards "
                f"({listing(absent)}); download the shards and the index again"
            )
        if any(shard.has_other_objects for shard in shards.values()):
            self.notes.append("Objects in the file other than tensors were left out, unread.")
        merged = {name: value for shard in shards.values() for name, value in shard.tensors.items()}
        return dataclasses.replace(shards[files.weights[0].name], tensors=merged)

    def _choose_model(self, file: TensorFile, originals: dict[str, str]) -> dict[str, str]:
        """Keeps the names of the raw or of the averaged model, where a state dict holds both."""
        sets = split_by_model(originals, self.files.name)
        if len(sets) == 1:
            sets = [WeightSet(originals, file.where, file.is_averaged)]
        wanted = None if file.had_choice else self.weights
        chosen, notes = choose(sets, wanted, self.files.name)
        self.notes += file.notes or notes
        return dict(chosen.tensors)

    def _with_adapter(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.adapter is None or self.adapter_files is None:
            return tensors
        self.notes.append(f"The LoRA adapter was merged into its base model {self.base_name}.")
        return self.adapter.merge(tensors, self._read_weights(self.adapter_files).tensors)

    def _for_task(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.task == "feature-extraction":
            return _without_head(tensors)
        if f"{_HEAD}weight" not in tensors:
            raise _no_head(self.files.name)
        return tensors

    def _config(
        self,
        tensors: Mapping[str, Tensor],
        names: KeyMap,
        settings: FacebookSettings,
        file: TensorFile,
    ) -> TimesformerConfig:
        head = tensors.get(f"{_HEAD}weight")
        classes = 0 if head is None else head.shape[:1].numel()  # len fails without an axis
        generic = {index: f"LABEL_{index}" for index in range(classes)} or None
        if names.format == "huggingface" and (self.files.config or file.config):
            config = self._read_config(self.files.config, file.config, tensors)
            # transformers leaves id2label out of config.json where it is LABEL_0 and LABEL_1.
            labels = config.id2label or generic
            if self.adapter is not None and len(labels or ()) != classes:
                labels = generic  # the adapter has a head of its own
            return dataclasses.replace(config, id2label=None if head is None else labels)
        if names.format == "huggingface":
            self._check_heads(tensors)
        given = dataclasses.replace(
            self.given, num_frames=self.given.num_frames or settings.num_frames
        )
        try:
            config, notes = infer_config(tensors, given, self.files.name)
        except InvalidConfigError as error:
            raise InvalidConfigError(f"{self.files.name}: {error}") from error
        self.notes += [*notes, *_contradictions(config, settings)]
        return dataclasses.replace(config, id2label=generic)

    def _check_heads(self, tensors: Mapping[str, Tensor]) -> None:
        """Asks for the number of heads where only the published models' size suggests one.

        The authors' and mmaction2's code has heads of 64; a Hugging Face configuration, which is
        absent here, may have any.
        """
        hidden = tensors["timesformer.embeddings.cls_token"].shape[-1:].numel()
        if self.given.attention_heads is None and hidden != _PUBLISHED_HIDDEN_SIZE:
            raise InvalidOptionError(
                f"{self.files.name} has no config.json, and its tensors (hidden size {hidden}) do "
                "not tell the number of attention heads; add config.json, or say the number with "
                "`attention_heads`"
            )

    def _read_config(
        self,
        path: Path | None,
        saved: Mapping[str, Any] | None,
        tensors: Mapping[str, Tensor],
    ) -> TimesformerConfig:
        """Reads the configuration of config.json, or else the one saved with a whole model."""
        where = str(path or f"the configuration in {self.files.name}")
        values = saved or {} if path is None else read_json(path)
        try:
            config = TimesformerConfig.from_dict(values)
        except InvalidConfigError as error:
            raise InvalidConfigError(f"{where}: {error}") from error
        heads = self.given.attention_heads
        if heads is not None and heads != config.num_attention_heads:
            raise InvalidOptionError(
                f"`attention_heads` is {heads}, but {where} says {config.num_attention_heads}; "
                "leave the option out"
            )
        config, notes = match_embeddings(
            config, values.keys(), tensors, self.given, Path(where).name
        )
        self.notes += notes
        return config

    def _note_beside(self, beside: list[str]) -> None:
        if beside:
            self.notes.append(f"Tensors beside the model were left out: {listing(beside)}.")

    def _note_types(self, tensors: Mapping[str, Tensor]) -> None:
        others = sorted({dtype_name(tensor) for tensor in tensors.values()} - {"float32"})
        if others:
            self.notes.append(f"Weights in {', '.join(others)} were converted to float32.")

    def _with_labels(self, config: TimesformerConfig) -> TimesformerConfig:
        if self.labels is not None:
            if self.task == "feature-extraction":
                raise InvalidOptionError(
                    f"`labels` is {self.labels}, but `task=feature-extraction` has no classes; "
                    "leave one of them out"
                )
            labels = read_labels(self.labels, config.num_labels)
            return dataclasses.replace(config, id2label=labels)
        names = config.id2label or {}
        if names and all(name == f"LABEL_{index}" for index, name in names.items()):
            self.notes.append(f"The {len(names)} classes have no names; give them with `labels`.")
        return config

    def _preprocessing(
        self, checkpoint_format: str, config: TimesformerConfig, settings: FacebookSettings
    ) -> dict[str, Any]:
        found = self._read_preprocessing(checkpoint_format)
        if found is None:
            values = default_preprocessing(checkpoint_format, config, settings)
            mean, std = values["image_mean"][0], values["image_std"][0]
            origin = "its cfg's" if settings.mean or settings.std else "the format's own"
            self.notes.append(
                "The checkpoint has no preprocessor_config.json: short side and centre crop to "
                f"its frame size were assumed, with {origin} mean {mean:g} and std {std:g}."
            )
        else:
            values = dict(found.values)
            self.notes += found.notes
        if self.given.image_hw is not None:
            values = with_image_size(values, self.given.image_hw)
        self._check_preprocessing(values, config)
        return values

    def _read_preprocessing(self, checkpoint_format: str) -> PreprocessorConfig | None:
        if checkpoint_format != "huggingface":
            return None
        found = read_preprocessing(self.files.preprocessors)
        self.preprocessor = None if found is None else found.path
        return found

    def _check_preprocessing(self, values: dict[str, Any], config: TimesformerConfig) -> None:
        preprocessing = Preprocessing.from_dict(values)
        height, width = self.given.image_hw or config.image_hw
        if preprocessing.output_size is None:
            raise InvalidCheckpointError(
                f"{self.preprocessor} makes frames whose size depends on the video "
                f"(do_center_crop is false), but the model is for {height}x{width}; "
                "set do_center_crop there"
            )
        if preprocessing.output_size != (height, width):
            made = "{}x{}".format(*preprocessing.output_size)
            raise InvalidCheckpointError(
                f"{self.preprocessor} makes frames of {made}, but the model is for "
                f"{height}x{width}; say which with `image_size`"
            )
        if preprocessing.num_channels != config.num_channels:
            raise InvalidCheckpointError(
                f"{self.preprocessor} has an image_mean of {preprocessing.num_channels} "
                f"channels, but the model takes {config.num_channels}; correct it"
            )

    def _check_clip(self, values: dict[str, Any], num_frames: int) -> None:
        try:
            Preprocessing.from_dict(values).check_clip(num_frames)
        except InvalidModelError as error:
            where = self.preprocessor or self.files.name
            raise InvalidCheckpointError(f"{where}: {error}") from error

    def _resize(
        self, config: TimesformerConfig, tensors: dict[str, Tensor]
    ) -> tuple[TimesformerConfig, dict[str, Tensor]]:
        """Resizes the embeddings to the number of frames and the size that the options ask for."""
        frames, size = self.given.num_frames, self.given.image_hw
        if frames is not None and frames != config.num_frames:
            note = f"Clips of {frames} frames were asked for instead of {config.num_frames}"
            config = dataclasses.replace(config, num_frames=frames)
            if TIMES in tensors:
                tensors = {**tensors, TIMES: resize_times(tensors[TIMES], frames)}
                note += ": the time embeddings were resized"
            self.notes.append(f"{note}.")
        if size is not None and size != config.image_hw:
            resized = dataclasses.replace(config, image_size=size)
            note = "Frames of {}x{} were asked for instead of {}x{}".format(*size, *config.image_hw)
            if resized.grid != config.grid:
                positions = resize_positions(tensors[POSITIONS], config.grid, resized.grid)
                tensors = {**tensors, POSITIONS: positions}
                note += ": the position embeddings were resized"
            config = resized
            self.notes.append(f"{note}.")
        return config, tensors

    def _sha256(self, checkpoint_format: str) -> dict[str, str]:
        files = self.files
        read = [*files.weights, files.index_file]
        if checkpoint_format == "huggingface":
            read += [files.config, self.preprocessor]
        if self.adapter_files is not None:
            read += [*self.adapter_files.weights, self.adapter_files.adapter_config]
        return {as_text(path.name): sha256(path) for path in read if path is not None}


def _find_base(
    files: CheckpointFiles, local_files_only: bool
) -> tuple[Adapter, CheckpointFiles] | None:
    """Finds an adapter and the files of its base model; None where the files are not an adapter's.

    Raises:
        CheckpointNotFoundError: The base model is not there.
        InvalidCheckpointError: The adapter is not plain LoRA, or its base model is an adapter.
    """
    if files.adapter_config is None:
        return None
    adapter = read_adapter(files.adapter_config, files.name)
    try:
        base = _base_files(adapter, files.revision is not None, local_files_only)
    except CheckpointNotFoundError as error:
        raise CheckpointNotFoundError(
            f"the base model of the adapter {files.name} is absent: {error}; its "
            "adapter_config.json names it as base_model_name_or_path"
        ) from error
    if base.adapter_config is not None:
        raise InvalidCheckpointError(
            f"the base model of the adapter {files.name} is itself an adapter ({adapter.base}); "
            "merge them with PEFT's model.merge_and_unload()"
        )
    return adapter, base


def _base_files(adapter: Adapter, is_on_hub: bool, local_files_only: bool) -> CheckpointFiles:
    """Finds the files of an adapter's base model.

    A stranger may have made an adapter on the Hub. So the base model of such an adapter is looked
    up on the Hub only, never as a path of this machine.
    """
    if is_on_hub:
        return find_on_hub(adapter.base, adapter.revision, local_files_only)
    try:
        is_local = Path(adapter.base).exists()
    except OSError:
        is_local = True  # find_files, below, raises an error with the reason
    return find_files(adapter.base, None if is_local else adapter.revision, local_files_only)


def _with_base(adapter: CheckpointFiles, base: CheckpointFiles) -> CheckpointFiles:
    """The base model's files, with the configuration files that lie beside the adapter, if any."""
    return dataclasses.replace(
        base,
        name=adapter.name,
        revision=adapter.revision,
        config=adapter.config or base.config,
        preprocessors=adapter.preprocessors or base.preprocessors,
    )


def _renamed(
    tensors: Mapping[str, Tensor], originals: Mapping[str, str], names: KeyMap
) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """Gives the tensors Hugging Face's names.

    Returns:
        The tensors; the names in the file that Hugging Face does not have; and the names in the
        file of tensors that a training loop keeps beside the model's.
    """
    renamed, unexpected, beside = {}, [], []
    for plain, original in originals.items():
        name = names.to_huggingface(plain)
        if names.is_beside_model(plain):
            beside.append(original)
        elif name is None:
            unexpected.append(original)
        else:
            renamed[name] = tensors[original]
    return renamed, unexpected, beside


def _height_width(image_size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if image_size is None:
        return None
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if not 1 <= min(height, width) <= max(height, width) <= _MAX_SIDE:
        raise InvalidOptionError(
            f"`image_size` is {height}x{width}; both sides must be from 1 to {_MAX_SIDE} pixels"
        )
    return height, width


def _contradictions(config: TimesformerConfig, settings: FacebookSettings) -> list[str]:
    """Makes a sentence for each setting of the trainer that contradicts the tensors.

    The tensors decide.
    """
    # Space-only models have no time embedding that could tell the number of frames.
    frames = None if config.attention_type == "space_only" else config.num_frames
    notes = [
        f"The checkpoint's cfg says {name} {listing([str(said)])}, its tensors {told}: the tensors "
        "decide."
        for name, said, told in (
            ("NUM_FRAMES", settings.num_frames, frames),
            ("ATTENTION_TYPE", settings.attention_type, config.attention_type),
        )
        if said is not None and told is not None and said != told
    ]
    if settings.dataset is not None and "ssv2" in settings.dataset:
        notes.append(
            "The authors' code fed frames of Something-Something in BGR order to this model; "
            "here it gets RGB, as in transformers."
        )
    return notes


def _without_head(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(_HEAD)}


def _no_head(model: str) -> InvalidCheckpointError:
    return InvalidCheckpointError(
        f"{model} has no classification head; take its features with `task=feature-extraction`, "
        "or give a fine-tuned checkpoint"
    )
