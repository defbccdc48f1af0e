"""Finds the tensors of a model that ``torch.save(model)`` saved whole, without running its code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from timesformer_exporter.checkpoints.inert_pickle import SavedObject, StoredTensor

# A model of 500 layers has 10,000 modules, and names of 60 characters.
_MOST_MODULES = 100_000
_LONGEST_NAME = 500


def module_tensors(model: SavedObject) -> dict[str, StoredTensor]:
    """The parameters and buffers that the model's ``state_dict()`` would have.

    Raises:
        ValueError: The model has more modules, or longer names, than any real model.
    """
    tensors = {}
    for prefix, attributes in _modules(model):
        left_out = attributes.get("_non_persistent_buffers_set")
        for kind in ("_parameters", "_buffers"):
            for name, value in _mapping(attributes.get(kind)).items():
                is_left_out = isinstance(left_out, list) and name in left_out
                if isinstance(value, StoredTensor) and not is_left_out:
                    tensors[_joined(prefix, name)] = value
    return tensors


def module_config(model: SavedObject) -> dict[str, Any] | None:
    """The plain values of the model's Hugging Face configuration; None if it has none."""
    for _, attributes in _modules(model):
        config = attributes.get("config")
        if isinstance(config, SavedObject) and str(config.type).endswith(" TimesformerConfig"):
            return {key: value for key, value in _attributes(config).items() if _is_plain(value)}
    return None


def _modules(model: SavedObject) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields the name, ending with a dot, and the attributes of every module in a model."""
    pending = [("", model)]
    count = 0
    while pending:
        count += 1
        if count > _MOST_MODULES:
            raise ValueError(f"its model has more than {_MOST_MODULES:,} modules")
        prefix, module = pending.pop()
        attributes = _attributes(module)
        yield prefix, attributes
        for name, child in _mapping(attributes.get("_modules")).items():
            if isinstance(child, SavedObject):
                pending.append((f"{_joined(prefix, name)}.", child))


def _attributes(saved: SavedObject) -> Mapping[str, Any]:
    return _mapping(saved.state)


def _mapping(value: object) -> Mapping[str, Any]:
    """The value if it is a dict whose keys are strings; else an empty one."""
    return value if isinstance(value, dict) and all(isinstance(key, str) for key in value) else {}


def _joined(prefix: str, name: str) -> str:
    if len(prefix) + len(name) > _LONGEST_NAME:
        raise ValueError(f"its model has names of more than {_LONGEST_NAME} characters")
    return prefix + name


def _is_plain(value: object) -> bool:
    """True for a plain value, a list of plain values, or a dict of strings such as the labels."""
    if isinstance(value, dict):
        return all(isinstance(label, str) for label in value.values())
    items = value if isinstance(value, list | tuple) else [value]
    return all(item is None or isinstance(item, str | int | float) for item in items)
