"""A model for shot transitions, written as an ONNX graph by hand: it looks at grey levels alone.

Of the steps in mean grey level from frame to frame, the largest, compared with the sum of all,
tells a cut from a dissolve. Where the levels hardly change, the label is ``none``.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

LABELS = ("none", "cut", "dissolve")
FRAMES, SIZE = 8, 16
_SURE = 100.0


def write_shot_model(folder: Path, sure: float = _SURE) -> Path:
    """Writes a folder in the Hub's layout.

    Args:
        folder: The folder.
        sure: The logit of a change of the normalised level by 1.
    """
    (folder / "onnx").mkdir(parents=True)
    onnx.save(_graph(sure), folder / "onnx" / "model.onnx")
    labels = {str(index): label for index, label in enumerate(LABELS)}
    config = {"model_type": "timesformer", "num_frames": FRAMES, "id2label": labels}
    preprocessor = {
        "image_processor_type": "VideoMAEImageProcessor",
        "size": {"shortest_edge": SIZE},
        "crop_size": {"height": SIZE, "width": SIZE},
        "image_mean": [0.0, 0.0, 0.0],
        "image_std": [1.0, 1.0, 1.0],
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def levels_of(
    parts: list[tuple[int, int]], dissolve: int = 0
) -> tuple[npt.NDArray[np.float64], list[int]]:
    """Grey levels of shots that follow one another, and the first frame of each later shot.

    Args:
        parts: The number of frames and the level of each shot.
        dissolve: Frames between two shots in which one level becomes the other.
    """
    levels: list[float] = []
    starts = []
    for number, (count, level) in enumerate(parts):
        if number:
            between = np.linspace(parts[number - 1][1], level, dissolve + 2)[1:-1]
            levels += between.tolist()
            starts.append(len(levels))
        levels += [float(level)] * count
    return np.array(levels), starts


def textured(levels: npt.NDArray[np.float64], side: int = 32) -> npt.NDArray[np.uint8]:
    """Frames uint8 [T, side, side, 3] of these mean levels, with a contrast of a third."""
    pattern = np.where(np.indices((side, side)).sum(axis=0) // 4 % 2, 4 / 3, 2 / 3)
    grey = np.clip(np.round(levels[:, None, None] * pattern), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=3)


def _graph(sure: float) -> onnx.ModelProto:
    constants = {
        "space": np.array([2, 3, 4], np.int64),
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "seven": np.array([FRAMES - 1], np.int64),
        "eight": np.array([FRAMES], np.int64),
        "sure": np.array(sure, np.float32),
        "still": np.array([[0.06 * sure]], np.float32),
        "most": np.array(0.75, np.float32),  # of the sum: a larger single step is a cut
    }
    nodes = [
        helper.make_node("Shape", ["pixel_values"], ["whole_shape"]),
        helper.make_node("Slice", ["whole_shape", "zero", "one", "zero"], ["batch"]),
        helper.make_node("Concat", ["batch", "one"], ["shape"], axis=0),
        helper.make_node("Expand", ["still", "shape"], ["none"]),
        helper.make_node("ReduceMean", ["pixel_values", "space"], ["levels"], keepdims=0),
        helper.make_node("Slice", ["levels", "one", "eight", "one"], ["later"]),
        helper.make_node("Slice", ["levels", "zero", "seven", "one"], ["earlier"]),
        helper.make_node("Sub", ["later", "earlier"], ["differences"]),
        helper.make_node("Abs", ["differences"], ["steps"]),
        helper.make_node("ReduceMax", ["steps", "one"], ["largest"], keepdims=1),
        helper.make_node("ReduceSum", ["steps", "one"], ["sum"], keepdims=1),
        helper.make_node("Mul", ["sum", "sure"], ["change"]),
        helper.make_node("Mul", ["sum", "most"], ["limit"]),
        helper.make_node("Sub", ["largest", "limit"], ["abruptness"]),
        helper.make_node("Mul", ["abruptness", "sure"], ["abrupt"]),
        helper.make_node("Add", ["change", "abrupt"], ["cut"]),
        helper.make_node("Sub", ["change", "abrupt"], ["dissolve"]),
        helper.make_node("Concat", ["none", "cut", "dissolve"], ["logits"], axis=1),
    ]
    shape = ["batch", FRAMES, 3, SIZE, SIZE]
    graph = helper.make_graph(
        nodes,
        "shots",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(LABELS)])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
