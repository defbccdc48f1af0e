"""Competitor: one model file in one engine, which runs in a process of its own."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timesformer_runtime.model.locate import find_model


@dataclasses.dataclass(frozen=True)
class Competitor:
    """A model in an engine.

    Attributes:
        name: The competitor's name in tables and in the results file.
        engine: The name of a module in ``engines``.
        model: An ``.onnx`` or OpenVINO file, or for PyTorch a checkpoint folder.
        options: The engine's options, apart from the number of threads.
        python: The Python of the environment with the engine's packages.
        reference: The name of another competitor; the benchmark compares the logits of this one
            with those of the other. Empty for no comparison.
        timed: True where the competitor runs in turn with others; False for a mere reference.
    """

    name: str
    engine: str
    model: Path
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    python: str = sys.executable
    reference: str = ""
    timed: bool = True

    @property
    def megabytes(self) -> float:
        """Size of the model's files on disk, in 10^6 bytes."""
        folder, stem = (
            (self.model, "model") if self.model.is_dir() else (self.model.parent, self.model.stem)
        )
        files = [
            file for file in folder.iterdir() if file.is_file() and file.name.split(".")[0] == stem
        ]
        return sum(file.stat().st_size for file in files) / 1e6


def int8_file(exported: Path) -> Path:
    """The int8 file of an exported model that the runtime takes on this processor."""
    graph = find_model(exported, device="cpu", dtype="int8").graph
    assert isinstance(graph, Path)
    return graph
