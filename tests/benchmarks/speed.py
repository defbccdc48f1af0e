"""Compares the base model (divided attention) with plain exports, PyTorch and other engines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from timesformer_runtime.model.cpu import instruction_sets, saturates_int8

from tests.benchmarks.bench import Bench
from tests.benchmarks.competitors import Competitor, int8_file
from tests.benchmarks.contest import Entry
from tests.benchmarks.rows import (
    Row,
    cpu_time_rows,
    fastest,
    number_row,
    ratio_row,
    time_rows,
    without_goals,
)

OURS, OURS_FP32 = "int8", "fp32"  # int8: the file that the runtime takes on this processor
OURS_8_BITS = "int8, weights of 8 bits"  # measured, too, where the runtime takes 7 bits
TORCH = "PyTorch fp32"
PLAIN = ("plain int8", "plain int8, batch of 1")
PLAIN_FP32 = "plain fp32"
_LARGEST_MB, _MOST_MEMORY_MB = 126.0, 260.0
# Goals on x86 without VNNI: the largest share of a competitor's processor time.
_CPU_TIME_WITHOUT_VNNI = {
    OURS: {PLAIN[0]: 0.88, PLAIN[1]: 0.88, TORCH: 0.55, "OpenVINO int8": 0.60},
    OURS_FP32: {PLAIN_FP32: 0.82},
}


def basic_competitors(bench: Bench) -> list[Competitor]:
    """PyTorch in float32, which is the reference and comes first; our files; plain exports."""
    checkpoint = bench.checkpoint()
    exported, plain = bench.ours(checkpoint), bench.plain(checkpoint)
    ours = {OURS: int8_file(exported), OURS_FP32: exported / "onnx" / "model.onnx"}
    if saturates_int8():
        ours[OURS_8_BITS] = exported / "onnx" / "model_int8.onnx"
    graphs = {
        PLAIN[0]: plain / "model_int8.onnx",
        PLAIN[1]: plain / "model_static_int8.onnx",
        PLAIN_FP32: plain / "model.onnx",
    }
    return [
        Competitor(TORCH, "pytorch", checkpoint),
        *(Competitor(name, "ours", path, reference=TORCH) for name, path in ours.items()),
        *(Competitor(name, "ort", path, reference=TORCH) for name, path in graphs.items()),
        *_torch_variants(checkpoint),
    ]


def peer_competitors(bench: Bench) -> list[Competitor]:
    """The other tools and engines."""
    checkpoint, clips = bench.checkpoint(), bench.clip_file()
    plain = bench.plain(checkpoint) / "model.onnx"
    theirs = bench.transformers_exports(checkpoint, clips)
    graphs = {
        "transformers.js q8": bench.transformers_js(plain) / "model_q8.onnx",
        "transformers.exporters int8 dynamic": theirs / "model_dynamic.onnx",
        "transformers.exporters int8 static": theirs / "model_static.onnx",
    }
    return [
        *(Competitor(name, "ort", path, reference=TORCH) for name, path in graphs.items()),
        *_openvino_variants(bench, plain, clips),
    ]


def _torch_variants(checkpoint: Path) -> list[Competitor]:
    variants: dict[str, dict[str, object]] = {
        "PyTorch fp32 compiled": {"compiled": True},
        "PyTorch bf16": {"dtype": "bfloat16"},
        "PyTorch bf16 compiled": {"dtype": "bfloat16", "compiled": True},
    }
    return [
        Competitor(name, "pytorch", checkpoint, options, reference=TORCH)
        for name, options in variants.items()
        if _has_amx() or "bf16" not in name  # without AMX, bf16 is emulated and slower than fp32
    ]


def _openvino_variants(bench: Bench, graph: Path, clips: Path) -> list[Competitor]:
    folder = bench.openvino(graph, clips)
    variants = {
        "OpenVINO fp32": ("model.xml", "f32"),
        "OpenVINO bf16": ("model.xml", "bf16"),
        "OpenVINO int8": ("model_int8.xml", "f32"),
        "OpenVINO int8 + bf16": ("model_int8.xml", "bf16"),
    }
    return [
        Competitor(
            name,
            "openvino_cpu",
            folder / file,
            {"INFERENCE_PRECISION_HINT": precision},
            python=str(bench.peers),
            reference=TORCH,
        )
        for name, (file, precision) in variants.items()
        if _has_amx() or precision == "f32"
    ]


def rows(entries: Mapping[str, Entry]) -> list[Row]:
    """Compares the measured speed, memory, loading and size with the goals."""
    amx = _has_amx()
    plain = fastest(entries, PLAIN)
    int8: dict[str, float | None] = {
        **({plain: 0.75} if plain else {}),
        "transformers.exporters int8 dynamic": 0.33,
        "transformers.exporters int8 static": 0.33,
        "transformers.js q8": 0.30,
        TORCH: 0.22 if amx else 0.40,
        "PyTorch fp32 compiled": 0.22 if amx else 0.40,
        "PyTorch bf16": 1.0,
        "PyTorch bf16 compiled": 1.0,
        "OpenVINO fp32": None,
        "OpenVINO bf16": 1.0,
        "OpenVINO int8": 1.0,
        "OpenVINO int8 + bf16": 1.0,
    }
    fp32: dict[str, float | None] = {PLAIN_FP32: 0.88, TORCH: 0.95}
    table = time_rows(entries, OURS, int8) + time_rows(entries, OURS_FP32, fp32)
    if saturates_int8():
        table = without_goals(table)  # they are for processors with VNNI
        for name, limits in _CPU_TIME_WITHOUT_VNNI.items():
            table += cpu_time_rows(entries, name, limits)
    ours = entries[OURS]
    if not ours.run_mb:
        return table
    memory = {name: entries[name].run_mb for name in (OURS, OURS_8_BITS) if name in entries}
    return [
        *table,
        *(_loading_rows(entries, plain) if plain else []),
        number_row("memory after loading", OURS, ours.load_mb, "MB", None),
        *(
            number_row("memory after a run", name, sizes, "MB", _MOST_MEMORY_MB)
            for name, sizes in memory.items()
        ),
        number_row("file", OURS, [ours.file_mb], "MB", _LARGEST_MB),
    ]


def _loading_rows(entries: Mapping[str, Entry], plain: str) -> list[Row]:
    """Compares loading with the plain file; weights of 8 bits must be made unsigned first."""
    theirs = plain, entries[plain].load_seconds
    return [
        ratio_row("loading", (name, entries[name].load_seconds), theirs, goal)
        for name, goal in {OURS: 0.5, OURS_8_BITS: 1.0}.items()
        if name in entries and entries[name].load_seconds
    ]


def _has_amx() -> bool:
    return "amx_int8" in (instruction_sets() or ())
