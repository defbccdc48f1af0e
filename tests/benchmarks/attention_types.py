"""Compares our int8 files with joint and with space-only attention to plain exports."""

from __future__ import annotations

from collections.abc import Mapping

from tests.benchmarks.bench import JOINT, SPACE, Bench
from tests.benchmarks.competitors import Competitor
from tests.benchmarks.contest import Entry
from tests.benchmarks.rows import Row, fastest, time_rows

_WANTED = 0.80
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
            Competitor(f"{name} int8", "ours", ours / "onnx/model_int8.onnx", reference=own),
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
            table += time_rows(entries, f"{name} int8", {plain: _WANTED})
    return table
