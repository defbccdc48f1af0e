"""A model whose attention rollout is the brightness of each patch, so that heat has a known place.

The logits are those of a ``TinyGraph``. A bright square in a video is a peak of the rollout.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.tiny_graphs import FRAMES, SIZE, TinyGraph, model_config, own_metadata

ROWS, COLUMNS = 4, 6
PATCH = (SIZE // ROWS, SIZE // COLUMNS)


def write_bright_model(folder: Path, **fields: Any) -> Path:
    """Writes an exported model with the output ``attention_rollout`` [batch, T, 4, 6]."""
    metadata = own_metadata(config=model_config(patch_size=list(PATCH)))
    graph = dataclasses.replace(TinyGraph(metadata=metadata), **fields)
    model = graph.proto()
    _add_rollout(model, takes_frames=graph.takes_frames)
    (folder / "onnx").mkdir(parents=True)
    onnx.save(model, folder / "onnx" / "model.onnx")
    return folder


def _add_rollout(model: onnx.ModelProto, *, takes_frames: bool) -> None:
    node, constant = helper.make_node, numpy_helper.from_array
    graph = model.graph
    pixels = "floats"
    if takes_frames:  # the square in the middle of 24 x 48 frames
        for name, value in (("from", [0, 12]), ("to", [24, 36]), ("sides", [2, 3])):
            graph.initializer.append(constant(np.array(value), name))
        graph.initializer.append(constant(np.float32(1 / 57), "contrast"))
        graph.node.append(node("Slice", ["floats", "from", "to", "sides"], ["square"]))
        graph.node.append(node("Mul", ["square", "contrast"], ["scaled"]))
        graph.node.append(node("Transpose", ["scaled"], [pixels := "planes"], perm=[0, 1, 4, 2, 3]))
    shape = np.array([-1, FRAMES, 3, ROWS, PATCH[0], COLUMNS, PATCH[1]])
    graph.initializer.append(constant(shape, "patch_shape"))
    graph.initializer.append(constant(np.array([2, 4, 6]), "patch_axes"))
    graph.node.append(node("Reshape", [pixels, "patch_shape"], ["patches"]))
    graph.node.append(node("ReduceMean", ["patches", "patch_axes"], ["brightness"], keepdims=0))
    graph.node.append(node("Exp", ["brightness"], ["attention_rollout"]))
    output = helper.make_tensor_value_info(
        "attention_rollout", TensorProto.FLOAT, ["batch", FRAMES, ROWS, COLUMNS]
    )
    graph.output.append(output)


def frames_with_square(
    count: int, height: int, width: int, top: int, left: int, side: int = 10
) -> npt.NDArray[np.uint8]:
    """Dark frames with one bright square."""
    frames = np.full((count, height, width, 3), 20, dtype=np.uint8)
    frames[:, top : top + side, left : left + side] = 235
    return frames
