"""Moves outlier channels from activations into weights: SmoothQuant (arXiv 2211.10438).

An int8 activation has one scale for all its channels, so a channel that is much larger than the
others leaves few levels to them. After a LayerNorm, each channel can be divided by a factor: the
LayerNorm's affine weights take the division, and the weights of the next product are multiplied by
the factor. The model still computes the same function. The factors are powers of two, so that even
float results stay equal bit for bit.
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

# The exponent alpha of the paper: 0 leaves a channel's whole range in the activations, 1 moves all
# of it into the weights. The paper's choice, 0.5, is the best one for TimeSformer, too.
STRENGTH = 0.5


def smoothed_products(
    model: TimesformerForVideoClassification,
) -> Iterator[tuple[nn.LayerNorm, nn.Linear]]:
    """Yields every LayerNorm whose output feeds only one matrix product, with that product.

    Queries, keys and values are one packed product, so they share their factors.
    """
    for layer in model.timesformer.encoder.layer:
        assert isinstance(layer, Layer)  # noqa: S101 (narrows the type)
        yield layer.layernorm_before, layer.attention.attention.qkv
        yield layer.layernorm_after, layer.intermediate.dense
        if isinstance(layer, DividedLayer):
            yield layer.temporal_layernorm, layer.temporal_attention.attention.qkv


class ChannelPeaks:
    """Records the largest absolute value of each channel after each LayerNorm.

    Attributes:
        peaks: The largest values [D] for each LayerNorm of ``smoothed_products`` that ran while
            ``watching`` was entered.
    """

    def __init__(self, model: TimesformerForVideoClassification) -> None:
        self.peaks: dict[nn.LayerNorm, Tensor] = {}
        self._norms = [norm for norm, _ in smoothed_products(model)]

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Records all runs of the model in the block."""
        hooks = [norm.register_forward_hook(self._record) for norm in self._norms]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _record(self, norm: nn.Module, _inputs: object, output: Tensor) -> None:
        assert isinstance(norm, nn.LayerNorm)  # noqa: S101 (narrows the type)
        peaks = output.detach().abs().flatten(0, -2).amax(dim=0)
        self.peaks[norm] = torch.maximum(self.peaks[norm], peaks) if norm in self.peaks else peaks


@torch.no_grad()
def smooth(
    model: TimesformerForVideoClassification, recorded: ChannelPeaks, strength: float = STRENGTH
) -> None:
    """Moves the channels' ranges from activations into weights, in place; outputs stay as they are.

    Args:
        model: The PyTorch model.
        recorded: The model's channel peaks, recorded for at least one clip.
        strength: From 0 (the whole range stays in the activations) to 1 (it moves to the weights).
    """
    for norm, product in smoothed_products(model):
        factors = _factors(recorded.peaks[norm], product.weight, strength)
        norm.weight.div_(factors)
        norm.bias.div_(factors)
        product.weight.mul_(factors)


def _factors(peaks: Tensor, weight: Tensor, strength: float) -> Tensor:
    """Powers of two [D], with a median of about 1; 1 for channels that are always 0 or not used."""
    used = weight.abs().amax(dim=0)
    live = (peaks > 0) & (used > 0)
    exponents = strength * torch.log2(peaks) - (1 - strength) * torch.log2(used)
    exponents = torch.where(live, exponents, torch.nan)
    exponents = (exponents - exponents.nanmedian()).round().nan_to_num(nan=0.0)
    return torch.exp2(exponents)
