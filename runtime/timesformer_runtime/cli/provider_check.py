"""Tries out execution providers: each runs a tiny TimeSformer, and PyTorch's answer judges it.

A provider that ONNX Runtime lists may lack a library, refuse a graph, leave all of it to the CPU,
compute wrong values, or crash. So each one runs in a process of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from pathlib import Path
from typing import Any

import timesformer_runtime
from timesformer_runtime.child_process import ChildProcess
from timesformer_runtime.errors import TimesformerError

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

_MODELS = Path(timesformer_runtime.__file__).parent / "probe_models"
# The opsets of the files that models/probe_models.py writes: the one of an ordinary export, and one
# of older operators, which more providers take.
_USUAL, _OLDER = 23, 18
_LONGEST_REASON = 300  # characters
_SECONDS = 120.0  # some providers compile a graph for a minute


@dataclasses.dataclass(frozen=True)
class ProviderCheck:
    """The result of trying out a provider.

    Attributes:
        works: True if the provider ran at least a part of the model, and the values are right.
        is_wrong: True if the values are wrong.
        max_abs: The largest difference from PyTorch's values; None if the model did not run.
        nodes: Number of the model's nodes; 0 if it is not known.
        cpu_nodes: Number of nodes left to the CPU; arithmetic on shapes does not count.
        opset: The opset of the model that ran, or None.
        reason: The reason why the model of the usual opset did not run; empty if it did.
    """

    works: bool
    is_wrong: bool = False
    max_abs: float | None = None
    nodes: int = 0
    cpu_nodes: int = 0
    opset: int | None = None
    reason: str = ""

    @property
    def text(self) -> str:
        """The result in words."""
        if self.is_wrong:
            return f"computes wrong values (they differ from PyTorch's by {self.max_abs:.2g})"
        if self.max_abs is None:
            return f"does not run a TimeSformer: {self.reason[:_LONGEST_REASON]}"
        if not self.works:
            return "runs no node of a TimeSformer: all are left to the CPU"
        text = f"works (differs from PyTorch by {self.max_abs:.2g})"
        if self.cpu_nodes:
            text += f", with {self.cpu_nodes} of {self.nodes} nodes on the CPU"
        if self.reason:
            text += (
                f" for a graph of opset {self.opset}, and refuses one of opset {_USUAL}: export "
                f"with --opset {self.opset}"
            )
        return text


def check_provider(name: str) -> ProviderCheck:
    """Runs the tiny TimeSformer on a provider; if it refuses, one of older operators.

    Args:
        name: ONNX Runtime's name of the provider.
    """
    usual = _check(name, _USUAL)
    if usual.max_abs is not None or name == CPU:
        return usual
    older = _check(name, _OLDER)
    return usual if older.max_abs is None else dataclasses.replace(older, reason=usual.reason)


def _check(name: str, opset: int) -> ProviderCheck:
    request = {"provider": name, "model": str(_MODELS / f"opset{opset}.onnx")}
    try:
        with ChildProcess(f"{__name__}:serve") as child:
            return ProviderCheck(**child.ask(request, _SECONDS), opset=opset)
    except TimesformerError as error:
        return ProviderCheck(works=False, reason=str(error))


def serve(request: dict[str, str]) -> Generator[dict[str, Any], None, None]:
    """Runs in the child: loads the model on a provider, and runs its golden check."""
    from timesformer_runtime.classifier import VideoClassifier  # noqa: PLC0415

    provider = request["provider"]
    options: dict[str, Any] = {"providers": [provider], "allow_cpu_nodes": True}
    if provider == CPU:
        options = {"device": "cpu"}
    elif provider == CUDA:  # with the options that the runtime gives it
        options = {"device": "cuda", "allow_cpu_nodes": True}
    classifier = VideoClassifier.from_pretrained(Path(request["model"]), **options)
    check, placement = classifier.verify(), classifier.model.session.placement
    yield {
        "works": check.passed and (placement.total == 0 or len(placement.on_cpu) < placement.total),
        "is_wrong": not check.passed,
        "max_abs": check.max_abs,
        "nodes": placement.total,
        "cpu_nodes": len(placement.on_cpu),
    }
