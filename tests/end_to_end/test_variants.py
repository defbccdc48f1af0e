"""Every variant of the bundled models, for every task and input, passes the gate."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from timesformer_exporter.export import export
from timesformer_exporter.options import ExportOptions

MODELS = Path(__file__).parents[2] / "models"
DTYPES = ("fp32", "int8", "fp16", "q4")
# Matrices of the four layers, and the patch embedding.
PRODUCTS = {"divided": 4 * 10 + 1, "joint": 4 * 6 + 1, "space": 4 * 6 + 1}


@pytest.mark.parametrize(
    ("kind", "task", "graph_input"),
    itertools.product(
        PRODUCTS, ("video-classification", "feature-extraction"), ("pixel_values", "frames")
    ),
)
def test_all_variants_pass(kind: str, task: str, graph_input: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    result = export(
        ExportOptions(
            str(MODELS / f"shot-transitions-{kind}"),
            output=tmp_path / "bundle",
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
