"""TimesformerConfig: every field of a Hugging Face TimeSformer ``config.json``, validated."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from timesformer_runtime.errors import InvalidModelError, quoted
from timesformer_runtime.json_object import whole_number
from timesformer_runtime.model.class_names import class_names

from timesformer_exporter.errors import InvalidConfigError

ATTENTION_TYPES = ("divided_space_time", "joint_space_time", "space_only")
ACTIVATIONS = ("gelu", "relu", "selu", "gelu_new")
PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")

_MOST = 1_000_000  # limit of every number: far above all models, so small that no product overflows
_MOST_LAYERS = 512  # building a layer takes milliseconds; the largest transformers have about 100
_POSITIVE_INTEGERS = (
    "num_channels",
    "num_frames",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
)
_PROBABILITIES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate")
_POSITIVE_NUMBERS = ("initializer_range", "layer_norm_eps")


@dataclasses.dataclass(frozen=True)
class TimesformerConfig:
    """The architecture of a TimeSformer and its labels.

    Field names, defaults and meanings are those of ``transformers.TimesformerConfig``;
    ``image_size`` and ``patch_size`` are an int or ``(height, width)`` in pixels.
    ``id2label`` maps class indices 0..C-1 to names; None means a model without a
    classification head.

    Raises:
        InvalidConfigError: A field has a value that no TimeSformer can have.
    """

    image_size: int | tuple[int, int] = 224
    patch_size: int | tuple[int, int] = 16
    num_channels: int = 3
    num_frames: int = 8
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = True
    attention_type: str = "divided_space_time"
    drop_path_rate: float = 0.0
    id2label: Mapping[int, str] | None = None
    problem_type: str | None = None

    def __post_init__(self) -> None:
        for name in _POSITIVE_INTEGERS:
            object.__setattr__(self, name, _positive_integer(name, getattr(self, name)))
        if self.num_hidden_layers > _MOST_LAYERS:
            raise InvalidConfigError(
                f"num_hidden_layers is {self.num_hidden_layers}; it must be at most {_MOST_LAYERS}"
            )
        for name in _PROBABILITIES:
            _check_number(name, getattr(self, name), lowest=0.0, highest=1.0)
        for name in _POSITIVE_NUMBERS:
            _check_number(name, getattr(self, name), lowest=0.0, highest=float(_MOST))
        for name in ("image_size", "patch_size"):
            object.__setattr__(self, name, _size(name, getattr(self, name)))
        if not isinstance(self.qkv_bias, bool):
            raise InvalidConfigError(
                f"qkv_bias is {quoted(self.qkv_bias)}; it must be true or false"
            )
        _check_choice("hidden_act", self.hidden_act, ACTIVATIONS)
        _check_choice("attention_type", self.attention_type, ATTENTION_TYPES)
        if self.problem_type is not None:
            _check_choice("problem_type", self.problem_type, PROBLEM_TYPES)
        object.__setattr__(self, "id2label", _labels({"id2label": self.id2label}))
        self._check_divisions()

    def _check_divisions(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise InvalidConfigError(
                f"hidden_size {self.hidden_size} is not a multiple of "
                f"num_attention_heads {self.num_attention_heads}"
            )
        if 0 in self.grid:
            raise InvalidConfigError(
                f"image_size {self.image_size} is smaller than patch_size {self.patch_size}"
            )

    @property
    def image_hw(self) -> tuple[int, int]:
        """Height and width of a frame, in pixels."""
        return _pair(self.image_size)

    @property
    def patch_hw(self) -> tuple[int, int]:
        """Height and width of a patch, in pixels."""
        return _pair(self.patch_size)

    @property
    def grid(self) -> tuple[int, int]:
        """Number of patches in a column and in a row of a frame."""
        (height, width), (patch_height, patch_width) = self.image_hw, self.patch_hw
        return height // patch_height, width // patch_width

    @property
    def num_patches(self) -> int:
        """Number of patches in a frame."""
        return self.grid[0] * self.grid[1]

    @property
    def num_labels(self) -> int:
        """Number of classes; 0 for a model without a classification head."""
        return 0 if self.id2label is None else len(self.id2label)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Reads the contents of a ``config.json``; keys that are not fields here are ignored.

        Where ``id2label`` is absent, the labels are those of ``label2id``. Where that is absent,
        too, they are ``LABEL_0``, ``LABEL_1``, ...: as many as ``num_labels`` says.

        Raises:
            InvalidConfigError: The configuration is another model's, or a value is not valid.
        """
        model_type = values.get("model_type", "timesformer")
        if not isinstance(model_type, str) or model_type.lower() != "timesformer":
            raise InvalidConfigError(
                f"model_type is {quoted(model_type)}; only 'timesformer' is supported"
            )
        names = {field.name for field in dataclasses.fields(cls)}
        known = {name: value for name, value in values.items() if name in names}
        known["id2label"] = _labels(values)
        if known["id2label"] is None and "num_labels" in values:
            count = _positive_integer("num_labels", values["num_labels"])
            known["id2label"] = {i: f"LABEL_{i}" for i in range(count)}
        return cls(**known)

    def to_dict(self) -> dict[str, Any]:
        """The contents of a ``config.json`` that transformers and transformers.js read."""
        values = dataclasses.asdict(self)
        for name in ("image_size", "patch_size"):
            if isinstance(values[name], tuple):
                values[name] = list(values[name])
        if values["drop_path_rate"] in {0, 1}:
            values["drop_path_rate"] = int(values["drop_path_rate"])  # transformers wants an int
        id2label = values.pop("id2label")
        head = "TimesformerForVideoClassification" if id2label else "TimesformerModel"
        values = {"architectures": [head], "model_type": "timesformer", **values}
        if id2label is not None:
            values["id2label"] = {str(index): label for index, label in id2label.items()}
            values["label2id"] = {label: index for index, label in id2label.items()}
        return values


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _positive_integer(name: str, value: object) -> int:
    whole = whole_number(value)
    if isinstance(whole, bool) or not isinstance(whole, int) or not 1 <= whole <= _MOST:
        raise InvalidConfigError(
            f"{name} is {quoted(value)}; it must be an integer from 1 to {_MOST}"
        )
    return whole


def _check_number(name: str, value: object, *, lowest: float, highest: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidConfigError(f"{name} is {quoted(value)}; it must be a number")
    if not lowest <= value <= highest:  # this refuses NaN, too
        raise InvalidConfigError(
            f"{name} is {quoted(value)}; it must be from {lowest} to {highest}"
        )


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidConfigError(
            f"{name} is {quoted(value)}; it must be one of {', '.join(choices)}"
        )


def _size(name: str, value: object) -> int | tuple[int, int]:
    whole = whole_number(value)
    if isinstance(whole, int) and not isinstance(whole, bool):
        return _positive_integer(name, whole)
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise InvalidConfigError(
            f"{name} is {quoted(value)}; it must be an integer or [height, width]"
        )
    return _positive_integer(name, value[0]), _positive_integer(name, value[1])


def _labels(config: Mapping[str, Any]) -> dict[int, str] | None:
    try:
        names = class_names(config)
    except InvalidModelError as error:
        raise InvalidConfigError(str(error)) from error
    return None if names is None else dict(enumerate(names))
