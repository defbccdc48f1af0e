"""Names of tensors in three formats, and how each name in a file becomes Hugging Face's.

The formats are Hugging Face's, that of the authors' code (facebookresearch/TimeSformer) and
mmaction2's. This package uses Hugging Face's names. Each table maps the names of another format to
them; ``{i}`` stands for the index of a layer.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from timesformer_exporter.errors import InvalidCheckpointError

_EMBEDDINGS = "timesformer.embeddings."
_LAYER = "timesformer.encoder.layer.{i}."

# Modules that have a weight and mostly a bias.
_FACEBOOK_MODULES = {
    "patch_embed.proj": _EMBEDDINGS + "patch_embeddings.projection",
    "blocks.{i}.norm1": _LAYER + "layernorm_before",
    "blocks.{i}.attn.qkv": _LAYER + "attention.attention.qkv",
    "blocks.{i}.attn.proj": _LAYER + "attention.output.dense",
    "blocks.{i}.temporal_norm1": _LAYER + "temporal_layernorm",
    "blocks.{i}.temporal_attn.qkv": _LAYER + "temporal_attention.attention.qkv",
    "blocks.{i}.temporal_attn.proj": _LAYER + "temporal_attention.output.dense",
    "blocks.{i}.temporal_fc": _LAYER + "temporal_dense",
    "blocks.{i}.norm2": _LAYER + "layernorm_after",
    "blocks.{i}.mlp.fc1": _LAYER + "intermediate.dense",
    "blocks.{i}.mlp.fc2": _LAYER + "output.dense",
    "norm": "timesformer.layernorm",
    "head": "classifier",
}

_MMACTION2 = "backbone.transformer_layers.layers.{i}."

_MMACTION2_SHARED_MODULES = {
    "backbone.patch_embed.projection": _EMBEDDINGS + "patch_embeddings.projection",
    _MMACTION2 + "ffns.0.layers.0.0": _LAYER + "intermediate.dense",
    _MMACTION2 + "ffns.0.layers.1": _LAYER + "output.dense",
    "backbone.norm": "timesformer.layernorm",
    "cls_head.fc_cls": "classifier",
}

# Divided attention: attentions.0 looks at time, attentions.1 at space.
_MMACTION2_DIVIDED_MODULES = {
    **_MMACTION2_SHARED_MODULES,
    _MMACTION2 + "attentions.0.norm": _LAYER + "temporal_layernorm",
    _MMACTION2 + "attentions.0.attn.out_proj": _LAYER + "temporal_attention.output.dense",
    _MMACTION2 + "attentions.0.temporal_fc": _LAYER + "temporal_dense",
    _MMACTION2 + "attentions.1.norm": _LAYER + "layernorm_before",
    _MMACTION2 + "attentions.1.attn.out_proj": _LAYER + "attention.output.dense",
    _MMACTION2 + "ffns.0.norm": _LAYER + "layernorm_after",
}

_MMACTION2_UNDIVIDED_MODULES = {
    **_MMACTION2_SHARED_MODULES,
    _MMACTION2 + "norms.0": _LAYER + "layernorm_before",
    _MMACTION2 + "attentions.0.attn.out_proj": _LAYER + "attention.output.dense",
    _MMACTION2 + "norms.1": _LAYER + "layernorm_after",
}


def _parameters(prefix: str) -> dict[str, str]:
    return {
        prefix + "cls_token": _EMBEDDINGS + "cls_token",
        prefix + "pos_embed": _EMBEDDINGS + "position_embeddings",
        prefix + "time_embed": _EMBEDDINGS + "time_embeddings",
    }


def _packed(huggingface_by_mmaction2: Mapping[str, str]) -> dict[str, str]:
    """Maps the packed q, k, v of ``nn.MultiheadAttention``; Hugging Face packs in equal order."""
    return {
        f"{_MMACTION2}{theirs}.attn.in_proj_{kind}": f"{_LAYER}{huggingface}.attention.qkv.{kind}"
        for theirs, huggingface in huggingface_by_mmaction2.items()
        for kind in ("weight", "bias")
    }


def _table(modules: Mapping[str, str], parameters: Mapping[str, str]) -> dict[str, str]:
    both = {
        f"{theirs}.{kind}": f"{huggingface}.{kind}"
        for theirs, huggingface in modules.items()
        for kind in ("weight", "bias")
    }
    return both | dict(parameters)


_FACEBOOK = _table(_FACEBOOK_MODULES, _parameters(""))
_MMACTION2_DIVIDED = _table(
    _MMACTION2_DIVIDED_MODULES,
    _parameters("backbone.")
    | _packed({"attentions.0": "temporal_attention", "attentions.1": "attention"}),
)
_MMACTION2_UNDIVIDED = _table(
    _MMACTION2_UNDIVIDED_MODULES,
    _parameters("backbone.") | _packed({"attentions.0": "attention"}),
)


# Parts that wrappers around a module, or around a part of it, add to the names of its tensors.
_WRAPPERS = frozenset(
    (
        "module",  # DataParallel, DistributedDataParallel, AveragedModel
        "_orig_mod",  # torch.compile
        "_checkpoint_wrapped_module",  # activation checkpointing
        "_fsdp_wrapped_module",
        "_forward_module",  # Lightning Fabric
        "base_layer",  # PEFT
    )
)
_PEFT_COPY = re.compile(r"(?<=\.)modules_to_save\.[^.]+\.")  # trained in place of the original
_PEFT_ORIGINAL = re.compile(r"(?<=\.)original_module\.")
_PEFT_ADAPTER = re.compile(r"\.lora_\w+(?:\.|$)")

# Parts of the names of tensors that are not the model's: training loops keep those of losses,
# metrics and averages beside the model's tensors.
_BESIDE_MODEL = re.compile(
    r"(?:^|[._])(?:criterion|criteria|loss(?:es|_fn)?|metrics?|acc|accuracy|auroc|f1|n_averaged|ema"
    r"|optimizers?|schedulers?|steps?)(?:[._]|$)"
)


@dataclass(frozen=True)
class KeyMap:
    """Translates names of tensors between one file and Hugging Face's TimeSformer.

    Attributes:
        format: "huggingface", "facebook" or "mmaction2".
        prefix: The text before every name in the file ("module.", "model.", ...).
        table: Names of the format to Hugging Face's, with ``{i}`` for the layer; empty where
            the format is Hugging Face's own.
        base: "timesformer." for a Hugging Face model without a head, whose names lack it; else "".
        originals: The name in the file for each name that ``without_wrappers`` changed.
    """

    format: str
    prefix: str
    table: Mapping[str, str]
    base: str = ""
    originals: Mapping[str, str] = field(default_factory=dict)

    def to_huggingface(self, name: str) -> str | None:
        """Hugging Face's name for a name in the file; None where Hugging Face has none."""
        if not name.startswith(self.prefix):
            return None
        name = name.removeprefix(self.prefix)
        if self.format == "huggingface":
            return name if name.startswith("classifier.") else self.base + name
        return _rename(name, self.table)

    def in_file(self, name: str) -> str:
        """The file's name for a name of Hugging Face's."""
        if self.format == "huggingface":
            plain = self.prefix + name.removeprefix(self.base)
        else:
            plain = self.prefix + (_rename(name, self._table_from_huggingface) or name)
        return self.originals.get(plain, plain)

    def is_beside_model(self, name: str) -> bool:
        """True for the name of a tensor that a training loop keeps beside the model's."""
        is_under = name.startswith(self.prefix)
        return not is_under or bool(_BESIDE_MODEL.search(name.removeprefix(self.prefix)))

    @functools.cached_property
    def _table_from_huggingface(self) -> dict[str, str]:
        return {huggingface: theirs for theirs, huggingface in self.table.items()}


