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
        return [pipeline.input.pictures(frame)[0] for frame in converted]

    return frames
