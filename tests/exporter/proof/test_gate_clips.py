"""The clips of the gate, and the gate's verdict on broken files."""

from __future__ import annotations

import functools
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper
from timesformer_exporter.export import export
from timesformer_exporter.graph.trace import GraphOutputs, TracedModel
from timesformer_exporter.options import Dtype, ExportOptions, Variant
from timesformer_exporter.proof.checks import check_variant
from timesformer_exporter.proof.gate_clips import (
    GateClip,
    GateReference,
    gate_clips,
    gate_reference,
)
from timesformer_runtime.input.preprocess import Preprocessing
from timesformer_runtime.model.gate import VariantFidelity

from models.shot_transitions.checkpoint import load_model, preprocessing
from tests.tiny_models import random_model, tiny_config
from tests.video_files import moving_pictures, write_video

MODEL = Path(__file__).parents[3] / "models" / "shot-transitions-divided"
SMALL = Preprocessing(size=32, crop_size=(32, 32))


def _small_reference(clips: Iterator[GateClip]) -> GateReference:
    module = TracedModel(random_model(tiny_config()), GraphOutputs("video-classification"))
    return gate_reference(module, "logits", SMALL, clips)


def _video(path: Path, seed: int) -> Path:
    return write_video(path, moving_pictures(6, seed=seed))


def test_sample_videos_and_generated_clips_make_sixteen_different_ones() -> None:
    reference = _small_reference(gate_clips(3, (32, 32)))
    assert reference.kinds == {"sample video": 9, "generated clip": 7}
    assert reference.outputs.shape == (16, 6)
    inputs = [values.tobytes() for values in reference.inputs("pixel_values")]
    assert len(set(inputs)) == 16


def test_calibration_videos_come_first_and_others_fill_up(tmp_path: Path) -> None:
    videos = [_video(tmp_path / f"{seed}.mp4", seed) for seed in range(3)]
    again = tmp_path / "again.mp4"  # the same frames count once
    shutil.copy(videos[0], again)
    videos.append(again)
    reference = _small_reference(gate_clips(3, (32, 32), videos))
    assert reference.kinds == {
        "calibration video": 3,
        "sample video": 9,
        "generated clip": 4,
    }
    frames = next(reference.inputs("frames"))
    assert frames.shape == (3, 48, 64, 3)
    pixel_values = next(reference.inputs("pixel_values"))
    np.testing.assert_array_equal(pixel_values, SMALL(frames))
    mirrored = next(reference.inputs("frames", mirrored=True))
    np.testing.assert_array_equal(mirrored, np.flip(frames, axis=2))


def test_all_calibration_videos_are_used_and_nothing_else_if_they_are_enough() -> None:
    def clip(value: int) -> npt.NDArray[np.uint8]:
        return np.full((3, 32, 32, 3), value, np.uint8)

    given = [GateClip("calibration video", lambda i=i: clip(i)) for i in range(20)]  # type: ignore[misc]
    rest = gate_clips(3, (32, 32))
    reference = _small_reference(iter([*given, *rest]))
    assert reference.kinds == {"calibration video": 20}
    module = random_model(tiny_config())
    expected = TracedModel(module, GraphOutputs("video-classification"))
    alone = gate_reference(expected, "logits", SMALL, iter([*given[7:8], *gate_clips(3, (32, 32))]))
    np.testing.assert_array_equal(alone.outputs[0], reference.outputs[7])


def test_clips_are_never_held_together() -> None:
    """Memory does not grow with the number of calibration videos."""
    read: list[weakref.ref[npt.NDArray[np.uint8]]] = []

    def clip(value: int) -> npt.NDArray[np.uint8]:
        frames = np.full((3, 32, 32, 3), value, np.uint8)
        read.append(weakref.ref(frames))
        assert sum(reference() is not None for reference in read) <= 2  # the last one and this one
        return frames

    given = [GateClip("calibration video", functools.partial(clip, i)) for i in range(20)]
    reference = _small_reference(iter(given))
    for _ in reference.inputs("frames"):
        pass
    assert len(read) == 40


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The divided shot-transition model in int8, fp16 and q4, all of which passed."""
    output = tmp_path_factory.mktemp("gate") / "exported"
    result = export(ExportOptions(str(MODEL), output=output, dtypes=("int8", "fp16", "q4")))
    assert result.passed
    assert [variant.missed for variant in result.proof.variants] == [(), (), ()]
    return output


@pytest.fixture(scope="module")
def reference() -> GateReference:
    module = TracedModel(load_model(MODEL), GraphOutputs("video-classification"))
    given = Preprocessing.from_dict(preprocessing(64))
    return gate_reference(module, "logits", given, gate_clips(8, (64, 64)))


def _verdict(
    graph: onnx.ModelProto, dtype: str, reference: GateReference, folder: Path
) -> VariantFidelity:
    path = folder / "variant.onnx"
    onnx.save(graph, path)
    return check_variant(
        path, Variant(dtype, cast(Dtype, dtype)), "pixel_values", "logits", reference
    )


@pytest.mark.parametrize(("dtype", "most_missed"), [("int8", 0), ("fp16", 0), ("q4", 1)])
def test_a_file_with_one_broken_matrix_does_not_pass(
    dtype: str, most_missed: int, exported: Path, reference: GateReference, tmp_path: Path
) -> None:
    """The rows of the matrix are shifted by one, as a wrong layout shifts them.

    A q4 file may be as inaccurate as one with a broken matrix that matters little: 3 of all 41 such
    files would pass.
    """
    graph = onnx.load(exported / "onnx" / f"model_{dtype}.onnx")
    assert _verdict(graph, dtype, reference, tmp_path).passed
    matrices = [
        tensor
        for tensor in graph.graph.initializer
        if len(tensor.dims) >= 2 and np.prod(tensor.dims) >= 4096
    ]
    missed = []
    for tensor in matrices[1::8]:
        whole = tensor.SerializeToString()
        rolled = np.roll(numpy_helper.to_array(tensor), 1, axis=0)
        tensor.CopyFrom(numpy_helper.from_array(rolled, tensor.name))
        found = _verdict(graph, dtype, reference, tmp_path)
        missed += [(tensor.name, found)] * found.passed
        tensor.ParseFromString(whole)
    assert len(missed) <= most_missed, missed
    assert _verdict(graph, dtype, reference, tmp_path).passed


def test_a_file_with_all_weights_a_little_off_does_not_pass(
    exported: Path, reference: GateReference, tmp_path: Path
) -> None:
    """Noise of 3 % on every weight is too much for fp16, though not for variants of fewer bits."""
    graph = onnx.load(exported / "onnx" / "model_fp16.onnx")
    random = np.random.default_rng(0)
    for tensor in graph.graph.initializer:
        if len(tensor.dims) == 2:
            values = numpy_helper.to_array(tensor)
            noise = 0.03 * values.std() * random.normal(size=values.shape)
            noisy = (values + noise).astype(values.dtype)
            tensor.CopyFrom(numpy_helper.from_array(noisy, tensor.name))
    assert not _verdict(graph, "fp16", reference, tmp_path).passed
