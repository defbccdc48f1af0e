"""One loaded ONNX graph: inputs, outputs, metadata and runs, with errors that say what to do."""

from __future__ import annotations

import ctypes
import dataclasses
import math
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from timesformer_runtime.errors import (
    ClosedError,
    DeviceError,
    InferenceTimeoutError,
    InvalidModelError,
    named,
)
from timesformer_runtime.forks import call_in_forks, keep_forever
from timesformer_runtime.model import cpu
from timesformer_runtime.model.device import (
    FATAL,
    Device,
    load_onnxruntime,
    one_line,
    ort_errors,
    quiet,
    quiet_options,
)
from timesformer_runtime.model.graph_file import (
    FileVersion,
    GraphSource,
    being_written,
    source_of_bytes,
    source_of_file,
)
from timesformer_runtime.model.placement import (
    RECORD_PLACEMENT,
    Placement,
    can_tell,
    find_placement,
)
from timesformer_runtime.model.settings import SWITCHES, SessionSettings
from timesformer_runtime.watchdog import time_limit

_LOAD_SECONDS = 600.0  # far more than the largest model takes from the slowest disk

_SPINNING = "session.intra_op.allow_spinning"
_MEMORY_PATTERN = "enable_mem_pattern"
_INT8_PRECISION = "session.x64quantprecision"
_PARALLEL_PACKING = "session.prepack.enable_parallel"
_CPU = "CPUExecutionProvider"
# Providers that do not take the session's number of threads, and their option for it.
_THREADS_OPTIONS = {"OpenVINOExecutionProvider": "num_of_threads"}
# Their drivers do not work in a process that was forked after they were started.
_WITHOUT_FORK = ("CUDAExecutionProvider", "TensorrtExecutionProvider")
_ATTEMPTS = 5  # to load a model that is replaced again and again
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """A graph's input or output; static dimensions are integers, others are names or None."""

    name: str
    type: str
    shape: tuple[int | str | None, ...]


