"""The facts that ``timesformer doctor`` prints about this machine."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
from collections.abc import Iterator, Mapping
from typing import Any

from timesformer_runtime.cli.nvidia_libraries import nvidia_libraries
from timesformer_runtime.cli.provider_check import CPU, CUDA, ProviderCheck, check_provider
from timesformer_runtime.errors import MissingDependencyError
from timesformer_runtime.model import cpu
from timesformer_runtime.model.device import (
    cuda_problem,
    installed_wheels,
    load_onnxruntime,
    short_name,
)
from timesformer_runtime.model.memory import machine_memory

_PACKAGES = ("timesformer-onnx", "numpy", "av", "huggingface_hub")
_GPU_WHEEL = "onnxruntime-gpu"

# Codecs that videos have, and FFmpeg's software decoders of each, where their names differ.
_CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video", "mjpeg", "prores")
_DECODERS = {"av1": ("libdav1d", "libaom-av1")}  # its own "av1" decodes on a GPU only


@dataclasses.dataclass(frozen=True)
class Fact:
    """A fact: as text for people, and as a value of JSON."""

    text: str
    value: Any


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """The facts about a machine and its installation.

    Attributes:
        facts: The facts by name.
        problems: A sentence for each problem, with its remedy.
    """

    facts: Mapping[str, Fact]
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The facts for JSON."""
        facts = {name: fact.value for name, fact in self.facts.items()}
        return {**facts, "problems": list(self.problems)}


def diagnose() -> Diagnosis:
    """Collects the facts about the installation, and tries out ONNX Runtime's providers."""
    facts = {"python": _text_only(f"{platform.python_version()} ({platform.platform()})")}
    problems = []
    for package in _PACKAGES:
        facts[package] = _text_only(_version(package))
    wheels = installed_wheels()
    shown = ", ".join(f"{name} {version}" for name, version in wheels.items())
    facts["onnxruntime"] = Fact(shown or "not installed", wheels)
    if len(wheels) > 1:
        problems.append(
            f"{' and '.join(wheels)} overwrite each other: pip uninstall -y {' '.join(wheels)}, "
            'then pip install "timesformer-onnx[cpu]" or "timesformer-onnx[gpu]"'
        )
    try:
        onnxruntime = load_onnxruntime()
    except MissingDependencyError as error:
        problems.append(str(error))
    else:
        problems += _onnxruntime(onnxruntime, facts, wheels)
    facts.update(_processor())
    facts["memory"] = _memory()
    facts.update(_ffmpeg())
    return Diagnosis(facts, tuple(problems))


def versions() -> dict[str, str]:
    """The versions of this package and of the libraries that it runs with."""
    return {package: _version(package) for package in _PACKAGES} | installed_wheels()


def _onnxruntime(
    onnxruntime: Any, facts: dict[str, Fact], wheels: Mapping[str, str]
) -> Iterator[str]:
    """Adds the facts about ONNX Runtime to ``facts``; yields its problems."""
    if not wheels:  # a package of another name, such as onnxruntime-openvino
        facts["onnxruntime"] = _text_only(
            f"{onnxruntime.__version__}, from a package of another name"
        )
    providers = onnxruntime.get_available_providers()
    facts["providers"] = Fact(", ".join(providers), list(providers))
    problem = cuda_problem()
    facts["int8"] = _int8()
    facts["cuda"] = Fact("no", {"works": False, "reason": problem})
    if problem is not None and _GPU_WHEEL in wheels:
        yield problem
    for provider in providers:
        if provider == CUDA and problem is not None:
            continue
        check = check_provider(provider)
        name = short_name(provider)
        facts[name] = Fact(check.text, dataclasses.asdict(check))
        yield from _provider_problems(provider, check)
    libraries = nvidia_libraries(onnxruntime)
    if libraries is not None:
        facts["nvidia"] = _found_or_missing(libraries)


def _provider_problems(provider: str, check: ProviderCheck) -> Iterator[str]:
    """Gives the problem of a provider: wrong values, or a CPU that does not work."""
    if check.is_wrong:
        yield f"{provider} {check.text}: do not use it; try another version of ONNX Runtime"
    elif provider == CPU and not check.works:
        yield f"{provider} {check.text}: install ONNX Runtime again"


def _text_only(text: str) -> Fact:
    return Fact(text, text)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _int8() -> Fact:
    """Describes how this processor computes int8 models."""
    saturates = cpu.saturates_int8()
    text = "8-bit products are exact on this CPU"
    if saturates:
        text = (
            "8-bit products overflow on this CPU (x86 without VNNI or AMX), so 16-bit ones are "
            "used; models exported with --int8-target avx2 do not need them, and are faster"
        )
    return Fact(text, {"exact": not saturates, "products": 16 if saturates else 8})


def _found_or_missing(names: Mapping[str, bool]) -> Fact:
    found = ", ".join(name for name, is_there in names.items() if is_there)
    missing = ", ".join(name for name, is_there in names.items() if not is_there)
    parts = (found and f"found {found}", missing and f"missing {missing}")
    return Fact("; ".join(filter(None, parts)), dict(names))


def _processor() -> dict[str, Fact]:
    sets = cpu.instruction_sets()
    quota = cpu.cpu_quota()
    limit = "no quota" if quota is None else f"a quota of {quota:g} CPUs"
    threads = cpu.granted_threads()
    return {
        "instructions": Fact(
            "unknown" if sets is None else ", ".join(sets) or "none that matter",
            None if sets is None else list(sets),
        ),
        "threads": Fact(
            f"{threads} ({os.cpu_count()} CPUs, {limit})",
            {"granted": threads, "cpus": os.cpu_count(), "quota": quota},
        ),
    }


def _memory() -> Fact:
    memory = machine_memory()
    parts = (
        ("{} in all", memory.total),
        ("{} available", memory.available),
        ("a limit of {} by the control group", memory.limit),
        ("{} left of it", memory.left),
    )
    text = ", ".join(
        part.format(f"{size / 1e6:,.0f} MB") for part, size in parts if size is not None
    )
    return Fact(text or "unknown", dataclasses.asdict(memory))


def _ffmpeg() -> dict[str, Fact]:
    """Describes the FFmpeg that PyAV brings, and its software decoders."""
    try:
        import av  # noqa: PLC0415  # slow, and perhaps not installed
        from av.codec import codecs_available  # noqa: PLC0415
    except ImportError as error:
        return {"ffmpeg": Fact(f"not available ({error})", None)}
    libraries = {name: ".".join(map(str, number)) for name, number in av.library_versions.items()}
    codec = f"libavcodec {libraries.get('libavcodec', 'unknown')}"
    version = getattr(av, "ffmpeg_version_info", None)
    decoders = {name: any(map(_decodes, _DECODERS.get(name, (name,)))) for name in _CODECS}
    return {
        "ffmpeg": Fact(
            f"{version} ({codec})" if version else codec,
            {"version": version, "libraries": libraries, "codecs": len(codecs_available)},
        ),
        "decoders": _found_or_missing(decoders),
    }


def _decodes(name: str) -> bool:
    """True if FFmpeg was built with a decoder of this name."""
    from av.codec import Codec  # noqa: PLC0415
    from av.codec.codec import UnknownCodecError  # noqa: PLC0415

    try:
        Codec(name, "r")
    except UnknownCodecError:
        return False
    return True
