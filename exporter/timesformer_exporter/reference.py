"""PyTorch's answers to generated clips: what an ONNX file is compared with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from timesformer_runtime.golden import golden_frames
from timesformer_runtime.preprocess import Preprocessing

from timesformer_exporter.fidelity import BATCHES, Array
from timesformer_exporter.metadata import GOLDEN_SEED
from timesformer_exporter.trace import TracedModel

# The outputs of all clips are held at once, and the attentions of a large model would not fit.
_MOST_BYTES = 2_000_000_000


@dataclasses.dataclass(frozen=True)
class Reference:
    """Clips, and PyTorch's outputs for them.

    Attributes:
        frames: uint8 [clips, T, H, W, 3], as decoded.
        pixel_values: float32 [clips, T, C, h, w], preprocessed by the runtime.
        outputs: By name; float32, the first axis is the clip, or begins with it.
    """

    frames: Array
    pixel_values: Array
    outputs: dict[str, Array]

    @property
    def batches(self) -> tuple[int, ...]:
        """The batch sizes that these clips are enough for."""
        return tuple(batch for batch in BATCHES if batch <= len(self.frames))


def compute_reference(
    module: TracedModel,
    preprocessing: Preprocessing,
    frame_size: tuple[int, int],
    *,
    clips: int = max(BATCHES),
    on_clip: Callable[[int, int], None] = lambda _number, _clips: None,
) -> Reference:
    """Runs PyTorch on golden clips, one at a time.

    Args:
        module: The model as loaded, taking ``pixel_values``.
        preprocessing: The model's preprocessing.
        frame_size: Height and width of the generated frames.
        clips: How many clips; only two where the outputs of more would take over 2 GB.
        on_clip: Is called with the clip's number, from 1, and their count, before each clip.
    """
    shape = (module.model.config.num_frames, *frame_size, 3)
    frames: list[Array] = []
    pixel_values: list[Array] = []
    outputs: list[list[Array]] = []
    while len(frames) < clips:
        on_clip(len(frames) + 1, clips)
        frames.append(golden_frames(GOLDEN_SEED + len(frames), shape))
        pixel_values.append(preprocessing(frames[-1]))
        outputs.append(_run(module, pixel_values[-1]))
        if sum(output.nbytes for output in outputs[0]) * clips > _MOST_BYTES:
            clips = min(clips, 2)
    return Reference(
        np.stack(frames),
        np.stack(pixel_values),
        {
            name: np.concatenate(parts)
            for name, parts in zip(module.output_names, zip(*outputs, strict=True), strict=True)
        },
    )


@torch.inference_mode()
def _run(module: TracedModel, pixel_values: Array) -> list[Array]:
    return [output.numpy() for output in module(torch.from_numpy(pixel_values[None]))]
