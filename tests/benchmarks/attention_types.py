"""The base model with joint and space-only attention in int8, against the plain recipe."""

from __future__ import annotations

from collections.abc import Mapping

from tests.benchmarks.bench import JOINT, SPACE, Bench
from tests.benchmarks.competitors import Competitor
from tests.benchmarks.contest import Entry
from tests.benchmarks.rows import Row, fastest, time_rows

_WANTED = 0.80
_NAMES = {JOINT: "joint", SPACE: "space-only"}


def competitors(bench: Bench) -> list[Competitor]:
    """For both types: PyTorch (twice for space-only), ours, and two plain exports.

    transformers' space-only model answers for every frame, so that ours has a reference of its
    own: this project's PyTorch model with the same weights.
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
    """Ours against the faster of the two plain exports."""
    table = []
    for name in _NAMES.values():
        plain = fastest(entries, [f"{name} plain int8", f"{name} plain int8, batch of 1"])
        if plain:
            table += time_rows(entries, f"{name} int8", {plain: _WANTED})
    return table
