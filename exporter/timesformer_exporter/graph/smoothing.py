"""SmoothQuant (arXiv 2211.10438): outlier channels move from activations into weights.

An int8 activation has one scale for all its channels, so a channel that is much larger than the
others leaves them few levels. Behind a LayerNorm each channel can be divided by a factor that the
LayerNorm's affine part absorbs, and the next weights are multiplied by it: the same function.
The factors are powers of two, so that even float results stay the same bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from timesformer_exporter.model.timesformer import (
    DividedLayer,
    Layer,
    TimesformerForVideoClassification,
)

# Which share of a channel's range goes into the weights: the paper's choice, the best here, too.
STRENGTH = 0.5


def smoothed_products(
    model: TimesformerForVideoClassification,
) -> Iterator[tuple[nn.LayerNorm, nn.Linear]]:
    """Every LayerNorm whose output feeds one matrix product and nothing else, with the latter.

    Queries, keys and values are one packed product, so they share their factors.
    """
    for layer in model.timesformer.encoder.layer:
        assert isinstance(layer, Layer)  # noqa: S101 (narrows the type)
        yield layer.layernorm_before, layer.attention.attention.qkv
        yield layer.layernorm_after, layer.intermediate.dense
        if isinstance(layer, DividedLayer):
            yield layer.temporal_layernorm, layer.temporal_attention.attention.qkv


class ChannelPeaks:
    """The largest absolute value that each channel has behind each LayerNorm.

    Attributes:
        peaks: For each LayerNorm of ``smoothed_products`` that ran while it was watched, [D].
    """

    def __init__(self, model: TimesformerForVideoClassification) -> None:
        self.peaks: dict[nn.LayerNorm, Tensor] = {}
        self._norms = [norm for norm, _ in smoothed_products(model)]

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Takes in all that the model runs meanwhile."""
        hooks = [norm.register_forward_hook(self._take) for norm in self._norms]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _take(self, norm: nn.Module, _inputs: object, output: Tensor) -> None:
        assert isinstance(norm, nn.LayerNorm)  # noqa: S101 (narrows the type)
        peaks = output.detach().abs().flatten(0, -2).amax(dim=0)
        self.peaks[norm] = torch.maximum(self.peaks[norm], peaks) if norm in self.peaks else peaks


@torch.no_grad()
def smooth(
    model: TimesformerForVideoClassification, found: ChannelPeaks, strength: float = STRENGTH
) -> None:
    """Moves the channels' ranges from activations into weights, in place; outputs stay as they are.

    Args:
        model: The loaded model.
        found: Its peaks, of at least one clip.
        strength: From 0 (all of the range stays in the activations) to 1.
    """
    for norm, product in smoothed_products(model):
        factors = _factors(found.peaks[norm], product.weight, strength)
        norm.weight.div_(factors)
        norm.bias.div_(factors)
        product.weight.mul_(factors)


def _factors(peaks: Tensor, weight: Tensor, strength: float) -> Tensor:
    """Powers of two [D] around 1; 1 for channels that are always zero, or never used."""
    used = weight.abs().amax(dim=0)
    live = (peaks > 0) & (used > 0)
    exponents = strength * torch.log2(peaks) - (1 - strength) * torch.log2(used)
    exponents = torch.where(live, exponents, torch.nan)
    exponents = (exponents - exponents.nanmedian()).round().nan_to_num(nan=0.0)
    return torch.exp2(exponents)
