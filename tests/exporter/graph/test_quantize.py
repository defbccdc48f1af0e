"""Variants in reduced precision: the contents of the files, and their differences from PyTorch."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from timesformer_exporter import model_writer
from timesformer_exporter.errors import InvalidOptionError, UnquantizedWeightError
from timesformer_exporter.export import ExportResult, export
from timesformer_exporter.graph import flash_attention, quantize
from timesformer_exporter.graph.integer_products import IntegerProducts
from timesformer_exporter.model.config import TimesformerConfig
from timesformer_exporter.options import ExportOptions, Variant
from timesformer_exporter.proof.checks import check_variant
from timesformer_exporter.summary import failure
from timesformer_runtime import VideoClassifier
from timesformer_runtime.input.preprocess import Preprocessing
from timesformer_runtime.model import cpu
from timesformer_runtime.model.gate import THRESHOLDS, Threshold, VariantFidelity

from tests.tiny_models import tiny_config, write_checkpoint

ALL = ("fp32", "int8", "fp16", "q4")
# Matrices of a layer: queries, keys, values, output, twice the MLP; divided: a second attention.
MATRICES = {"divided_space_time": 10, "joint_space_time": 6, "space_only": 6}


def _export(tmp_path: Path, config: TimesformerConfig, **options: Any) -> ExportResult:
    preprocessing = Preprocessing(size=32, crop_size=(32, 32)).to_dict()
    write_checkpoint(tmp_path / "model", config, preprocessing=preprocessing)
    return export(ExportOptions(str(tmp_path / "model"), output=tmp_path / "exported", **options))


@pytest.mark.parametrize(
    ("attention_type", "options"),
    [
        ("divided_space_time", {"opset": 18}),
        ("joint_space_time", {"input": "frames"}),
        ("space_only", {"task": "feature-extraction"}),
    ],
)
def test_every_variant_of_every_attention_type(
    attention_type: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loose = Threshold(cosine=0.8, relative=0.5, top1=0.7, top5=0.5, score_change=0.2)
    monkeypatch.setitem(THRESHOLDS, "q4", loose)  # tiny models have little redundancy
    result = _export(tmp_path, tiny_config(attention_type), dtypes=ALL, **options)
    assert result.passed
    assert [variant.dtype for variant in result.proof.variants] == ["int8", "fp16", "q4"]
    assert all(variant.clips == 16 for variant in result.proof.variants)
    sizes = [
        result.files[f"onnx/{name}"]
        for name in ("model.onnx", "model_fp16.onnx", "model_int8.onnx", "model_q4.onnx")
    ]
    assert sizes == sorted(sizes, reverse=True)
    report = json.loads((result.folder / "export_report.json").read_text())
    assert [variant["dtype"] for variant in report["variants"]] == ["int8", "fp16", "q4"]
    assert "| int8 |" in (result.folder / "README.md").read_text()

    video = np.random.default_rng(0).integers(0, 256, (5, 40, 50, 3), dtype=np.uint8)
    output = "logits" if "task" not in options else "features"
    answers = {}
    for dtype in ALL:
        classifier = VideoClassifier.from_pretrained(result.folder, dtype=dtype, device="cpu")
        assert classifier.dtype == dtype
        answers[dtype] = getattr(classifier, output)(video)
        assert classifier.verify().passed or dtype == "q4"
    for dtype, tolerance in (("int8", 0.1), ("fp16", 0.01), ("q4", 0.5)):
        difference = np.abs(answers[dtype] - answers["fp32"]).max()
        assert 0 < difference <= tolerance * np.abs(answers["fp32"]).max()


def test_int8_is_u8_by_s8_with_a_scale_for_each_channel(tmp_path: Path) -> None:
    attention_type = "divided_space_time"
    logger = (logging.root.level, list(logging.root.handlers), logging.root.manager.disable)
    result = _export(tmp_path, tiny_config(attention_type), dtypes=("int8",))
    after = (logging.root.level, list(logging.root.handlers), logging.root.manager.disable)
    assert after == logger, "the quantizer's import configures the root logger"
    assert {name for name in result.files if name.startswith("onnx/")} == {"onnx/model_int8.onnx"}
    graph = onnx.load(result.folder / "onnx" / "model_int8.onnx").graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes = graph.node
    producers = {output: node.op_type for node in nodes for output in node.output}
    products = [node for node in nodes if node.op_type == "MatMulInteger"]
    assert len(products) == 1 + 2 * MATRICES[attention_type]
    for node in products:
        assert producers[node.input[0]] == "DynamicQuantizeLinear"  # gives u8
        weight = weights[node.input[1]]
        assert weight.data_type == onnx.TensorProto.INT8
        assert weights[node.input[3]].dims == [weight.dims[1]]
    # Queries, keys and values share one quantized input.
    inputs = Counter(node.input[0] for node in products)
    assert sorted(inputs.values()).count(3) >= 3
    assert {node.domain for node in nodes} == {""}, "int8 stays standard ONNX"
    floats = [node for node in nodes if node.op_type in ("MatMul", "Gemm")]
    assert len(floats) == 1, "the classifier alone stays in float"


def test_the_card_names_operators_that_are_not_standard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flash_attention, "_LONG", 13)  # as many tokens as the tiny model has
    config = tiny_config("joint_space_time")
    result = _export(tmp_path, config, dtypes=("int8", "fp16", "q4"), gate=False)
    assert (
        "Standard ONNX, but for ONNX Runtime's own operators in int8 "
        "(`com.microsoft.MultiHeadAttention`) and q4 (`com.microsoft.MatMulNBits`), opset 23."
    ) in (result.folder / "README.md").read_text()


@pytest.mark.parametrize("attention_type", MATRICES)
def test_the_convolution_stays_in_float_where_all_outputs_are_wanted(
    attention_type: str, tmp_path: Path
) -> None:
    options = {"output_attentions": True, "task": "feature-extraction", "opset": 20}
    result = _export(tmp_path, tiny_config(attention_type), dtypes=("int8",), gate=False, **options)
    packed = MATRICES[attention_type] - 2  # queries, keys and values are one product
    if attention_type == "divided_space_time":
        packed -= 1  # two products less in temporal attention, and temporal_dense is one more
    assert result.integer_products == IntegerProducts(2 * packed, ("patch_embeddings",))


def test_a_weight_that_stays_in_float_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "_int8", lambda graph, _bits: graph)
    with pytest.raises(UnquantizedWeightError, match=r"13 weight\(s\) stayed in float in ONNX"):
        _export(tmp_path, tiny_config("space_only"), dtypes=("fp32", "int8"))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_beyond_the_threshold_the_export_is_rejected_unless_the_gate_is_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = Threshold(cosine=1.0, relative=0.0, top1=1.0, top5=1.0, score_change=0.0)
    monkeypatch.setitem(THRESHOLDS, "int8", exact)
    config = tiny_config("space_only")
    rejected = _export(tmp_path, config, dtypes=("fp32", "int8"))
    assert not rejected.passed
    assert (rejected.folder / "onnx" / "model_int8.onnx.rejected").is_file()
    assert not (tmp_path / "exported").exists()
    kept = _export(tmp_path, config, dtypes=("fp32", "int8"), gate=False)
    assert kept.passed
    report = json.loads((kept.folder / "export_report.json").read_text())
    assert (report["gate"], report["variants"][0]["passed"]) == ("off", False)


def _weights(graph: onnx.GraphProto) -> list[Any]:
    """The integer weights of the products."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMulInteger"]
    return [onnx.numpy_helper.to_array(tensors[node.input[1]]) for node in products]


