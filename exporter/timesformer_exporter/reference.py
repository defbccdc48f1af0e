"""PyTorch's answers to clips: what an ONNX file is compared with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from timesformer_runtime.agreement import Array
from timesformer_runtime.golden import golden_frames
from timesformer_runtime.preprocess import Preprocessing

from timesformer_exporter.config import TimesformerConfig
from timesformer_exporter.fidelity import BATCHES
from timesformer_exporter.metadata import GOLDEN_SEED
from timesformer_exporter.trace import TracedModel

# The outputs of all clips are held at once, and the attentions of a large model would not fit.
_MOST_BYTES = 2_000_000_000


@dataclasses.dataclass(frozen=True)
class Reference:
    """Clips, and PyTorch's outputs for them.

    Attributes:
        frames: uint8 [T, H, W, 3] for each clip, as decoded.
        pixel_values: float32 [T, C, h, w] for each clip, preprocessed by the runtime.
        outputs: By name; float32, the first axis is the clip, or begins with it.
    """

    frames: tuple[Array, ...]
    pixel_values: tuple[Array, ...]
    outputs: dict[str, Array]

    @property
    def batches(self) -> tuple[int, ...]:
        """The batch sizes that these clips are enough for."""
        return tuple(batch for batch in BATCHES if batch <= len(self.frames))


def native_size(preprocessing: Preprocessing, config: TimesformerConfig) -> tuple[int, int]:
    """Height and width of a frame that the preprocessing does not resize."""
    if not preprocessing.do_resize:
        return config.image_hw
    size = preprocessing.size
    return (size, size) if isinstance(size, int) else size


def golden_clips(first: int, count: int, num_frames: int, size: tuple[int, int]) -> list[Array]:
    """Generated clips uint8 [T, H, W, 3], each of its own seed."""
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
        module: The model as loaded, taking ``pixel_values``.
        preprocessing: The model's preprocessing.
        clips: uint8 [T, H, W, 3] each. Only the first two are used where the outputs of all
            would take over 2 GB.
        on_clip: Is called with the clip's number, from 1, and their count, before each clip.
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
    """Runs PyTorch on one preprocessed clip, float32 [T, C, h, w]; one array for each output."""
    return [output.numpy() for output in module(torch.from_numpy(pixel_values[None]))]
