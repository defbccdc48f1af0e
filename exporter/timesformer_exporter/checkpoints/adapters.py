"""Merges plain LoRA adapters of PEFT into the weights of their base model."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timesformer_runtime.errors import printable
from torch import Tensor

from timesformer_exporter.checkpoints.files import read_json
from timesformer_exporter.errors import InvalidCheckpointError

_PREFIX = "base_model.model."
_HEAD = "classifier."

# Settings with which the adapter does more than W + scale * B @ A, unless they are empty.
_BEYOND_LORA = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "megatron_config",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
)
# Values of init_lora_weights that leave the base model's weights as they are; others change them.
_INITIALIZATIONS = (True, False, None, "gaussian", "eva")


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter.

    Attributes:
        name: The name of the adapter's folder, for messages.
        base: The Hub id or path of the base model, whose weights the adapter changes.
        revision: The revision of the base model on the Hub; None for the newest.
        settings: The contents of ``adapter_config.json``.
    """

    name: str
    base: str
    revision: str | None
    settings: Mapping[str, Any]

    def merge(
        self, weights: Mapping[str, Tensor], factors: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Adds the adapter to the base model's weights.

        Args:
            weights: The base model's weights, by Hugging Face's names.
            factors: The adapter's tensors, by the names in its file: A and B of each weight, and
                weights that were trained as a whole, such as the head.

        Returns:
            The merged weights, by Hugging Face's names.

        Raises:
            InvalidCheckpointError: The adapter is not for that model, or not plain LoRA.
        """
        merged = dict(weights)
        for name, tensor in factors.items():
            path, _, kind = name.removeprefix(_PREFIX).partition(".lora_")
            target = f"{path}.weight" if kind else path.replace(".base_layer.", ".")
            if f"timesformer.{target}" in weights:  # an adapter of the model without its head
                target = f"timesformer.{target}"
            if kind == "A.weight":
                factor_b = factors.get(name.replace(".lora_A.", ".lora_B."))
                merged[target] = self._add(target, weights.get(target), tensor, factor_b)
            elif not kind and (target in weights or target.startswith(_HEAD)):
                merged[target] = tensor  # trained as a whole
            elif kind != "B.weight" or name.replace(".lora_B.", ".lora_A.") not in factors:
                raise _not_plain(self.name, f"has a tensor {name[:200]}")
        return merged

    def _add(self, target: str, weight: Tensor | None, a: Tensor, b: Tensor | None) -> Tensor:
        """Computes ``W + scale * B @ A``; a convolution's A ends with the axes of the kernel."""
        transposed = bool(self.settings.get("fan_in_fan_out"))
        if weight is not None and b is not None and min(weight.ndim, a.ndim, b.ndim) > 1:
            a, b = a.flatten(1).float(), b.flatten(1).float()
            shape = (a.shape[1], len(b)) if transposed else (len(b), a.shape[1])
            if shape == weight.flatten(1).shape and b.shape[1] == len(a):
                change = b @ a * self._scale(target, len(a))
                return weight.float() + (change.T if transposed else change).reshape(weight.shape)
        raise _not_plain(self.name, f"does not fit its base model {self.base} at {target[:200]}")

    def _scale(self, target: str, rank: int) -> float:
        """The scale of ``B @ A`` for one weight: alpha / rank, or alpha / sqrt(rank) for rsLoRA."""
        alpha = self.settings.get("lora_alpha")
        patterns = self.settings.get("alpha_pattern") or {}
        for pattern, value in patterns.items() if isinstance(patterns, dict) else ():
            if not re.fullmatch(r"[\w.]+", pattern):  # PEFT takes regular expressions, too
                raise _not_plain(self.name, f"has the alpha_pattern {printable(pattern[:200])!r}")
            if f".{target}".endswith(f".{pattern}.weight"):
                alpha = value
                break
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not rank:
            raise _not_plain(self.name, f"has rank {rank} and an alpha that is not a number")
        return alpha / (math.sqrt(rank) if self.settings.get("use_rslora") else rank)


def read_adapter(path: Path, name: str) -> Adapter:
    """Reads an ``adapter_config.json``.

    Raises:
        InvalidCheckpointError: The file is broken or does not name a base model, or the adapter is
            not plain LoRA.
    """
    settings = read_json(path)
    base, revision = settings.get("base_model_name_or_path"), settings.get("revision")
    if not isinstance(base, str) or not base or not isinstance(revision, str | None):
        raise InvalidCheckpointError(
            f"{path} does not name the adapter's base model; set base_model_name_or_path to it"
        )
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise _not_plain(name, f"is of the kind {str(kind)[:50]!r}")
    beyond = [setting for setting in _BEYOND_LORA if settings.get(setting)]
    initialization = settings.get("init_lora_weights")
    if not any(initialization is known or initialization == known for known in _INITIALIZATIONS):
        beyond.append("init_lora_weights")
    if beyond:
        raise _not_plain(name, f"uses {', '.join(beyond)}")
    return Adapter(name, printable(base[:500]), revision, settings)


def _not_plain(name: str, what: str) -> InvalidCheckpointError:
    return InvalidCheckpointError(
        f"the adapter {name} {what}, and only plain LoRA is merged here; merge it with PEFT's "
        "model.merge_and_unload() and give what save_pretrained(FOLDER) then writes"
    )
