"""The target ``portable``: only older standard operators, and values as in the default target.

``tests/end_to_end/test_openvino.py`` loads such files with a provider that refuses the others.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from timesformer_exporter.export import ExportResult, export
from timesformer_exporter.graph import flash_attention
from timesformer_exporter.graph.quantize import own_operators
from timesformer_exporter.options import ExportOptions
from timesformer_runtime import VideoClassifier
from timesformer_runtime.input.preprocess import Preprocessing
from timesformer_runtime.model.graph_outline import outline

from tests.tiny_models import ATTENTION_TYPES, tiny_config, write_checkpoint

# An operator of a newer set than the file's, or one that providers rarely have.
NOT_PORTABLE = {"Attention", "If", "Loop", "Scan", "NonZero", "Where", "Einsum", "Resize"}


def _export(folder: Path, attention_type: str, **options: Any) -> ExportResult:
    preprocessing = Preprocessing(size=32, crop_size=(32, 32)).to_dict()
    write_checkpoint(folder / "model", tiny_config(attention_type), preprocessing=preprocessing)
    name = options.get("target", "default")
    return export(ExportOptions(str(folder / "model"), output=folder / name, **options))


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
def test_portable_files(
    attention_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flash_attention, "_LONG", 1)  # as for long clips
    dtypes = ("fp32", "int8", "fp16")
    result = _export(tmp_path, attention_type, target="portable", dtypes=dtypes)
    assert result.passed
    video = np.random.default_rng(0).integers(0, 256, (5, 40, 50, 3), dtype=np.uint8)
    default = VideoClassifier.from_pretrained(
        _export(tmp_path, attention_type).folder, device="cpu"
    )
    expected = default.logits(video)
    assert default.metadata["target"] == "onnxruntime"
    for dtype, tolerance in (("fp32", 1e-5), ("fp16", 0.01), ("int8", 0.1)):
        classifier = VideoClassifier.from_pretrained(result.folder, dtype=dtype, device="cpu")
        assert classifier.metadata["target"] == "portable"
        assert classifier.verify().passed
        difference = np.abs(classifier.logits(video) - expected).max()
        assert difference <= tolerance * np.abs(expected).max()
    report = json.loads((result.folder / "export_report.json").read_text())
    assert (report["options"]["target"], report["options"]["opset"]) == ("portable", 20)
    assert "`--target portable`" in (result.folder / "README.md").read_text()
    for path in sorted((result.folder / "onnx").iterdir()):
        _check_operators(path)


def _check_operators(path: Path) -> None:
    model = onnx.load(path)
    assert own_operators(path) == ()
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 20)]
    operators = {node.op_type for node in model.graph.node}
    assert {"MatMul", "Softmax"} <= operators
    assert not operators & NOT_PORTABLE
    assert outline(path).batch_axis == "batch"
    # Shapes are computed only where the batch size is needed: twice at most, and never in a layer.
    assert sum(node.op_type == "Shape" for node in model.graph.node) <= 2


def test_another_opset(tmp_path: Path) -> None:
    result = _export(tmp_path, "divided_space_time", target="portable", opset=18)
    model = onnx.load(result.folder / "onnx" / "model.onnx")
    assert result.passed
    assert model.opset_import[0].version == 18
    assert "Gelu" not in {node.op_type for node in model.graph.node}