def test_weights_of_7_bits_for_processors_whose_products_saturate(tmp_path: Path) -> None:
    largest = {}
    for target in (None, "avx2"):
        result = _export(
            tmp_path, tiny_config(), dtypes=("int8",), int8_target=target, gate=False, force=True
        )
        graph = onnx.load(result.folder / "onnx" / "model_int8.onnx")
        metadata = {entry.key: entry.value for entry in graph.metadata_props}
        found = metadata["int8_target"]
        largest[found] = max(np.abs(weight.astype(int)).max() for weight in _weights(graph.graph))
        assert (
            json.loads((result.folder / "export_report.json").read_text())["options"]["int8_target"]
            == target
        )
    assert largest == {"vnni": 127, "avx2": 64}
    # Two products are added in 16 bits, signed.
    assert 2 * 255 * largest["avx2"] < 1 << 15 <= 2 * 255 * largest["vnni"]


def test_weights_of_7_bits_are_fit_to_clips(tmp_path: Path) -> None:
    """The quantizer writes the very integers that GPTQ chose, on the scales of the weights."""
    options: dict[str, Any] = {"dtypes": ("fp32", "int8"), "int8_target": "avx2", "gate": False}
    result = _export(tmp_path, tiny_config(), **options)
    source, fitted = (result.folder / "onnx" / f"model{name}.onnx" for name in ("", "_int8"))
    quantize.write_variant(source, tmp_path / "nearest.onnx", "int8", "avx2")
    changed = []
    files = (onnx.load(path).graph for path in (fitted, tmp_path / "nearest.onnx"))
    for found, nearest in zip(*map(_weights, files), strict=True):
        difference = np.abs(found.astype(int) - nearest)
        changed.append((difference > 0).mean())
        assert difference.mean() < 1
        assert (np.abs(found.astype(int)).max(axis=0) == 64).all()
    assert min(changed) > 0
    assert np.mean(changed) < 0.5


