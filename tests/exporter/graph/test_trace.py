"""Traced graphs against the PyTorch model, by value."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from timesformer_exporter.errors import InvalidOptionError
from timesformer_exporter.graph.frames_input import FramesInput
from timesformer_exporter.graph.trace import GraphOutputs, TracedModel, trace
from timesformer_exporter.options import OPSETS
from timesformer_runtime.input.preprocess import Preprocessing

from tests.tiny_models import ATTENTION_TYPES, random_model, tiny_config

EVERYTHING = GraphOutputs("feature-extraction", hidden_states=True, attentions=True)


def _save(module: TracedModel, path: Path, opset: int = 23) -> onnxruntime.InferenceSession:
    trace(
        module,
        module.model.config,
        input_name="pixel_values" if module.frames_input is None else "frames",
        output_names=module.output_names,
        opset=opset,
    ).save(path, external_data=False)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def _expected(module: TracedModel, clips: torch.Tensor) -> dict[str, np.ndarray[Any, Any]]:
    with torch.no_grad():
        outputs = module(clips)
    return {name: tensor.numpy() for name, tensor in zip(module.output_names, outputs, strict=True)}


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
def test_every_output_agrees_at_every_batch_size(attention_type: str, tmp_path: Path) -> None:
    config = tiny_config(attention_type, image_size=(32, 48), num_frames=3)
    module = TracedModel(random_model(config), EVERYTHING)
    session = _save(module, tmp_path / "model.onnx")
    assert [output.name for output in session.get_outputs()] == list(module.output_names)
    for batch in (1, 2, 3, 5):
        clips = torch.randn(batch, 3, 3, 32, 48)
        expected = _expected(module, clips)
        found = session.run(list(expected), {"pixel_values": clips.numpy()})
        for (name, value), other in zip(expected.items(), found, strict=True):
            np.testing.assert_allclose(
                other, value, rtol=0, atol=1e-5 * np.abs(value).max(), err_msg=f"{name}, {batch}"
            )


@pytest.mark.parametrize(
    ("attention_type", "opset"),
    [("divided_space_time", opset) for opset in OPSETS]
    + list(product(("joint_space_time", "space_only"), (OPSETS[0], OPSETS[-1]))),
)
def test_every_opset_gives_the_same_logits(attention_type: str, opset: int, tmp_path: Path) -> None:
    module = TracedModel(random_model(tiny_config(attention_type)), GraphOutputs())
    path = tmp_path / "model.onnx"
    session = _save(module, path, opset)
    graph = onnx.load(path)
    assert {entry.domain: entry.version for entry in graph.opset_import}[""] == opset
    operators = {node.op_type for node in graph.graph.node}
    assert ("Attention" in operators) == (opset == 23)
    assert {node.domain for node in graph.graph.node} <= {""}
    clips = torch.randn(2, 3, 3, 32, 32)
    expected = _expected(module, clips)["logits"]
    (found,) = session.run(None, {"pixel_values": clips.numpy()})
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


# Each entry has several unusual settings at once: a trace takes seconds, and they do not interact.
ODD_SHAPES: list[dict[str, Any]] = [
    {"patch_size": (8, 16), "image_size": (40, 48), "num_channels": 1, "hidden_act": "relu"},
    {"patch_size": 8, "qkv_bias": False, "num_frames": 5, "hidden_act": "gelu_new"},
    {"image_size": 16, "num_frames": 1, "num_hidden_layers": 1, "hidden_act": "selu"},
]


@pytest.mark.parametrize("fields", ODD_SHAPES, ids=str)
@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
def test_odd_shapes(attention_type: str, fields: dict[str, Any], tmp_path: Path) -> None:
    config = tiny_config(attention_type, **fields)
    module = TracedModel(random_model(config), GraphOutputs())
    session = _save(module, tmp_path / "model.onnx")
    for batch in (1, 3):
        clips = torch.randn(batch, config.num_frames, config.num_channels, *config.image_hw)
        expected = _expected(module, clips)["logits"]
        (found,) = session.run(None, {"pixel_values": clips.numpy()})
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


PREPROCESSINGS: dict[str, dict[str, Any]] = {
    "short side and crop": {"size": 32, "crop_size": (32, 32)},
    "crop smaller than resize": {"size": 40, "crop_size": (32, 32)},
    "crop larger than resize": {"size": 27, "crop_size": (32, 32)},
    "fixed size": {"size": (32, 32), "do_center_crop": False},
    "no resize": {"do_resize": False, "crop_size": (32, 32)},
    "no resize to a fixed size": {"do_resize": False, "size": (32, 32), "crop_size": (32, 32)},
    "no rescale": {"size": 32, "crop_size": (32, 32), "do_rescale": False},
    "no normalise": {"size": 32, "crop_size": (32, 32), "do_normalize": False},
    "offset": {"size": 32, "crop_size": (32, 32), "rescale_factor": 1 / 127.5, "offset": True},
}


@pytest.mark.parametrize("fields", PREPROCESSINGS.values(), ids=PREPROCESSINGS.keys())
def test_frames_of_any_size_become_what_the_runtime_makes_of_them(
    fields: dict[str, Any], tmp_path: Path
) -> None:
    preprocessing = Preprocessing(
        **({"image_mean": (0.4, 0.45, 0.5), "image_std": (0.2, 0.25, 0.3)} | fields)
    )
    identity = _PixelValues(FramesInput(preprocessing))
    session = _save(identity, tmp_path / "frames.onnx")
    random = np.random.default_rng(0)
    level = 1.0  # one grey level, in the units of the result
    level *= preprocessing.rescale_factor if preprocessing.do_rescale else 1.0
    level /= min(preprocessing.image_std) if preprocessing.do_normalize else 1.0
    for batch, height, width in [
        (1, 32, 32),
        (2, 33, 71),
        (1, 90, 40),
        (3, 20, 29),
        (1, 1, 1),
        (1, 240, 320),
        (1, 32, 500),
    ]:
        frames = random.integers(0, 256, (batch, 3, height, width, 3), dtype=np.uint8)
        expected = np.stack([preprocessing(clip) for clip in frames])
        (found,) = session.run(None, {"frames": frames})
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 2.001 * level, (height, width)
        assert np.abs(found - expected).mean() <= 0.1 * level, (height, width)


class _PixelValues(TracedModel):
    """Returns the pixel values that a graph with frames as input gives to the model."""

    def __init__(self, frames_input: FramesInput) -> None:
        super().__init__(random_model(tiny_config()), GraphOutputs(), frames_input)

    def forward(self, clips: torch.Tensor) -> tuple[torch.Tensor, ...]:
        assert self.frames_input is not None
        return (self.frames_input(clips),)


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
def test_frames_input_with_the_model_behind_it(attention_type: str, tmp_path: Path) -> None:
    config = tiny_config(attention_type)
    model = random_model(config)
    preprocessing = Preprocessing(size=32, crop_size=(32, 32))
    session = _save(
        TracedModel(model, GraphOutputs(), FramesInput(preprocessing)), tmp_path / "model.onnx"
    )
    frames = np.random.default_rng(1).integers(0, 256, (3, 3, 32, 45, 3), dtype=np.uint8)
    pixel_values = torch.from_numpy(np.stack([preprocessing(clip) for clip in frames]))
    with torch.no_grad():
        expected = model(pixel_values).numpy()
    (found,) = session.run(None, {"frames": frames})
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("preprocessing", "message"),
    [
        (Preprocessing(resample=3), "resample=3"),
        (Preprocessing(image_mean=(0.5,), image_std=(0.5,)), "1 channel"),
    ],
)
def test_preprocessing_that_cannot_be_in_a_graph(
    preprocessing: Preprocessing, message: str
) -> None:
    with pytest.raises(InvalidOptionError, match=message) as caught:
        FramesInput(preprocessing)
    assert "use `input=pixel_values`" in str(caught.value)
