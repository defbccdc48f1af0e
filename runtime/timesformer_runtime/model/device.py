"""Imports ONNX Runtime, chooses its device, and explains why a device is not available."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import importlib.metadata
import inspect
import io
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from timesformer_runtime.errors import (
    DeviceError,
    InvalidOptionError,
    MissingDependencyError,
    printable,
)
from timesformer_runtime.model.settings import SessionSettings

_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
# They take any options, and ignore them.
_WITHOUT_OPTIONS = (_CPU, "AzureExecutionProvider")
_SUFFIX = "executionprovider"
# Severities of ONNX Runtime's logs.
_WARNINGS = 2
FATAL = 4
_LONGEST_REASON = 600  # characters
_BEGINNING = 200

# The smallest ONNX model, y = Identity(x) for a float32 [1]. Starting it shows if a provider really
# works, before a large file is chosen for that provider.
_PROBE = bytes.fromhex(
    "08083a3b0a100a017812017922084964656e74697479120570726f62655a0f0a0178120a0a08080112040a020801"
    "620f0a0179120a0a08080112040a02080142040a00100d"
)

_log = logging.getLogger("timesformer_runtime")


@dataclasses.dataclass(frozen=True)
class Device:
    """The device that was chosen to run on.

    Attributes:
        name: ``cpu``, ``cuda``, ``cuda:N``, or another provider's name without
            ``ExecutionProvider``, in lower case.
        providers: ONNX Runtime's names of the providers that the session must have.
        options: For each provider its options.
        reason: Why ``auto`` chose this device; empty where the user named it.
        allows_cpu_nodes: False where the device must not leave nodes of a graph to the CPU.
    """

    name: str
    providers: tuple[str, ...]
    options: tuple[Mapping[str, Any], ...]
    reason: str = ""
    allows_cpu_nodes: bool = True

    @property
    def kind(self) -> str:
        """The name without the number of the GPU."""
        return self.name.partition(":")[0]


def load_onnxruntime() -> Any:
    """Imports ``onnxruntime``, on first use.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed, or cannot be loaded.
    """
    # Some versions send telemetry from a thread. A forked process does not have that thread, but
    # would wait at exit for the thread to end.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    remedy = 'pip install "timesformer-onnx[cpu]" (or "timesformer-onnx[gpu]" for NVIDIA GPUs)'
    try:
        import onnxruntime  # noqa: PLC0415  # importing this package must work without it
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise MissingDependencyError(
                f"ONNX Runtime cannot be loaded ({error}): {remedy}"
            ) from error
        raise MissingDependencyError(f"ONNX Runtime is not installed: {remedy}") from error
    except ImportError as error:
        raise MissingDependencyError(
            f"ONNX Runtime cannot be loaded ({one_line(error)}): {remedy}"
        ) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        # The two wheels share a folder; uninstalling one of them leaves a part of the folder.
        raise MissingDependencyError(
            "ONNX Runtime is only half installed: pip uninstall -y onnxruntime onnxruntime-gpu, "
            f"then {remedy}"
        )
    return onnxruntime


def choose_device(settings: SessionSettings) -> Device:
    """Chooses the device; chooses CUDA only where a session really starts on it.

    Raises:
        DeviceError: The device is not available; the message quotes the reason.
        MissingDependencyError: ONNX Runtime is not installed.
    """
    onnxruntime = load_onnxruntime()
    if settings.providers is not None:
        return _named_providers(onnxruntime, settings)
    if settings.device == "cpu":
        return Device("cpu", (_CPU,), ({},))
    name, is_chosen_here = settings.device, settings.device == "auto"
    number = int(name.partition(":")[2] or 0)
    problem = cuda_problem(number)
    if problem is None:
        # Full float32 products: TF32 would keep 10 bits of the mantissa.
        options = {"use_tf32": "0", "device_id": str(number)}
        return Device(
            "cuda" if is_chosen_here else name,
            (_CUDA, _CPU),
            (options, {}),
            "CUDA works" if is_chosen_here else "",
            # A user who asked for CUDA does not expect that a part of the graph runs on the CPU.
            allows_cpu_nodes=is_chosen_here or settings.allow_cpu_nodes,
        )
    if not is_chosen_here:
        raise DeviceError(f"device {name!r} is not available: {problem}; or use `device=cpu`")
    if _CUDA not in onnxruntime.get_available_providers():
        return Device("cpu", (_CPU,), ({},), "this ONNX Runtime is built without CUDA")
    _log.warning("running on the CPU: %s", problem)
    return Device("cpu", (_CPU,), ({},), problem)


@functools.cache
def cuda_problem(number: int = 0) -> str | None:
    """Says why CUDA cannot be used, with the remedy; None where a session starts on it.

    Args:
        number: The number of the GPU, from 0.

    ONNX Runtime lists the provider as available even where its libraries cannot load, and then
    silently uses the CPU; so this starts a session. The answer is kept for the life of the process.
    """
    onnxruntime = load_onnxruntime()
    if _CUDA not in onnxruntime.get_available_providers():
        return (
            f"ONNX Runtime {onnxruntime.__version__} as installed has no {_CUDA}: "
            "pip uninstall -y onnxruntime onnxruntime-gpu, "
            'then pip install "timesformer-onnx[gpu]"'
        )
    notes = io.StringIO()  # preload_dlls() prints what it does not find
    if hasattr(onnxruntime, "preload_dlls"):
        with contextlib.redirect_stdout(notes):
            onnxruntime.preload_dlls()
    remedy = (
        f"install an NVIDIA driver, CUDA {getattr(onnxruntime, 'cuda_version', '')} and cuDNN, "
        'e.g. pip install "onnxruntime-gpu[cuda,cudnn]"'
    )
    try:
        with quiet(onnxruntime):
            session = onnxruntime.InferenceSession(
                _PROBE,
                quiet_options(onnxruntime),
                providers=[_CUDA, _CPU],
                provider_options=[{"device_id": str(number)}, {}],
                enable_fallback=0,
            )
    except ort_errors() as error:
        return f"{one_line(error)} ({remedy})"
    if _CUDA in session.get_providers():
        return None
    return f"{_library_problem(onnxruntime, notes.getvalue())} ({remedy})"


def installed_wheels() -> dict[str, str]:
    """Finds the versions of the installed ONNX Runtime wheels; two overwrite each other's files."""
    versions = {}
    for name in ("onnxruntime", "onnxruntime-gpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _named_providers(onnxruntime: Any, settings: SessionSettings) -> Device:
    wanted = tuple(_full_name(onnxruntime, name) for name in settings.providers or ())
    if len(set(wanted)) < len(wanted):
        raise InvalidOptionError(f"`providers` has {', '.join(wanted)}; name each only once")
    if settings.allow_cpu_nodes and wanted == (_CPU,):
        raise InvalidOptionError("`allow_cpu_nodes` is for another device than 'cpu': name one too")
    options = tuple(settings.provider_options or [{}] * len(wanted))
    for name, given in zip(wanted, options, strict=True):
        if given and name in _WITHOUT_OPTIONS:
            raise InvalidOptionError(
                f"`provider_options` has {', '.join(map(repr, given))} for {short_name(name)!r}, "
                "which has no options: leave that out, or use `session_options`"
            )
    if _CUDA in wanted:
        problem = cuda_problem(_gpu_number(options[wanted.index(_CUDA)]))
        if problem is not None:
            raise DeviceError(f"provider {_CUDA!r} is not available: {problem}")
    return Device(
        short_name(wanted[0]),
        wanted,
        options,
        # A user who also names the CPU's provider accepts that it runs the nodes that others leave.
        allows_cpu_nodes=settings.allow_cpu_nodes or _CPU in wanted,
    )


def _full_name(onnxruntime: Any, name: str) -> str:
    """Finds the provider that a name stands for, such as ``openvino``."""
    available: list[str] = onnxruntime.get_available_providers()
    found = [full for full in available if short_name(full) == short_name(name)]
    if found:
        return found[0]
    raise DeviceError(
        f"provider {name!r} is not in ONNX Runtime {onnxruntime.__version__} as installed; it has "
        f"{', '.join(available)}: name one of these, or install the build of ONNX Runtime that "
        "has the provider, such as onnxruntime-openvino, in place of this one"
    )


def short_name(provider: str) -> str:
    """Gives a provider's name without ``ExecutionProvider``, in lower case."""
    return provider.lower().removesuffix(_SUFFIX)


def _gpu_number(options: Mapping[str, Any]) -> int:
    number = str(options.get("device_id", 0))
    if not number.isdecimal():
        raise InvalidOptionError(f"device_id is {number!r}; it must be a number from 0")
    return int(number)


def _library_problem(onnxruntime: Any, notes: str) -> str:
    """Loads the CUDA provider's library once more, to quote the system's reason in a message.

    Call this only after ONNX Runtime has tried to load the library: otherwise the library would
    never work in this process.
    """
    suffix = ".dll" if sys.platform == "win32" else ".so"
    prefix = "" if sys.platform == "win32" else "lib"
    folder = Path(inspect.getfile(onnxruntime)).parent / "capi"
    try:
        ctypes.CDLL(str(folder / f"{prefix}onnxruntime_providers_cuda{suffix}"))
    except OSError as error:
        return f"its CUDA provider cannot load: {one_line(error)}"
    reason = one_line(notes) or "ONNX Runtime gives no reason"
    return f"its CUDA provider does not start: {reason}"


@contextlib.contextmanager
def quiet(onnxruntime: Any) -> Iterator[None]:
    """Silences ONNX Runtime's default logger in the context: exceptions tell about failures."""
    onnxruntime.set_default_logger_severity(FATAL)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(_WARNINGS)


def quiet_options(onnxruntime: Any) -> Any:
    """Makes ``SessionOptions`` that log only fatal errors: exceptions say the rest."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL
    return options


@functools.cache
def ort_errors() -> tuple[type[Exception], ...]:
    """Lists ONNX Runtime's exceptions, which share no base class, and those of its Python part."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state  # noqa: PLC0415

    native = (value for value in vars(state).values() if inspect.isclass(value))
    errors = (value for value in native if issubclass(value, Exception))
    return (*errors, ValueError, RuntimeError)


def one_line(message: object) -> str:
    """Shortens an error's message to one line, without ONNX Runtime's numeric prefix.

    Of a long message the beginning and the end stay: some providers name lines of their source
    code first, and the reason last.
    """
    text = " ".join(str(message).split())
    prefix, _, rest = text.partition(" : ")
    if prefix == "[ONNXRuntimeError]":
        text = rest.split(" : ", 2)[-1]
    text = printable(text)
    if len(text) > _LONGEST_REASON:
        text = f"{text[:_BEGINNING]} ... {text[_BEGINNING + 5 - _LONGEST_REASON :]}"
    return text.rstrip(" .")
