"""The facts that ``timesformer doctor`` prints about this machine."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform

from timesformer_runtime.errors import MissingDependencyError
from timesformer_runtime.model import cpu
from timesformer_runtime.model.device import cuda_problem, installed_wheels, load_onnxruntime

_PACKAGES = ("timesformer-onnx", "numpy", "av", "huggingface_hub")
_GPU_WHEEL = "onnxruntime-gpu"


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """The facts about a machine and its installation.

    Attributes:
        facts: The facts by name.
        problems: A sentence for each problem, with its remedy.
    """

    facts: dict[str, str]
    problems: tuple[str, ...]


def diagnose() -> Diagnosis:
    """Collects versions, ONNX Runtime's providers, instruction sets and granted threads."""
    facts = {"python": f"{platform.python_version()} ({platform.platform()})"}
    problems = []
    for package in _PACKAGES:
        facts[package] = _version(package)
    wheels = installed_wheels()
    facts["onnxruntime"] = (
        ", ".join(f"{name} {version}" for name, version in wheels.items()) or "not installed"
    )
    if len(wheels) > 1:
        problems.append(
            f"{' and '.join(wheels)} overwrite each other: pip uninstall -y {' '.join(wheels)}, "
            'then pip install "timesformer-onnx[cpu]" or "timesformer-onnx[gpu]"'
        )
    try:
        facts["providers"] = ", ".join(load_onnxruntime().get_available_providers())
    except MissingDependencyError as error:
        problems.append(str(error))
    else:
        problem = cuda_problem()
        facts["int8"] = _int8()
        facts["cuda"] = "works" if problem is None else "no"
        if problem is not None and _GPU_WHEEL in wheels:
            problems.append(problem)
    facts.update(_processor())
    return Diagnosis(facts, tuple(problems))


def versions() -> dict[str, str]:
    """The versions of this package and of the libraries that it runs with."""
    wheels = installed_wheels()
    return {package: _version(package) for package in _PACKAGES} | wheels


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _int8() -> str:
    """Describes how this processor computes int8 models."""
    if cpu.saturates_int8():
        return (
            "8-bit products overflow on this CPU (x86 without VNNI or AMX), so 16-bit ones are "
            "used; models exported with --int8-target avx2 do not need them, and are faster"
        )
    return "8-bit products are exact on this CPU"


def _processor() -> dict[str, str]:
    sets = cpu.instruction_sets()
    quota = cpu.cpu_quota()
    limit = "no quota" if quota is None else f"a quota of {quota:g} CPUs"
    return {
        "instructions": "unknown" if sets is None else ", ".join(sets) or "none that matter",
        "threads": f"{cpu.granted_threads()} ({os.cpu_count()} CPUs, {limit})",
    }
