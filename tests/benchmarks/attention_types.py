"""Compares our int8 files with joint and with space-only attention to plain exports."""

from __future__ import annotations

from collections.abc import Mapping

from timesformer_runtime.model.cpu import saturates_int8

from tests.benchmarks.bench import JOINT, SPACE, Bench
from tests.benchmarks.competitors import Competitor, int8_file
from tests.benchmarks.contest import Entry
from tests.benchmarks.rows import Row, cpu_time_rows, fastest, time_rows, without_goals

_WANTED = 0.80  # of the time
_WANTED_WITHOUT_VNNI = 0.88  # of the processor time, on x86
_NAMES = {JOINT: "joint", SPACE: "space-only"}


def competitors(bench: Bench) -> list[Competitor]:
    """PyTorch, our int8 file and two plain exports, for both attention types.

    transformers' space-only model returns logits for every frame. So this project's PyTorch model
    is the reference of our file, and transformers' model that of the plain exports. Both models
    have equal weights.
    """
    found = []
    for attention_type, name in _NAMES.items():
        checkpoint = bench.checkpoint(attention_type)
        ours, plain = bench.ours(checkpoint), bench.plain(checkpoint)
        theirs, own = f"{name} PyTorch", f"{name} PyTorch, ours"
        found += [
            Competitor(theirs, "pytorch", checkpoint, timed=False),
            Competitor(own, "pytorch_ours", checkpoint, timed=False),
            Competitor(f"{name} int8", "ours", int8_file(ours), reference=own),
            Competitor(f"{name} plain int8", "ort", plain / "model_int8.onnx", reference=theirs),
            Competitor(
                f"{name} plain int8, batch of 1",
                "ort",
                plain / "model_static_int8.onnx",
                reference=theirs,
            ),
        ]
    return found


def rows(entries: Mapping[str, Entry]) -> list[Row]:
    """Compares our file with the faster of the two plain exports."""
    table = []
    for name in _NAMES.values():
        plain = fastest(entries, [f"{name} plain int8", f"{name} plain int8, batch of 1"])
        if plain:
            ours = f"{name} int8"
            times = time_rows(entries, ours, {plain: _WANTED})
            if saturates_int8():
                times = without_goals(times)
                times += cpu_time_rows(entries, ours, {plain: _WANTED_WITHOUT_VNNI})
            table += times
    return table
