"""Chooses between the raw weights and their average (EMA) where a checkpoint has both."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from timesformer_runtime.errors import listed, printable

from timesformer_exporter.checkpoints.inert_pickle import SavedObject, StoredTensor
from timesformer_exporter.checkpoints.saved_module import module_tensors
from timesformer_exporter.errors import InvalidCheckpointError, InvalidOptionError

# The keys under which trainers keep the model's state dict, in the order in which they are tried.
MODEL_KEYS = ("model_state", "state_dict", "model_state_dict", "model", "module")

# The keys under which trainers keep the average of the weights over the training steps.
_AVERAGE_KEYS = (
    "state_dict_ema",  # timm
    "model_ema",  # torchvision, VideoMAE
    "ema",  # the YOLO family
    "ema_state_dict",
    "ema_model",
    "ema_state",
    "model_ema_state_dict",
    "model_state_dict_ema",
    "ema_model_state_dict",
    "ema_shadow",
)

# The keys within such an average that hold its tensors, where it is not itself a state dict.
_INNER_KEYS = ("module", "model", "state_dict", "shadow", "ema_model")

# Trainers that save the average as the model and the raw weights under another key. Each pair is
# the key by which such a file is recognized, and the key of its raw weights.
_SWAPPED = (
    ("current_model_state", "current_model_state"),  # Lightning
    ("message_hub", "ema_state_dict"),  # MMEngine
)

# The name of a model's CLS token in any format; group 1 is the prefix of that model's names.
_CLS_TOKEN = re.compile(
    r"((?:.*?\.)??)(?:timesformer\.embeddings\.|embeddings\.|backbone\.)?cls_token", re.DOTALL
)
_AVERAGED_NAME = re.compile(r"(?:^|[._])(?:ema|averaged?|swa|shadow)(?:[._]|$)")

_T = TypeVar("_T")


@dataclass(frozen=True)
class WeightSet:
    """All weights of one model.

    Attributes:
        tensors: The tensors, by name.
        where: The key or prefix of the tensors in the file; empty for tensors without one.
        is_averaged: True for an average over training steps.
    """

    tensors: Mapping[str, Any]
    where: str = ""
    is_averaged: bool = False


def weight_sets(tree: object) -> list[WeightSet]:
    """Finds the sets of weights in the contents of a file.

    Returns:
        At most two sets: first the one that the trainer saved as the model, then the other.
    """
    keys = tree if isinstance(tree, dict) else {}
    models = [WeightSet(found, key) for key in MODEL_KEYS if (found := _tensors(keys.get(key)))]
    averages = [
        WeightSet(found, key, is_averaged=True)
        for key in _AVERAGE_KEYS
        if (found := _tensors(keys.get(key), _INNER_KEYS))
    ]
    for mark, key in _SWAPPED:
        if mark in keys and models and (raw := _tensors(keys.get(key))):
            return [
                WeightSet(models[0].tensors, models[0].where, is_averaged=True),
                WeightSet(raw, key),
            ]
    found = _tensors(tree)
    if not models and found and (not averages or _is_model(found)):
        models = [WeightSet(found)]
    return [*models[:1], *averages[:1]]


def split_by_model(tensors: Mapping[str, _T], name: str) -> list[WeightSet]:
    """Splits a state dict that holds a model and its average under different prefixes.

    Args:
        tensors: The tensors, or anything else, by the names in the file.
        name: The name of the checkpoint, for messages.

    Raises:
        InvalidCheckpointError: The state dict holds several models that are not one model and its
            average.
    """
    prefixes = {match[1] for key in tensors if (match := _CLS_TOKEN.fullmatch(key))}
    if len(prefixes) < 2:
        return [WeightSet(tensors)]
    sets = []
    for prefix in sorted(prefixes):
        others = tuple(other for other in prefixes if other.startswith(prefix) and other != prefix)
        own = {
            key: value
            for key, value in tensors.items()
            if key.startswith(prefix) and not key.startswith(others)
        }
        where = printable(prefix.rstrip(".")[:100])
        sets.append(WeightSet(own, where, is_averaged=bool(_AVERAGED_NAME.search(prefix))))
    sets.sort(key=lambda found: found.is_averaged)
    if [found.is_averaged for found in sets] != [False, True]:
        raise InvalidCheckpointError(
            f"{name} holds several models ({listed(repr(found.where) for found in sets)}); "
            "save the state dict of the one that is meant by itself"
        )
    return sets


def choose(sets: list[WeightSet], wanted: str | None, name: str) -> tuple[WeightSet, list[str]]:
    """Chooses the set of weights that the user wants.

    Args:
        sets: The sets of the checkpoint, from ``weight_sets`` or ``split_by_model``.
        wanted: "raw" or "ema"; None for the first set.
        name: The name of the checkpoint, for messages.

    Returns:
        The set, and a sentence for the user where there was a choice or the set is averaged.

    Raises:
        InvalidOptionError: The checkpoint does not have the wanted set.
    """
    average = {"raw": False, "ema": True}.get(wanted or "", sets[0].is_averaged)
    chosen = next((found for found in sets if found.is_averaged == average), None)
    if chosen is None:
        has = "averaged (EMA) weights" if sets[0].is_averaged else "weights that are not averaged"
        raise InvalidOptionError(
            f"`weights` is {wanted!r}, but {name} has only {has}"
            f"{f' ({sets[0].where})' if sets[0].where else ''}; leave the option out"
        )
    if len(sets) == 1:
        only = (
            f"The checkpoint has averaged (EMA) weights only ({chosen.where}): they were exported."
        )
        return chosen, [only] if average else []
    taken, other = (_described(found) for found in (chosen, *(s for s in sets if s is not chosen)))
    left = "raw" if average else "ema"
    return chosen, [f"The {taken} were exported; `weights={left}` exports the {other}."]


def _described(found: WeightSet) -> str:
    kind = "averaged (EMA) weights" if found.is_averaged else "raw weights"
    return f"{kind} ({found.where or 'those without a prefix'})"


def _tensors(value: object, inner: tuple[str, ...] = ()) -> dict[str, StoredTensor]:
    """The tensors of a state dict or a whole model, which may be under an ``inner`` key."""
    values = [value]
    if isinstance(value, dict):
        values += [value[key] for key in inner if key in value]
    return max((dict(_named_tensors(value)) for value in values), key=len)


def _named_tensors(value: object) -> Iterator[tuple[str, StoredTensor]]:
    if isinstance(value, dict):
        yield from ((str(k), v) for k, v in value.items() if isinstance(v, StoredTensor))
    elif isinstance(value, SavedObject) and _is_model(found := module_tensors(value)):
        yield from found.items()


def _is_model(tensors: Mapping[str, Any]) -> bool:
    return any(_CLS_TOKEN.fullmatch(name) for name in tensors)