def test_files_for_both_kinds_of_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"dtypes": ("int8", "fp16"), "int8_target": ("vnni", "avx2")}
    result = _export(tmp_path, tiny_config(), **options)
    graphs = {Path(name).name for name in result.files if name.startswith("onnx/")}
    assert graphs == {"model_int8.onnx", "model_int8_avx2.onnx", "model_fp16.onnx"}
    found = [(v.name, v.dtype, v.clips) for v in result.proof.variants]
    assert found == [("int8", "int8", 16), ("int8_avx2", "int8", 16), ("fp16", "fp16", 16)]
    report = json.loads((result.folder / "export_report.json").read_text())
    assert [variant["name"] for variant in report["variants"]] == ["int8", "int8_avx2", "fp16"]
    assert report["options"]["int8_target"] == ["vnni", "avx2"]
    assert {"int8", "int8_avx2"} <= report["seconds"].keys()
    card = (result.folder / "README.md").read_text()
    assert "| int8_avx2 | 0.9" in card
    assert "| `onnx/model_int8_avx2.onnx` | CPUs of x86 without VNNI" in card
    for saturates, target in ((False, "vnni"), (True, "avx2")):
        monkeypatch.setattr(cpu, "saturates_int8", lambda answer=saturates: answer)
        classifier = VideoClassifier.from_pretrained(result.folder, device="cpu")
        assert (classifier.dtype, classifier.metadata["int8_target"]) == ("int8", target)
        assert not classifier.wide_products


def test_each_int8_file_must_pass_the_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second file misses a limit that the first one reaches."""

    def check(path: Path, variant: Variant, *arguments: Any) -> VariantFidelity:
        measured: VariantFidelity = check_variant(path, variant, *arguments)
        return dataclasses.replace(measured, cosine=0.5 if variant.name != "int8" else 1.0)

    monkeypatch.setattr(model_writer, "check_variant", check)
    options: dict[str, Any] = {"dtypes": ("int8",), "int8_target": ("vnni", "avx2")}
    result = _export(tmp_path, tiny_config("space_only"), **options)
    assert not result.passed
    assert failure(result).startswith("int8_avx2: cosine is 0.5 (at least 0.99): leave out --int8-")
    assert len(list((result.folder / "onnx").glob("*.rejected"))) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtypes": ("fp16",), "int8_target": "avx2"}, "`int8_target` is for int8"),
        ({"dtypes": ("int8",), "int8_target": "sse"}, "must be one of vnni, avx2"),
        ({"dtypes": ("int8",), "int8_target": ("vnni", "sse")}, "must be one of vnni, avx2"),
        ({"dtypes": ("int8",), "int8_target": ()}, "give at least one, and each only once"),
        ({"dtypes": ("int8",), "int8_target": ("avx2", "avx2")}, "and each only once"),
        ({"calibration_videos": ("a.mp4",)}, "`calibration_videos` is for int8, fp16 and q4"),
        ({"gate": False}, "`gate=False` is for int8, fp16 and q4"),
    ],
)
def test_options_that_would_do_nothing(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        ExportOptions("model", **options)


@pytest.mark.parametrize("target", [("avx2",), ["avx2"], "avx2"])
def test_one_target_is_written_as_before(target: Any) -> None:
    options = ExportOptions("model", dtypes=("int8",), int8_target=target)
    assert options.int8_target == "avx2"
    assert [variant.file for variant in options.variants] == ["model_int8.onnx"]


@pytest.mark.parametrize("dtypes", [("int4",), (), ("int8", "int8")])
def test_dtypes_that_are_not_allowed(dtypes: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidOptionError, match="dtype"):
        ExportOptions("model", dtypes=dtypes)
