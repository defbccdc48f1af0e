"""Infers the architecture from the shapes of tensors, for checkpoints without a configuration."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from timesformer_exporter.errors import InvalidCheckpointError, InvalidOptionError
from timesformer_exporter.model.config import TimesformerConfig

_PROJECTION = "timesformer.embeddings.patch_embeddings.projection.weight"
POSITIONS = "timesformer.embeddings.position_embeddings"
TIMES = "timesformer.embeddings.time_embeddings"
_LAYER = "timesformer.encoder.layer."
_HEAD_SIZE = 64  # features of one attention head in every published TimeSformer


@dataclass(frozen=True)
class GivenOptions:
    """The user's options that settle what tensors leave open; None where an option is not given."""

    num_frames: int | None = None
    image_hw: tuple[int, int] | None = None
    attention_heads: int | None = None


def infer_config(
    tensors: Mapping[str, Tensor], given: GivenOptions, name: str
) -> tuple[TimesformerConfig, list[str]]:
    """Infers the configuration of a checkpoint, and says in sentences what was assumed.

    Where the embeddings tell the number of frames and the frame size, the configuration has these
    numbers, even if the options ask for others: the loader resizes the embeddings later.
    ``id2label`` is None.

    Args:
        tensors: The model's tensors, by Hugging Face's names.
        given: The user's options.
        name: The name of the checkpoint, for messages.

    Returns:
        The configuration, and one sentence for each assumption.

    Raises:
        InvalidOptionError: The tensors leave something open, and no option settles it.
        InvalidCheckpointError: The tensors contradict each other.
    """
    projection = _shaped(tensors, _PROJECTION, 4, name)
    hidden, channels, patch_height, patch_width = projection
    layers = _layers(tensors, name)
    attention_type = _attention_type(tensors)
    intermediate = _shaped(tensors, f"{_LAYER}0.intermediate.dense.weight", 2, name)[0]
    image_hw, notes = _image_size(tensors, (patch_height, patch_width), given.image_hw, name)
    heads, more = _heads(hidden, given.attention_heads, name)
    config = TimesformerConfig(
        image_size=image_hw[0] if image_hw[0] == image_hw[1] else image_hw,
        patch_size=patch_height if patch_height == patch_width else (patch_height, patch_width),
        num_channels=channels,
        num_frames=_frames(tensors, attention_type, given.num_frames, name),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=intermediate,
        qkv_bias=any(key.endswith(".qkv.bias") for key in tensors),
        attention_type=attention_type,
    )
    defaults = f"{config.hidden_act} and LayerNorm eps {config.layer_norm_eps} were assumed"
    return config, [*notes, *more, f"The checkpoint has no configuration: {defaults}."]


def match_embeddings(
    config: TimesformerConfig,
    stated: Collection[str],
    tensors: Mapping[str, Tensor],
    given: GivenOptions,
    source: str,
) -> tuple[TimesformerConfig, list[str]]:
    """Sets a configuration's number of frames and frame size to those of the embeddings.

    Args:
        config: The configuration as read.
        stated: The names of the fields that the file has; the other fields are only defaults.
        tensors: The model's tensors, by Hugging Face's names.
        given: The user's options; the loader resizes the embeddings to them later.
        source: The name of the file that has the configuration, for messages.

    Returns:
        The configuration, and one sentence for each field that the file leaves out.

    Raises:
        InvalidOptionError: The file contradicts the embeddings, and no option decides.
    """
    notes = []
    frames, size = _embedded_frames(tensors, config), _embedded_size(tensors, config)
    if frames is not None:
        if "num_frames" not in stated:
            notes.append(f"{source} has no num_frames: the embeddings' {frames} was taken.")
        elif given.num_frames is None:
            raise InvalidOptionError(
                _contradiction("num_frames", config.num_frames, "time", frames, source)
            )
        config = dataclasses.replace(config, num_frames=frames)
    if size is not None:
        if "image_size" not in stated:
            notes.append(f"{source} has no image_size: the embeddings' {size} was taken.")
        elif given.image_hw is None:
            height, width = config.image_hw
            says = height if height == width else f"{height}x{width}"
            raise InvalidOptionError(_contradiction("image_size", says, "position", size, source))
        config = dataclasses.replace(config, image_size=size)
    return config, notes


def _contradiction(
    option: str, stated: int | str, embeddings: str, embedded: int, source: str
) -> str:
    return (
        f"{source} says {option} {stated}, but the {embeddings} embeddings are for {embedded}; say "
        f"with `{option}` which is meant: {embedded} as they are, or {stated} to resize them"
    )


