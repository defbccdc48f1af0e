"""Checks that tensors are those of a TimeSformer: names, shapes, values, memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from timesformer_runtime.errors import printable
from torch import Tensor

from timesformer_exporter.checkpoints.key_maps import KeyMap
from timesformer_exporter.errors import InvalidCheckpointError
from timesformer_exporter.model.config import TimesformerConfig
from timesformer_exporter.model.timesformer import TimesformerForVideoClassification

# Limits of a list of names in a message.
_MOST_NAMES = 10
_LONGEST_NAME = 200  # characters
_LONGEST_LIST = 700  # characters

# A float32 model can be larger than its file, but not without limit: weights of 8 bits become
# four times as large, and layers can share one tensor.
_MOST_GROWTH = 32
_ALWAYS_ALLOWED = 256 << 20  # bytes


def empty_model(config: TimesformerConfig) -> TimesformerForVideoClassification:
    """The model of that configuration, without memory for its weights."""
    with torch.device("meta"):
        return TimesformerForVideoClassification(config)


def check_names_and_shapes(
    tensors: Mapping[str, Tensor],
    unexpected: Iterable[str],
    beside: Iterable[str],
    config: TimesformerConfig,
    names_of_file: KeyMap,
    model: str,
) -> None:
    """Compares the tensors with those that the model of that configuration has.

    Args:
        tensors: The model's tensors, by Hugging Face's names.
        unexpected: Names in the file for which there is no Hugging Face name.
        beside: Names in the file of tensors that a training loop keeps beside the model's. They
            are listed only where the check fails.
        config: The configuration that the tensors should fit.
        names_of_file: Translates Hugging Face's names to those that the user knows from the file.
        model: The name of the checkpoint, for messages.

    Raises:
        InvalidCheckpointError: Tensors are missing, unexpected or misshapen; the message lists
            them.
    """
    state = empty_model(config).state_dict()
    expected = {name: list(value.shape) for name, value in state.items()}
    missing = [names_of_file.in_file(name) for name in expected if name not in tensors]
    extra = [
        *unexpected,
        *(names_of_file.in_file(name) for name in tensors if name not in expected),
    ]
    misshapen = [
        f"{names_of_file.in_file(name)} {list(tensor.shape)} instead of {expected[name]}"
        for name, tensor in tensors.items()
        if name in expected and list(tensor.shape) != expected[name]
    ]
    kinds = {"missing": missing, "unexpected": [*extra, *beside], "misshapen": misshapen}
    room = _LONGEST_LIST // max(1, sum(map(bool, kinds.values())))
    problems = [
        f"{len(names)} {kind} ({listing(names, room)})" for kind, names in kinds.items() if names
    ]
    if missing or extra or misshapen:
        raise InvalidCheckpointError(
            f"{model} does not have the tensors of its TimeSformer: {'; '.join(problems)}; "
            "check that the file is whole and that the configuration belongs to it"
        )


def check_memory(tensors: Mapping[str, Tensor], files: Iterable[Path], model: str) -> None:
    """Refuses tensors that expand a small file into a huge model, by strides of 0 for example.

    Raises:
        InvalidCheckpointError: In float32 the tensors take over 32 times the bytes of the files.
    """
    needed = 4 * sum(tensor.numel() for tensor in tensors.values())
    stored = sum(path.stat().st_size for path in files)
    if needed > max(_MOST_GROWTH * stored, _ALWAYS_ALLOWED):
        raise InvalidCheckpointError(
            f"{model} has {stored:,} bytes, but its tensors take {needed:,} in float32, more than "
            f"{_MOST_GROWTH} times as many; save them as they are, with tensor.contiguous()"
        )


def to_float32(
    tensors: Mapping[str, Tensor], names_of_file: KeyMap, model: str
) -> dict[str, Tensor]:
    """Converts the tensors to float32.

    Raises:
        InvalidCheckpointError: A tensor is not floating-point, or not finite.
    """
    return {
        name: _float32(tensor, names_of_file.in_file(name), model)
        for name, tensor in tensors.items()
    }


def _float32(tensor: Tensor, name: str, model: str) -> Tensor:
    if not tensor.is_floating_point():
        raise InvalidCheckpointError(
            f"{model}: tensor {name} is {dtype_name(tensor)}, not floating-point; give the "
            "checkpoint before it was quantized"
        )
    converted = tensor.to(torch.float32)
    if not bool(torch.isfinite(converted).all()):
        raise InvalidCheckpointError(
            f"{model}: tensor {name} has values that are not finite in float32; the training "
            "diverged or the file is broken, so give another checkpoint"
        )
    return converted


def dtype_name(tensor: Tensor) -> str:
    """The name of a tensor's dtype, such as "float16"."""
    return str(tensor.dtype).removeprefix("torch.")


def listing(names: Iterable[str], room: int = _LONGEST_LIST) -> str:
    """Lists the first names for a message, at most ``room`` characters, and counts the others."""
    names = list(names)
    shown: list[str] = []
    for name in names[:_MOST_NAMES]:
        text = printable(name[:_LONGEST_NAME])[:_LONGEST_NAME]
        room -= len(text)
        if shown and room < 0:
            break
        shown.append(text)
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
