"""Whether tensors are those of a TimeSformer: names, shapes, values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from timesformer_exporter.checkpoints.key_maps import KeyMap
from timesformer_exporter.errors import InvalidCheckpointError
from timesformer_exporter.model.config import TimesformerConfig
from timesformer_exporter.model.timesformer import TimesformerForVideoClassification

_LISTED = 10  # so many names stand in a message


def empty_model(config: TimesformerConfig) -> TimesformerForVideoClassification:
    """The model of that configuration, without memory for its weights."""
    with torch.device("meta"):
        return TimesformerForVideoClassification(config)


def check_names_and_shapes(
    tensors: Mapping[str, Tensor],
    unexpected: Iterable[str],
    config: TimesformerConfig,
    keys: KeyMap,
    model: str,
) -> None:
    """Compares the tensors with those that the model of that configuration has.

    Args:
        tensors: By Hugging Face's names.
        unexpected: Names in the file for which there is no Hugging Face name.
        config: What the tensors should be.
        keys: Gives the names that the user knows from the file.
        model: Name of the checkpoint, for messages.

    Raises:
        InvalidCheckpointError: Tensors are missing, unexpected or misshapen; it lists them.
    """
    state = empty_model(config).state_dict()
    expected = {name: list(value.shape) for name, value in state.items()}
    missing = [keys.theirs(name) for name in expected if name not in tensors]
    extra = [*unexpected, *(keys.theirs(name) for name in tensors if name not in expected)]
    misshapen = [
        f"{keys.theirs(name)} {list(tensor.shape)} instead of {expected[name]}"
        for name, tensor in tensors.items()
        if name in expected and list(tensor.shape) != expected[name]
    ]
    kinds = {"missing": missing, "unexpected": extra, "misshapen": misshapen}
    problems = [f"{len(names)} {kind} ({listing(names)})" for kind, names in kinds.items() if names]
    if problems:
        raise InvalidCheckpointError(
            f"{model} does not have the tensors of its TimeSformer: {'; '.join(problems)}; "
            "check that the file is whole and that the configuration belongs to it"
        )


def to_float32(tensors: Mapping[str, Tensor], keys: KeyMap, model: str) -> dict[str, Tensor]:
    """The tensors in float32.

    Raises:
        InvalidCheckpointError: A tensor is not floating-point, or not finite.
    """
    return {name: _float32(tensor, keys.theirs(name), model) for name, tensor in tensors.items()}


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
    """For example "float16"."""
    return str(tensor.dtype).removeprefix("torch.")


def listing(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
