"""Runs the written files through the runtime's own session and compares them with PyTorch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from timesformer_runtime.errors import InvalidModelError
from timesformer_runtime.model.agreement import Agreement, Array
from timesformer_runtime.model.device import choose_device
from timesformer_runtime.model.gate import VariantFidelity, measure
from timesformer_runtime.model.session import Session
from timesformer_runtime.model.settings import SessionSettings

from timesformer_exporter.model.attention_rollout import ROLLOUT
from timesformer_exporter.options import Variant
from timesformer_exporter.proof.accuracy_table import Accuracy
from timesformer_exporter.proof.fidelity import Fidelity, Outputs, compare, failure
from timesformer_exporter.proof.gate_clips import GateReference
from timesformer_exporter.proof.reference import Reference

# Share of the largest value up to which outputs agree for frames of another size: a resize in the
# graph rounds to whole grey levels a little differently from the runtime's own.
_RESIZED_TOLERANCE = 5e-3


@dataclasses.dataclass(frozen=True)
class Proof:
    """The results of comparing the files of an export with PyTorch.

    Attributes:
        fidelity: The fidelity check of the float32 graph.
        variants: The gate's measurements of the variants in reduced precision.
        gated: False where the user switched the gate's thresholds off.
        gate_clips: The number of the gate's clips of each kind.
        accuracy: The accuracy on labelled videos; None where there are none.
    """

    fidelity: Fidelity
    variants: tuple[VariantFidelity, ...] = ()
    gated: bool = True
    gate_clips: Mapping[str, int] = dataclasses.field(default_factory=dict)
    accuracy: Accuracy | None = None

    @property
    def passed(self) -> bool:
        """True where all checks passed: fidelity, the gate if it is on, and the accuracy."""
        return (
            self.fidelity.passed
            and (not self.gated or all(variant.passed for variant in self.variants))
            and (self.accuracy is None or self.accuracy.passed)
        )

    def to_dict(self) -> dict[str, Any]:
        """The values for export_report.json."""
        return {
            "fidelity": self.fidelity.to_dict(),
            "variants": [variant.to_dict() for variant in self.variants],
            "gate": "on" if self.gated else "off",
            "gate_clips": dict(self.gate_clips),
            "accuracy": None if self.accuracy is None else self.accuracy.to_dict(),
        }


def check_graph(
    path: Path, input_name: str, reference: Reference, resized: Reference | None, atol: float
) -> Fidelity:
    """Compares a float32 graph with PyTorch at several batch sizes.

    Args:
        path: The graph.
        input_name: ``pixel_values`` or ``frames``.
        reference: PyTorch's outputs for clips of the model's own size.
        resized: PyTorch's outputs for a clip of another size, for a graph that takes frames; else
            None.
        atol: Absolute tolerance.
    """
    try:
        run = _runner(path, input_name)
        return _compare_all(run, input_name, reference, resized, atol)
    except InvalidModelError as error:  # ONNX Runtime cannot load or run the graph
        return failure(next(iter(reference.outputs)), str(error).replace(str(path), path.name))


def _compare_all(
    run: Callable[[Array], Outputs],
    input_name: str,
    reference: Reference,
    resized: Reference | None,
    atol: float,
) -> Fidelity:
    clips = _inputs(reference, input_name)
    fidelity = compare(
        reference.outputs, run, np.stack(clips), atol=atol, batches=reference.batches
    )
    if resized is None:
        return fidelity
    other = compare(
        resized.outputs,
        run,
        np.stack(_inputs(resized, input_name)),
        atol=atol,
        rtol=_RESIZED_TOLERANCE,
        batches=(1,),
        kind="resized",
    )
    return Fidelity(fidelity.comparisons + other.comparisons)


def check_variant(
    path: Path, variant: Variant, input_name: str, output: str, reference: GateReference
) -> VariantFidelity:
    """Measures a variant in reduced precision, one clip a run, as the runtime does.

    Args:
        path: The graph.
        variant: The variant.
        input_name: ``pixel_values`` or ``frames``.
        output: The main output, ``logits`` or ``features``.
        reference: The clips, and PyTorch's outputs for them.
    """
    run = _runner(path, input_name)
    answers = [run(clip[None]) for clip in reference.inputs(input_name)]
    found = np.concatenate([answer[output] for answer in answers])
    measured = measure(variant.dtype, reference.outputs, found, logits=output == "logits")
    if reference.rollouts is not None:
        rolled_out = np.concatenate([answer[ROLLOUT] for answer in answers])
        correlation = Agreement(reference.rollouts, rolled_out).correlation
        measured = dataclasses.replace(measured, rollout=correlation)
    return dataclasses.replace(measured, name=variant.name)


def _inputs(reference: Reference, input_name: str) -> tuple[Array, ...]:
    return reference.frames if input_name == "frames" else reference.pixel_values


def _runner(path: Path, input_name: str) -> Callable[[Array], Outputs]:
    settings = SessionSettings(device="cpu")
    session = Session(path, choose_device(settings), settings)
    names = [output.name for output in session.outputs]

    def run(clips: Array) -> Outputs:
        return dict(zip(names, session.run(names, {input_name: clips}), strict=True))

    return run
