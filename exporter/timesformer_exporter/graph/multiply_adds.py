"""Counts the multiply-adds of a model's matrix products, without running it."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from timesformer_exporter.model.attention_rollout import Rollout
from timesformer_exporter.model.config import TimesformerConfig
from timesformer_exporter.model.inference_form import InferenceForm
from timesformer_exporter.model.timesformer import TimesformerForVideoClassification


@dataclass(frozen=True)
class MultiplyAdds:
    """Multiply-adds for one clip.

    The numbers include matrix products, also those of attention, and convolutions. They do not
    include operations that work element by element.

    Attributes:
        original: The multiply-adds of the model as published.
        exported: The multiply-adds of the exported graph.
    """

    original: int
    exported: int


def count_multiply_adds(
    config: TimesformerConfig, task: str, *, rewritten: bool, rollout: Rollout | None = None
) -> MultiplyAdds:
    """Counts the multiply-adds of a model and of its graph.

    Args:
        config: The model's configuration.
        task: ``video-classification`` or ``feature-extraction``.
        rewritten: True where the graph is the inference form, False where it is the model itself.
        rollout: The graph's attention rollout; None where the graph has none.
    """
    with torch.device("meta"):
        model = TimesformerForVideoClassification(config).eval()
        original = _count(model, config)
        exported = original
        if rewritten:
            exported = _count(InferenceForm(model, task, rollout=rollout), config)
    return MultiplyAdds(original, exported)


def _count(module: nn.Module, config: TimesformerConfig) -> int:
    clip = torch.zeros(1, config.num_frames, config.num_channels, *config.image_hw, device="meta")
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        module(clip)
    return int(counter.get_total_flops()) // 2
