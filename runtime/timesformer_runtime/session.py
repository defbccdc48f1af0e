"""One loaded ONNX graph: inputs, outputs, metadata and runs, with errors that say what to do."""

from __future__ import annotations

import ctypes
import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from timesformer_runtime import cpu
from timesformer_runtime.device import (
    Device,
    load_onnxruntime,
    one_line,
    ort_errors,
    quiet,
    quiet_options,
)
from timesformer_runtime.errors import DeviceError, InvalidModelError
from timesformer_runtime.mapped_weights import map_weights
from timesformer_runtime.settings import SWITCHES, SessionSettings

_SPINNING = "session.intra_op.allow_spinning"
_MEMORY_PATTERN = "enable_mem_pattern"
_INT8_PRECISION = "session.x64quantprecision"
_PARALLEL_PACKING = "session.prepack.enable_parallel"
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """A graph input or output: dimensions are integers where static, else names or None."""

    name: str
    type: str
    shape: tuple[int | str | None, ...]


class Session:
    """One loaded graph. Calls of ``run`` may come from several threads at once.

    Args:
        graph: The ``.onnx`` file, or its contents.
        device: Where to run, from ``choose_device``.
        settings: Threads and session options.

    Attributes:
        device: As given.
        providers: The providers that the session really has.
        threads: CPU threads that one run uses.
        inputs: What the graph takes.
        outputs: What the graph gives.
        metadata: The file's ``metadata_props``.
        wide_products: Whether the signed 8-bit weights of an int8 file are computed in 16 bits,
            because 8-bit products overflow on this processor. It is slower than 8 bits, but right.

    Raises:
        InvalidModelError: It is not an ONNX model that this ONNX Runtime can load.
        DeviceError: The session came up without a provider that was asked for.
        MissingDependencyError: ONNX Runtime is not installed.
    """

    def __init__(self, graph: Path | bytes, device: Device, settings: SessionSettings) -> None:
        onnxruntime = load_onnxruntime()
        self.device = device
        self.threads = settings.threads or cpu.granted_threads()
        entries = _config_entries(settings)
        self._name = str(graph) if isinstance(graph, Path) else "the model's bytes"
        try:
            str(graph if isinstance(graph, Path) else "").encode()
        except UnicodeEncodeError as error:
            raise InvalidModelError(
                f"{graph!a}: ONNX Runtime opens only paths in UTF-8; rename it"
            ) from error
        model: Path | bytes = graph
        mapped = map_weights(graph) if isinstance(graph, Path) and device.name == "cpu" else None
        if mapped is not None:
            model = mapped.graph
            # Weights that are not mapped would all be kept until the last of them is packed.
            entries = {_WEIGHTS_FOLDER: str(mapped.folder), _PARALLEL_PACKING: "1", **entries}
        try:
            with quiet(onnxruntime):
                session = onnxruntime.InferenceSession(
                    str(model) if isinstance(model, Path) else model,
                    self._options(onnxruntime, entries),
                    providers=list(device.providers),
                    provider_options=[dict(options) for options in device.options],
                    enable_fallback=0,
                )
        except ort_errors() as error:
            raise InvalidModelError(
                f"{self._name}: ONNX Runtime {onnxruntime.__version__} cannot load it "
                f"on {device.name} ({one_line(error)}); give a complete file, or export it again"
            ) from error
        _give_back_freed_memory()
        self.providers: tuple[str, ...] = tuple(session.get_providers())
        missing = [name for name in device.providers if name not in self.providers]
        if missing:
            raise DeviceError(
                f"{self._name}: the session runs without {', '.join(missing)} "
                f"(it has {', '.join(self.providers)}); use device 'cpu' or other providers"
            )
        self.inputs = tuple(_tensor_info(node) for node in session.get_inputs())
        self.outputs = tuple(_tensor_info(node) for node in session.get_outputs())
        self.metadata: dict[str, str] = dict(session.get_modelmeta().custom_metadata_map)
        # Weights of 7 bits cannot overflow: ONNX Runtime leaves them as they are.
        self.wide_products = (
            entries.get(_INT8_PRECISION) == "1" and self.metadata.get("int8_target") != "avx2"
        )
        self._session = session

    def run(
        self, outputs: Sequence[str], feeds: Mapping[str, npt.NDArray[Any]]
    ) -> list[npt.NDArray[Any]]:
        """Computes the named outputs.

        Raises:
            InvalidModelError: The graph failed on this input on the CPU.
            DeviceError: It failed on another device.
        """
        try:
            return list(self._session.run(list(outputs), dict(feeds)))
        except ort_errors() as error:
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items())
            kind = InvalidModelError if self.device.name == "cpu" else DeviceError
            raise kind(
                f"{self._name} failed on {self.device.name} for {shapes}: {one_line(error)}; "
                "check that config.json and preprocessor_config.json belong to this graph"
            ) from error

    def _options(self, onnxruntime: Any, entries: Mapping[str, str]) -> Any:
        options = quiet_options(onnxruntime)
        options.intra_op_num_threads = self.threads
        for key, value in entries.items():
            if key in SWITCHES:
                setattr(options, key, value == "1")
            else:
                options.add_session_config_entry(key, value)
        return options


def _config_entries(settings: SessionSettings) -> dict[str, str]:
    """ONNX Runtime's session options: defaults, and over them what the user wants."""
    entries = {_SPINNING: "0", _MEMORY_PATTERN: "0"}
    if cpu.saturates_int8():
        entries[_INT8_PRECISION] = "1"
    return {**entries, **settings.session_options}


def _give_back_freed_memory() -> None:
    """What loading took to parse and pack weights would stay with the process.

    For a float32 base model this is 45 MB of 520, for an int8 one given as bytes 100 of 250. Only
    glibc has the function, and needs it.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def _tensor_info(node: Any) -> TensorInfo:
    return TensorInfo(node.name, node.type, tuple(node.shape))


def as_float32(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """An output as float32, whatever floating type the graph computes in."""
    return array.astype(np.float32, copy=False)
