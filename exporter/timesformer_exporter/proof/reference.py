"""Runs PyTorch on generated clips; the fidelity check compares a graph with its outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from timesformer_runtime.input.preprocess import Preprocessing
from timesformer_runtime.model.agreement import Array
from timesformer_runtime.model.golden import golden_frames

from timesformer_exporter.graph.metadata import GOLDEN_SEED
from timesformer_exporter.graph.trace import TracedModel
from timesformer_exporter.model.config import TimesformerConfig
from timesformer_exporter.proof.fidelity import BATCHES

# Limit of the outputs of all clips, which are in memory at once: with attentions they can be huge.
_MOST_BYTES = 2_000_000_000


@dataclasses.dataclass(frozen=True)
class Reference:
    """Clips, and PyTorch's outputs for them.

    Attributes:
        frames: uint8 [T, H, W, 3] for each clip, as decoded.
        pixel_values: float32 [T, C, h, w] for each clip, preprocessed by the runtime.
        outputs: PyTorch's outputs by name, float32. The first axis is the clip, or the clip and
            something within it (frames, patches), clip-major.
    """

    frames: tuple[Array, ...]
    pixel_values: tuple[Array, ...]
    outputs: dict[str, Array]

    @property
    def batches(self) -> tuple[int, ...]:
        """The batch sizes of the fidelity check for which there are enough clips."""
        return tuple(batch for batch in BATCHES if batch <= len(self.frames))


def native_size(preprocessing: Preprocessing, config: TimesformerConfig) -> tuple[int, int]:
    """Height and width of a frame that the preprocessing does not resize."""
    if not preprocessing.do_resize:
        return config.image_hw
    size = preprocessing.size
    return (size, size) if isinstance(size, int) else size


def golden_clips(first: int, count: int, num_frames: int, size: tuple[int, int]) -> list[Array]:
    """Generates clips uint8 [T, H, W, 3], each from its own seed."""
    shape = (num_frames, *size, 3)
    return [golden_frames(GOLDEN_SEED + first + number, shape) for number in range(count)]


def compute_reference(
    module: TracedModel,
    preprocessing: Preprocessing,
    clips: Sequence[Array],
    on_clip: Callable[[int, int], None] = lambda _number, _clips: None,
) -> Reference:
    """Runs PyTorch on clips, one at a time.

    Args:
        module: The model without rewrites, which takes ``pixel_values``.
        preprocessing: The model's preprocessing.
        clips: The clips, uint8 [T, H, W, 3] each. Only the first two are used where the outputs of
            all clips would take over 2 GB.
        on_clip: Called with the clip's number, from 1, and the number of clips, before each clip.
    """
    pixel_values: list[Array] = []
    outputs: list[list[Array]] = []
    for number, frames in enumerate(clips, start=1):
        on_clip(number, len(clips))
        pixel_values.append(preprocessing(frames))
        outputs.append(run_clip(module, pixel_values[-1]))
        if number == 2 and sum(output.nbytes for output in outputs[0]) * len(clips) > _MOST_BYTES:
            break
    return Reference(
        tuple(clips[: len(outputs)]),
        tuple(pixel_values),
        {
            name: np.concatenate(parts)
            for name, parts in zip(module.output_names, zip(*outputs, strict=True), strict=True)
        },
    )


@torch.inference_mode()
def run_clip(module: TracedModel, pixel_values: Array) -> list[Array]:
    """Runs PyTorch on a preprocessed clip, float32 [T, C, h, w]; returns an array per output."""
    return [output.numpy() for output in module(torch.from_numpy(pixel_values[None]))]