def _embedded_frames(tensors: Mapping[str, Tensor], config: TimesformerConfig) -> int | None:
    """The number of time embeddings, where it differs from the configuration's; else None."""
    shape: Sequence[int] = tensors[TIMES].shape if TIMES in tensors else ()
    differs = len(shape) == 3 and 0 < shape[1] != config.num_frames
    return shape[1] if differs else None


def _embedded_size(tensors: Mapping[str, Tensor], config: TimesformerConfig) -> int | None:
    """The side of the square frames that have one patch for each position embedding, in pixels.

    None where the configuration has as many patches, or where they do not form a square.
    """
    shape: Sequence[int] = tensors[POSITIONS].shape if POSITIONS in tensors else ()
    patches = shape[1] - 1 if len(shape) == 3 else 0
    side = math.isqrt(max(patches, 0))
    differs = 0 < side * side == patches != config.num_patches
    if not differs or not isinstance(config.patch_size, int):
        return None
    return side * config.patch_size


def _layers(tensors: Mapping[str, Tensor], name: str) -> int:
    pattern = re.compile(re.escape(_LAYER) + r"([0-9]{1,9})\.")
    indices = {int(match.group(1)) for key in tensors if (match := pattern.match(key))}
    missing = next((i for i, index in enumerate(sorted(indices)) if i != index), None)
    if not indices or missing is not None:
        which = "layers" if missing is None else f"layer {missing}"
        raise InvalidCheckpointError(f"{name} has no tensors of {which}; it is not whole")
    return len(indices)


def _attention_type(tensors: Mapping[str, Tensor]) -> str:
    if any(".temporal_" in key for key in tensors):
        return "divided_space_time"
    return "joint_space_time" if TIMES in tensors else "space_only"


def _frames(
    tensors: Mapping[str, Tensor], attention_type: str, frames: int | None, name: str
) -> int:
    if attention_type != "space_only":
        return _shaped(tensors, TIMES, 3, name)[1]
    if frames is None:
        raise InvalidOptionError(
            f"{name} has space-only attention, whose tensors do not tell the number of frames; "
            "say it with `num_frames` (the published models have 8)"
        )
    return frames


def _image_size(
    tensors: Mapping[str, Tensor],
    patch: tuple[int, int],
    image_hw: tuple[int, int] | None,
    name: str,
) -> tuple[tuple[int, int], list[str]]:
    """The frame size (height, width) that the position embeddings are for, and assumptions.

    The option ``image_size`` decides on the grid of patches where it gives as many patches as there
    are position embeddings. Otherwise the grid is assumed to be square, and the embeddings are
    resized to the option later.
    """
    patches = _shaped(tensors, POSITIONS, 3, name)[1] - 1
    side = math.isqrt(patches)
    if image_hw and (image_hw[0] // patch[0]) * (image_hw[1] // patch[1]) == patches:
        rows, columns = image_hw[0] // patch[0], image_hw[1] // patch[1]
        assumed = f"A grid of {rows}x{columns} patches was taken from `image_size`."
        return image_hw, [] if (rows, columns) == (side, side) else [assumed]
    if side * side == patches and patches > 0:
        size = side * patch[0], side * patch[1]
        return size, [f"Frames of {size[0]}x{size[1]} were assumed: a square grid of patches."]
    asked = "" if image_hw is None else f", and {image_hw[0]}x{image_hw[1]} does not give as many"
    raise InvalidOptionError(
        f"{name} has position embeddings for {patches} patches of {patch[0]}x{patch[1]}, which is "
        f"not a square grid{asked}; say the size of its frames with `image_size`"
    )


def _heads(hidden: int, heads: int | None, name: str) -> tuple[int, list[str]]:
    if heads is not None:
        if heads < 1 or hidden % heads:
            raise InvalidOptionError(
                f"`attention_heads` is {heads}; the hidden size {hidden} is not a multiple of it"
            )
        return heads, []
    if hidden % _HEAD_SIZE:
        raise InvalidOptionError(
            f"{name} has hidden size {hidden}, which is not a multiple of {_HEAD_SIZE}; "
            "say the number of heads with `attention_heads`"
        )
    heads = hidden // _HEAD_SIZE
    return heads, [f"{heads} attention heads were assumed: hidden size {hidden} / {_HEAD_SIZE}."]


def _shaped(tensors: Mapping[str, Tensor], key: str, rank: int, name: str) -> tuple[int, ...]:
    """The shape of a tensor; raises where the tensor is absent or does not have ``rank`` axes."""
    if key not in tensors:
        raise InvalidCheckpointError(f"{name} has no tensor for {key}; it is not whole")
    shape = tuple(tensors[key].shape)
    if len(shape) != rank or 0 in shape:
        raise InvalidCheckpointError(
            f"{name}: the tensor for {key} has shape {list(shape)}; {rank} axes were expected"
        )
    return shape
