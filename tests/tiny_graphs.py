"""Tiny video models, written as ONNX graphs by hand; NumPy computes their expected outputs.

``logits = mean(pixels * frame weights over frames, height and width) @ weights + bias``: every
frame counts differently, so a wrong frame, a wrong order or a wrong channel changes the answer.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

LABELS = ("none", "cut", "fade_in", "fade_out")
SIZE = 24
FRAMES = 4


@dataclasses.dataclass(frozen=True)
class TinyGraph:
    """The properties of a graph to write; the defaults are those of timesformer-export."""

    input_name: str = "pixel_values"
    input_type: int = TensorProto.FLOAT
    shape: tuple[int | str, ...] = ("batch", FRAMES, 3, SIZE, SIZE)
    output: str = "logits"
    features: bool = False
    scale: float = 1.0
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def takes_frames(self) -> bool:
        return bool(self.input_type == TensorProto.UINT8)

    def save(self, path: Path, **options: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(self.proto(), path, **options)
        return path

    def proto(self) -> onnx.ModelProto:
        channel_axis = 4 if self.takes_frames else 2
        other_axes = [axis for axis in (1, 2, 3, 4) if axis != channel_axis]
        channels = self.shape[channel_axis]
        channels = channels if isinstance(channels, int) else 3
        constants = {
            "frame_weights": frame_weights()[:, None, None, None],
            "axes": np.array(other_axes, dtype=np.int64),
            "weights": np.resize(class_weights(), (channels, 4)) * np.float32(self.scale),
            "bias": class_bias(),
        }
        nodes = [
            helper.make_node("Cast", [self.input_name], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["floats", "frame_weights"], ["weighted"]),
            helper.make_node("ReduceMean", ["weighted", "axes"], ["means"], keepdims=0),
            helper.make_node("Gemm", ["means", "weights", "bias"], ["answer"]),
            helper.make_node("Cast", ["answer"], [self.output], to=self._float_type),
        ]
        outputs = [helper.make_tensor_value_info(self.output, self._float_type, ["batch", 4])]
        if self.features:
            nodes.append(helper.make_node("Identity", ["means"], ["features"]))
            outputs.append(
                helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", channels])
            )
        graph = helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info(self.input_name, self.input_type, list(self.shape))],
            outputs,
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        helper.set_model_props(model, dict(self.metadata))
        return model

    @property
    def _float_type(self) -> int:
        half = self.input_type == TensorProto.FLOAT16
        return int(TensorProto.FLOAT16 if half else TensorProto.FLOAT)


def frame_weights() -> npt.NDArray[np.float32]:
    return np.array([1.0, -0.5, 2.0, 0.25], dtype=np.float32)


def class_weights() -> npt.NDArray[np.float32]:
    return np.array(
        [[1.0, -2.0, 0.5, 0.0], [0.3, 1.5, -1.0, 0.7], [-0.8, 0.2, 1.1, -1.4]], dtype=np.float32
    )


def class_bias() -> npt.NDArray[np.float32]:
    return np.array([0.1, -0.2, 0.3, 0.0], dtype=np.float32)


def expected_features(model_input: npt.NDArray[Any], channel_axis: int) -> npt.NDArray[np.float64]:
    """Features [3] of one clip [T, ...], in float64; ``channel_axis`` counts in that array."""
    weighted = model_input.astype(np.float64) * frame_weights()[:, None, None, None]
    axes = tuple(axis for axis in range(4) if axis != channel_axis)
    return np.asarray(weighted.mean(axis=axes))


def expected_logits(model_input: npt.NDArray[Any], channel_axis: int) -> npt.NDArray[np.float64]:
    """Logits [4] of one clip [T, ...], in float64."""
    return expected_features(model_input, channel_axis) @ class_weights() + class_bias()


def preprocessor_config(size: int = SIZE, channels: int = 3) -> dict[str, Any]:
    return {
        "image_processor_type": "VideoMAEImageProcessor",
        "size": {"shortest_edge": size},
        "crop_size": {"height": size, "width": size},
        "image_mean": [0.45, 0.4, 0.5][:channels],
        "image_std": [0.225, 0.25, 0.2][:channels],
    }


def model_config(**fields: Any) -> dict[str, Any]:
    labels = {str(index): label for index, label in enumerate(LABELS)}
    return {"model_type": "timesformer", "num_frames": FRAMES, "id2label": labels, **fields}


def own_metadata(**entries: Any) -> dict[str, str]:
    """The metadata of timesformer-export; entries that are not strings become JSON."""
    values = {
        "timesformer_onnx.format": "1",
        "task": "video-classification",
        "config": model_config(),
        "preprocessor_config": preprocessor_config(),
        "frame_sampling": {"method": "uniform", "num_frames": FRAMES},
        "source": {"model": "shots/original", "revision": None, "format": "huggingface"},
        **entries,
    }
    return {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in values.items()
        if value is not None
    }


def write_sidecars(
    folder: Path,
    config: Mapping[str, Any] | None = None,
    preprocessor: Mapping[str, Any] | None = None,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config or model_config()))
    (folder / "preprocessor_config.json").write_text(
        json.dumps(preprocessor or preprocessor_config())
    )


def write_exported_model(folder: Path, dtypes: Sequence[str] = ("fp32",)) -> Path:
    """Writes a folder in the Hub's layout; a scale makes the logits of each dtype different."""
    names = {"fp32": "model.onnx"}
    for number, dtype in enumerate(dtypes):
        name = names.get(dtype, f"model_{dtype}.onnx")
        TinyGraph(scale=1.0 + number).save(folder / "onnx" / name)
    write_sidecars(folder)
    return folder


def moving_frames(count: int, height: int = 48, width: int = 64) -> npt.NDArray[np.uint8]:
    """Frames uint8 [count, height, width, 3], no two alike."""
    t, y, x = np.ogrid[:count, :height, :width]
    red, green, blue = 9 * t + 2 * y + 0 * x, 200 - 7 * t + 0 * y + x, 5 * t * (x > y) + 90
    return np.stack([red % 256, green % 256, blue % 256], axis=-1).astype(np.uint8)


def write_video(path: Path, frames: npt.NDArray[np.uint8], fps: int = 10) -> Path:
    """Encodes frames as H.264 in the container that the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_videos(folder: Path) -> None:
    """Writes the videos ``a.mp4`` and ``b.mkv``, and the text ``broken.mp4``."""
    write_video(folder / "a.mp4", moving_frames(21))
    write_video(folder / "b.mkv", 255 - moving_frames(9))
    (folder / "broken.mp4").write_text("no video")


def decode_all(path: Path) -> npt.NDArray[np.uint8]:
    """Decodes every frame of a file in order, with PyAV alone: uint8 [T, H, W, 3]."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