def without_wrappers(names: Iterable[str], where: str) -> dict[str, str]:
    """Takes the parts that wrappers add (``module.``, ``_orig_mod.``, ...) out of names.

    Args:
        names: The names of the tensors in a file.
        where: The name of the file, for messages.

    Returns:
        The name in the file for each name without those parts.

    Raises:
        InvalidCheckpointError: Two names become the same, or the file has unmerged adapters.
    """
    names = list(names)
    adapter = next((name for name in names if _PEFT_ADAPTER.search(name)), None)
    if adapter is not None:
        raise InvalidCheckpointError(
            f"{where} has LoRA adapters beside the weights that they change "
            f"({adapter[:200]}), and not the scale to merge them by; save "
            "model.merge_and_unload().state_dict(), or give the folder that PEFT's "
            "model.save_pretrained(FOLDER) writes"
        )
    has_copies = any(_PEFT_COPY.search(name) for name in names)
    found: dict[str, str] = {}
    for name in names:
        if has_copies and _PEFT_ORIGINAL.search(name):
            continue
        plain = _PEFT_ORIGINAL.sub("", _PEFT_COPY.sub("", name))
        plain = ".".join(part for part in plain.split(".") if part not in _WRAPPERS)
        if plain in found:
            raise InvalidCheckpointError(
                f"{where} has two tensors for {plain[:200]}, one of them "
                f"{name[:200]}; save the state dict of one model"
            )
        found[plain] = name
    return found


def recognize(originals: Mapping[str, str]) -> KeyMap | None:
    """Tells the format of a file from the names of its tensors; None if none is a TimeSformer's.

    The name of the CLS token, which every TimeSformer has, tells the format and the prefix.

    Args:
        originals: The names in the file, as ``without_wrappers`` returned them.
    """
    changed = {plain: name for plain, name in originals.items() if plain != name}
    names = sorted(originals, key=len)
    for ending, base in (
        ("timesformer.embeddings.cls_token", ""),
        ("embeddings.cls_token", "timesformer."),
    ):
        if (prefix := _prefix_before(ending, names)) is not None:
            return KeyMap("huggingface", prefix, {}, base, changed)
    if any("transformer_layers.layers." in name for name in names):
        prefix = _prefix_before("backbone.cls_token", names)
        divided = any(".attentions.1." in name for name in names)
        table = _MMACTION2_DIVIDED if divided else _MMACTION2_UNDIVIDED
        return None if prefix is None else KeyMap("mmaction2", prefix, table, "", changed)
    prefix = _prefix_before("cls_token", names)
    if prefix is None or not any(name.startswith(f"{prefix}blocks.") for name in names):
        return None
    return KeyMap("facebook", prefix, _FACEBOOK, "", changed)


def _prefix_before(ending: str, names: Iterable[str]) -> str | None:
    """Finds the first name that ends with ``ending`` at a dot; returns the part before it."""
    for name in names:
        prefix = name.removesuffix(ending)
        if prefix != name and (not prefix or prefix.endswith(".")):
            return prefix
    return None


def _rename(name: str, table: Mapping[str, str]) -> str | None:
    """Looks a name up in a table whose names have ``{i}`` in place of a layer's index."""
    layer = re.search(r"(?<=\.)\d+(?=\.)", name)
    if layer is None:
        return table.get(name)
    renamed = table.get(f"{name[: layer.start()]}{{i}}{name[layer.end() :]}")
    return None if renamed is None else renamed.replace("{i}", layer.group())