class Session:
    """One loaded graph. Calls of ``run`` may come from several threads at once.

    A process that is forked later loads the graph again when it first runs the graph.

    Args:
        graph: The ``.onnx`` file, or its contents.
        device: Where to run, from ``choose_device``.
        settings: Threads and session options.

    Attributes:
        device: As given.
        providers: The providers that the session really uses.
        threads: CPU threads that one run uses.
        inputs: The inputs of the graph.
        outputs: The outputs of the graph.
        placement: The nodes that another device than the CPU leaves to the CPU, but for arithmetic
            on shapes.
        metadata: The file's ``metadata_props``.
        files: The versions of the graph's file and of its weights' files that were loaded; for a
            graph that was given as bytes only its weights' files.
        wide_products: True if products of signed 8-bit weights are computed in 16 bits, because
            8-bit products overflow on this processor. 16 bits are slower, but right.

    Raises:
        InvalidModelError: The graph is not an ONNX model that this ONNX Runtime can load.
        DeviceError: The device does not take the graph, or not all of it; or the session started
            without a provider that it must have.
        MissingDependencyError: ONNX Runtime is not installed.
    """

    def __init__(self, graph: Path | bytes, device: Device, settings: SessionSettings) -> None:
        self.device = device
        self.threads = settings.threads or cpu.granted_threads()
        self._settings = settings
        self._graph: Path | bytes = graph
        self._name = str(graph) if isinstance(graph, Path) else "the model's bytes"
        self._entries = _config_entries(settings)
        self._lock = threading.Lock()  # held while a forked process loads the graph again
        self._is_closed = False
        self._runs: set[Any] = set()  # the options of runs that are going on
        source, session = self._load()
        self.files: tuple[FileVersion, ...] = source.files
        if isinstance(graph, Path):
            # A forked process may load the graph again from another working directory.
            self._graph = graph.absolute()
        self.providers: tuple[str, ...] = tuple(session.get_providers())
        self._check_providers()
        try:
            self.inputs = tuple(_tensor_info(node) for node in session.get_inputs())
            self.outputs = tuple(_tensor_info(node) for node in session.get_outputs())
            self.metadata: dict[str, str] = dict(session.get_modelmeta().custom_metadata_map)
        except UnicodeDecodeError as error:
            raise InvalidModelError(
                f"{self._name}: its metadata, or a name in it, is not text in UTF-8 "
                f"({error.reason}); export it again"
            ) from error
        self.placement = self._placement(session, source)
        # Weights of 7 bits cannot overflow: ONNX Runtime leaves them as they are.
        self.wide_products = (
            self._entries.get(_INT8_PRECISION) == "1" and self.metadata.get("int8_target") != "avx2"
        )
        self._session = session
        call_in_forks(self, Session._leave_to_parent)

    def run(
        self,
        outputs: Sequence[str],
        feeds: Mapping[str, npt.NDArray[Any]],
        seconds: float = math.inf,
    ) -> list[npt.NDArray[Any]]:
        """Computes the named outputs.

        Args:
            outputs: Names in the graph.
            feeds: Arrays by the names of the graph's inputs.
            seconds: How long the run may take; a single operation is not interrupted. Less than 0
                where earlier steps took more time than there was.

        Raises:
            ClosedError: The session is closed.
            InvalidModelError: The graph failed on the CPU.
            DeviceError: The graph failed on another device.
            InferenceTimeoutError: The graph was not done in time.
        """
        session = self._session or self._session_after_fork()
        options = load_onnxruntime().RunOptions()
        options.log_severity_level = FATAL
        self._runs.add(options)
        with time_limit(seconds, lambda: setattr(options, "terminate", True)) as alarm:
            try:
                return list(session.run(list(outputs), dict(feeds), options))
            except ort_errors() as error:
                raise self._run_error(error, feeds, seconds if alarm.rang else None) from error
            finally:
                self._runs.discard(options)

    def _run_error(
        self, error: Exception, feeds: Mapping[str, npt.NDArray[Any]], stopped_after: float | None
    ) -> InferenceTimeoutError | InvalidModelError | DeviceError:
        """Makes the error for a failed run; ``stopped_after`` is None unless the time was over."""
        if stopped_after is not None:
            return InferenceTimeoutError(
                f"{self._name}: one run of the model is not done after {max(stopped_after, 0):.3g} "
                "seconds; allow more with `max_seconds`, or do not trust a model whose run never "
                "ends"
            )
        shapes = ", ".join(f"{named(name)} {list(array.shape)}" for name, array in feeds.items())
        kind = InvalidModelError if self.device.name == "cpu" else DeviceError
        return kind(
            f"{self._name} failed on {self.device.name} for {shapes}: {one_line(error)}; "
            "check that config.json and preprocessor_config.json belong to this graph"
        )

    def check_open(self) -> None:
        """Makes sure that the session is not closed.

        Raises:
            ClosedError: The session is closed.
        """
        if self._is_closed:
            raise ClosedError(f"{self._name}: the model is closed; load it again")

    def close(self) -> None:
        """Frees the graph's memory, or leaves that to the last run that is going on."""
        with self._lock:
            self._is_closed = True
            self._session = None

    def _leave_to_parent(self) -> None:
        """Gives up the parent's session in a forked process, which lacks the session's threads.

        A session of one CPU thread needs no other threads: the child keeps it, so that both
        processes share the weights. If the fork came during a run, the child gives up such a
        session too: the locks of the run would stay locked for ever.
        """
        self._lock = threading.Lock()
        if self.threads == 1 and self.device.name == "cpu" and not self._runs:
            return
        self._runs.clear()
        if self._session is not None:
            keep_forever(self._session)
            self._session = None

    def _session_after_fork(self) -> Any:
        """The session of a forked process, started when the process first runs the graph."""
        with self._lock:
            self.check_open()
            if self._session is None:
                if any(name in self.providers for name in _WITHOUT_FORK):
                    raise DeviceError(
                        f"{self._name}: CUDA does not work in a process that is forked after the "
                        "model was loaded; load it after the fork, or start processes by 'spawn'"
                    )
                source, session = self._load()
                if [file.contents for file in source.files] != [
                    file.contents for file in self.files
                ]:
                    raise InvalidModelError(
                        f"{self._name}: it was replaced after it was loaded, and this process, "
                        "which was forked since, has to read it again: load the new model"
                    )
                self._session = session
            return self._session

    def _load(self) -> tuple[GraphSource, Any]:
        """Starts a session; starts another one if the model was replaced meanwhile."""
        for attempt in range(_ATTEMPTS):
            source = self._source(copies=attempt > 0)
            try:
                session = self._start(source)
            except (InvalidModelError, DeviceError):
                if not source.was_replaced():
                    raise
                continue
            finally:
                source.clean_up()
            if not source.was_replaced():
                _give_back_freed_memory()
                return source, session
        raise being_written(self._name)

    def _source(self, *, copies: bool) -> GraphSource:
        """Checks the graph; returns the path or contents from which to start a session."""
        if isinstance(self._graph, bytes):
            folder = self._entries.get(_WEIGHTS_FOLDER)
            return source_of_bytes(self._graph, Path(folder) if folder else None, self._name)
        try:
            str(self._graph).encode()
        except UnicodeEncodeError as error:
            raise InvalidModelError(
                f"{self._graph!a}: ONNX Runtime opens only paths in UTF-8; rename it"
            ) from error
        return source_of_file(
            self._graph,
            self._name,
            maps=self.device.name == "cpu",
            unsigned=self._entries.get(_INT8_PRECISION) == "1" and _takes_arrays(),
            copies=copies,
        )

    def _start(self, source: GraphSource) -> Any:
        """Starts a session of ONNX Runtime; stops loading after ``_LOAD_SECONDS``."""
        onnxruntime = load_onnxruntime()
        entries = self._entries
        if self.device.name != "cpu":
            entries = {**entries, RECORD_PLACEMENT: "1"}
        if source.is_mapped:
            # Weights that are not mapped would all be kept until the last of them is packed.
            entries = {_PARALLEL_PACKING: "1", **entries, _WEIGHTS_FOLDER: str(source.folder)}
        if source.cannot_overflow:  # the option only makes loading slower then
            entries = {**entries, _INT8_PRECISION: "0"}
        model = source.model
        options = self._options(onnxruntime, entries)
        # The options do not hold these; they must live until the session has started.
        weights = {
            name: onnxruntime.OrtValue.from_dlpack(array) for name, array in source.unsigned.items()
        }
        for name, value in weights.items():
            options.add_initializer(name, value)
        if self.device.name != "cpu" and source.outline.batch_axis is not None:
            # Clips run one by one. Some providers take only static shapes, others are faster then.
            options.add_free_dimension_override_by_name(source.outline.batch_axis, 1)
        cancel = options.set_load_cancellation_flag
        with quiet(onnxruntime), time_limit(_LOAD_SECONDS, lambda: cancel(True)) as alarm:
            try:
                return onnxruntime.InferenceSession(
                    str(model) if isinstance(model, Path) else model,
                    options,
                    providers=list(self.device.providers),
                    provider_options=self._provider_options(),
                    enable_fallback=0,
                )
            except ort_errors() as error:
                if alarm.rang:
                    reason = f"ONNX Runtime is not done with it after {_LOAD_SECONDS:g} seconds"
                    raise InvalidModelError(
                        f"{self._name}: cannot load it: {reason}; do not trust it, or export it "
                        "again"
                    ) from error
                if self.device.name != "cpu":
                    self._check_on_cpu(one_line(error))
                raise InvalidModelError(
                    f"{self._name}: ONNX Runtime {onnxruntime.__version__} cannot load it "
                    f"on {self.device.name} ({one_line(error)}); give a complete file, or export "
                    "it again"
                ) from error

    def _check_on_cpu(self, reason: str) -> None:
        """Loads the graph on the CPU, to learn if the graph or the device is the problem.

        Raises:
            DeviceError: The graph loads there.
        """
        on_cpu = Device("cpu", (_CPU,), ({},))
        try:
            session = Session(self._graph, on_cpu, self._settings)
        except InvalidModelError:
            return
        raise DeviceError(
            f"{self._name}: {self.device.name} refuses it, though it loads on the CPU ({reason}); "
            f"{_remedy(session.metadata)}, or correct the options of the provider"
        )

    def _check_providers(self) -> None:
        """Checks that ONNX Runtime started all providers: it leaves out those that do not start."""
        missing = [name for name in self.device.providers if name not in self.providers]
        if missing:
            raise DeviceError(
                f"{self._name}: the session runs without {', '.join(missing)}"
                f"{self._perhaps_because_of(missing)} "
                f"(it has {', '.join(self.providers)}); use `device=cpu` or other providers"
            )

    def _placement(self, session: Any, source: GraphSource) -> Placement:
        """Finds the nodes that the device leaves to the CPU.

        Raises:
            DeviceError: There are some, and the device must not leave any.
        """
        if self.device.name == "cpu":
            return Placement()
        if not can_tell(session):
            if self.device.allows_cpu_nodes:
                return Placement()
            raise DeviceError(
                f"{self._name}: ONNX Runtime {load_onnxruntime().__version__} cannot tell which "
                f"nodes {self.device.name} leaves to the CPU: install 1.24 or newer, or accept "
                "such nodes with `allow_cpu_nodes=True`"
            )
        found = find_placement(session, source.outline.shape_arithmetic)
        if found.on_cpu and not self.device.allows_cpu_nodes:
            raise DeviceError(
                f"{self._name}: {self.device.name} leaves {len(found.on_cpu)} of its {found.total} "
                f"nodes to the CPU{self._perhaps_because_of(self.device.providers)}: "
                f"{found.describe()}; {_remedy(self.metadata)}, or accept these "
                "nodes with `allow_cpu_nodes=True`"
            )
        return found

    def _perhaps_because_of(self, names: Sequence[str]) -> str:
        """Names the user's options for some providers, for a message; empty without any.

        ONNX Runtime itself says only in its log why a provider does not start.
        """
        given = ", ".join(
            f"{key}={value!r}"
            for name, options in zip(
                self.device.providers, self._settings.provider_options or (), strict=False
            )
            for key, value in options.items()
            if name in names
        )
        return f" (perhaps because of its options {given})" if given else ""

    def _provider_options(self) -> list[dict[str, Any]]:
        return [
            ({_THREADS_OPTIONS[name]: str(self.threads)} if name in _THREADS_OPTIONS else {})
            | dict(options)
            for name, options in zip(self.device.providers, self.device.options, strict=True)
        ]

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
    """Merges this package's defaults for ONNX Runtime's session options with the user's options."""
    entries = {_SPINNING: "0", _MEMORY_PATTERN: "0"}
    if cpu.saturates_int8():
        entries[_INT8_PRECISION] = "1"
    return {**entries, **settings.session_options}


def _takes_arrays() -> bool:
    """False for an old ONNX Runtime, such as that of OpenVINO, which cannot own given weights."""
    return hasattr(load_onnxruntime().OrtValue, "from_dlpack")


def _remedy(metadata: Mapping[str, str]) -> str:
    """Says what may help where a device does not take a graph, or not all of it."""
    if metadata.get("target") == "portable":
        return "use `device=cpu` for it"
    return (
        "export it with timesformer-export --target portable, which writes only operators that "
        "most devices take"
    )


def _give_back_freed_memory() -> None:
    """Returns to the system the memory that was freed after parsing and packing the weights.

    This is 45 MB of 520 for a float32 base model, and 100 of 250 for an int8 one given as bytes.
    Only glibc keeps such memory, and only glibc has the function ``malloc_trim``.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def _tensor_info(node: Any) -> TensorInfo:
    return TensorInfo(node.name, node.type, tuple(node.shape))


def as_float32(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Converts an output of any type to float32; values that are too large become infinite."""
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False)
