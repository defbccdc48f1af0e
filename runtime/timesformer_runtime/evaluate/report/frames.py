"""The frames that a model saw of a video, as pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from timesformer_runtime.pipeline import Pipeline

Frame: TypeAlias = npt.NDArray[np.uint8]  # RGB, [h, w, 3]
FramesOf: TypeAlias = Callable[[Mapping[str, Any]], Sequence[Frame]]


def frames_seen(pipeline: Pipeline) -> FramesOf:
    """Makes a function that reads the frames of a video again.

    Args:
        pipeline: Reads videos as the evaluation did.

    Returns:
        A function that takes the line of a video in ``results.jsonl``, and returns the frames of
        its first view, resized and cropped as for the model, in RGB. Frames for a graph that crops
        them itself are whole.
    """

    def frames(line: Mapping[str, Any]) -> list[Frame]:
        converted = pipeline.read(line["path"]).frames[: pipeline.input.num_frames]
        return [_picture(frame, pipeline) for frame in converted]

    return frames


def _picture(converted: npt.NDArray[Any], pipeline: Pipeline) -> Frame:
    """Turns a frame of ``ModelInput.convert`` into a picture of its first crop."""
    pixels = converted if converted.ndim == 3 else converted[0].transpose(1, 2, 0)
    preprocessing = pipeline.model.preprocessing
    if pixels.dtype != np.uint8 and preprocessing is not None:  # normalised, as by the authors
        levels = (pixels * preprocessing.image_std + preprocessing.image_mean) * 255
        pixels = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    if pipeline.views.channel_order == "bgr":
        pixels = pixels[..., ::-1]
    return np.ascontiguousarray(pixels)
