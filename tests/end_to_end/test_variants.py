"""Every variant of the bundled models, for every task and input, passes the gate."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from timesformer_exporter import ExportOptions, export
from timesformer_exporter.options import Dtype, Input, Task
from timesformer_runtime import VideoClassifier

MODELS = Path(__file__).parents[2] / "models"
DTYPES: tuple[Dtype, ...] = ("fp32", "int8", "fp16", "q4")
# Matrices of the four layers, and the patch embedding.
PRODUCTS = {"divided": 4 * 10 + 1, "joint": 4 * 6 + 1, "space": 4 * 6 + 1}


@pytest.mark.parametrize(
    ("kind", "task", "graph_input"),
    itertools.product(
        PRODUCTS, ("video-classification", "feature-extraction"), ("pixel_values", "frames")
    ),
)
def test_all_variants_pass(kind: str, task: Task, graph_input: Input, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    result = export(
        ExportOptions(
            str(MODELS / f"shot-transitions-{kind}"),
            output=tmp_path / "exported",
            task=task,
            input=graph_input,
            dtypes=DTYPES,
        )
    )
    assert result.passed, result.proof
    assert [variant.dtype for variant in result.proof.variants] == ["int8", "fp16", "q4"]
    assert all(variant.passed for variant in result.proof.variants)
    products = json.loads((result.folder / "export_report.json").read_text())["integer_products"]
    head = ["classifier.weight"] if task == "video-classification" else []
    assert products == {"integer": PRODUCTS[kind], "float_weights": head}
    sizes = [result.files[f"onnx/model{suffix}.onnx"] for suffix in ("", "_fp16", "_int8", "_q4")]
    assert sizes == sorted(sizes, reverse=True)


def test_the_int8_result_of_a_clip_does_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    """int8 activations have one scale for all that a run sees, so a run sees one clip."""
    result = export(
        ExportOptions(
            str(MODELS / "shot-transitions-joint"), output=tmp_path / "exported", dtypes=("int8",)
        )
    )
    classifier = VideoClassifier.from_pretrained(result.folder, device="cpu", threads=1)
    assert classifier.dtype == "int8"
    faint = np.random.default_rng(0).integers(120, 136, (8, 64, 64, 3), dtype=np.uint8)
    loud = np.random.default_rng(1).integers(0, 2, (8, 64, 64, 3), dtype=np.uint8) * 255
    alone = classifier.logits(faint)
    for videos in ([faint, loud], [loud, faint], [loud, loud, faint]):
        together = classifier.logits(videos)
        index = next(i for i, video in enumerate(videos) if video is faint)
        assert np.array_equal(together[index], alone)
        assert classifier(videos)[index] == classifier(faint)
    # In one run with the loud clip it would be another: that is why runs have one clip.
    (tensor,) = classifier.model.session.inputs
    assert classifier.model.preprocessing is not None
    batch = np.stack([classifier.model.preprocessing(video) for video in (faint, loud)])
    (joined,) = classifier.model.session.run(["logits"], {tensor.name: batch})
    assert np.abs(joined[0] - alone).max() > 0
