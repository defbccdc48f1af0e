"""The architecture that tensors tell, for checkpoints that come without a configuration."""

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
_POSITIONS = "timesformer.embeddings.position_embeddings"
_TIMES = "timesformer.embeddings.time_embeddings"
_LAYER = "timesformer.encoder.layer."
_HEAD_SIZE = 64  # of every published TimeSformer


@dataclass(frozen=True)
class Known:
    """What the caller knows about a checkpoint; None where the caller does not say."""

    num_frames: int | None = None
    image_hw: tuple[int, int] | None = None
    attention_heads: int | None = None


def infer_config(
    tensors: Mapping[str, Tensor], known: Known, name: str
) -> tuple[TimesformerConfig, list[str]]:
    """The configuration of a checkpoint, and a sentence for each thing that was assumed.

    The frames and the size in it are those of the tensors where these tell them, even if the
    caller wants others: the embeddings are resized later. ``id2label`` is generic.

    Args:
        tensors: By Hugging Face's names.
        known: What the options say.
        name: Of the checkpoint, for messages.

    Raises:
        InvalidOptionError: The tensors leave something open, and no option says it.
        InvalidCheckpointError: The tensors contradict each other.
    """
    projection = _shaped(tensors, _PROJECTION, 4, name)
    hidden, channels, patch_height, patch_width = projection
    layers = _layers(tensors, name)
    attention_type = _attention_type(tensors)
    intermediate = _shaped(tensors, f"{_LAYER}0.intermediate.dense.weight", 2, name)[0]
    image_hw, notes = _image_size(tensors, (patch_height, patch_width), known.image_hw, name)
    heads, more = _heads(hidden, known.attention_heads, name)
    config = TimesformerConfig(
        image_size=image_hw[0] if image_hw[0] == image_hw[1] else image_hw,
        patch_size=patch_height if patch_height == patch_width else (patch_height, patch_width),
        num_channels=channels,
        num_frames=_frames(tensors, known.num_frames, name),
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
    known: Known,
    source: str,
) -> tuple[TimesformerConfig, list[str]]:
    """A configuration with the frames and the size that its checkpoint's embeddings are for.

    Args:
        config: As read.
        stated: Which fields are in the file; what is not there is only a default.
        tensors: By Hugging Face's names.
        known: What the options say, to which the embeddings are resized later.
        source: The name of where the configuration is from, for messages.

    Returns:
        The configuration, and a sentence for each field that the file leaves out.

    Raises:
        InvalidOptionError: The file contradicts the time embeddings, and no option says what is
            meant.
    """
    notes = []
    frames, size = _embedded_frames(tensors, config), _embedded_size(tensors, config)
    if frames is not None:
        if "num_frames" not in stated:
            notes.append(f"{source} has no num_frames: the embeddings' {frames} was taken.")
        elif known.num_frames is None:
            raise InvalidOptionError(
                f"{source} says num_frames {config.num_frames}, but the time embeddings are for "
                f"{frames}; say with the option num_frames which is meant: {frames} as they are, "
                f"or {config.num_frames} to resize them"
            )
        config = dataclasses.replace(config, num_frames=frames)
    if size is not None and ("image_size" not in stated or known.image_hw is not None):
        if "image_size" not in stated:
            notes.append(f"{source} has no image_size: the embeddings' {size} was taken.")
        config = dataclasses.replace(config, image_size=size)
    return config, notes


def _embedded_frames(tensors: Mapping[str, Tensor], config: TimesformerConfig) -> int | None:
    """The number of frames that the time embeddings are for, where it is another."""
    shape: Sequence[int] = tensors[_TIMES].shape if _TIMES in tensors else ()
    is_told = len(shape) == 3 and 0 < shape[1] != config.num_frames
    return shape[1] if is_told else None


def _embedded_size(tensors: Mapping[str, Tensor], config: TimesformerConfig) -> int | None:
    """The size of the square frames that the position embeddings are for, where it is another."""
    shape: Sequence[int] = tensors[_POSITIONS].shape if _POSITIONS in tensors else ()
    patches = shape[1] - 1 if len(shape) == 3 else 0
    side = math.isqrt(max(patches, 0))
    is_told = 0 < side * side == patches != config.num_patches
    if not is_told or not isinstance(config.patch_size, int):
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
    return "joint_space_time" if _TIMES in tensors else "space_only"


def _frames(tensors: Mapping[str, Tensor], frames: int | None, name: str) -> int:
    if _TIMES in tensors:
        return _shaped(tensors, _TIMES, 3, name)[1]
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
    """The size of frames that the position embeddings are for.

    A size from the options tells the grid when it has as many patches as there are
    embeddings; else the grid is square, and the size is one to resize to.
    """
    patches = _shaped(tensors, _POSITIONS, 3, name)[1] - 1
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
        f"no square grid{asked}; say the size of its frames with `image_size`"
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
    """The shape of a tensor that must be there, with as many axes as it must have."""
    if key not in tensors:
        raise InvalidCheckpointError(f"{name} has no tensor for {key}; it is not whole")
    shape = tuple(tensors[key].shape)
    if len(shape) != rank or 0 in shape:
        raise InvalidCheckpointError(
            f"{name}: the tensor for {key} has shape {list(shape)}; {rank} axes were expected"
        )
    return shape
