"""SessionSettings: the options of a session, validated; picklable, unlike the session."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from timesformer_runtime.errors import InvalidOptionError, quoted
from timesformer_runtime.option_checks import check_flag, check_threads

DEVICES = ("auto", "cpu", "cuda", "cuda:N")
_DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]{1,3})?")

_CONFIG_PREFIXES = ("session.", "optimization.", "ep.", "mlas.", "memory.")

# Attributes of ONNX Runtime's SessionOptions; all other keys are configuration entries.
SWITCHES = ("enable_cpu_mem_arena", "enable_mem_pattern")

# Configuration entries for speed and memory that are switches, too. ONNX Runtime ignores keys and
# values that it does not know, so a key that is nearly one of these counts as misspelt.
_SWITCH_ENTRIES = (
    "session.disable_prepacking",
    "session.force_spinning_stop",
    "session.inter_op.allow_spinning",
    "session.intra_op.allow_spinning",
    "session.prepack.enable_parallel",
    "session.set_denormal_as_zero",
    "session.use_deterministic_compute",
    "session.use_device_allocator_for_initializers",
    "session.use_env_allocators",
    "session.x64quantprecision",
)
_MISSPELLING = 0.9  # likeness by difflib from which a key counts as misspelt; 1 is equal


@dataclasses.dataclass(frozen=True)
class SessionSettings:
    """Options of a session: the device, its threads, and options of ONNX Runtime.

    Attributes:
        device: ``auto`` (CUDA where it works, else the CPU), ``cpu``, ``cuda`` or ``cuda:N``, the
            GPU of number N, from 0.
        threads: CPU threads for one clip; None for as many as affinity and the quota grant.
        providers: Names of ONNX Runtime execution providers, most wanted first, in place of
            ``device``; each must be available. ``openvino`` is short for
            ``OpenVINOExecutionProvider``.
        provider_options: For each of ``providers`` its options, as ONNX Runtime takes them.
        allow_cpu_nodes: True to let a device that is named by ``device`` or ``providers`` leave
            nodes of the graph to the CPU. Otherwise that is an error, unless ``providers`` names
            the CPU's provider, too.
        session_options: ONNX Runtime's session configuration entries and the switches
            ``enable_cpu_mem_arena`` and ``enable_mem_pattern``, all by name, with strings as
            values. ``docs/reference/sessions.md`` lists the defaults that differ from ONNX
            Runtime's, and how much time and memory each of them saves.

    Raises:
        InvalidOptionError: A value is not allowed, or two of them contradict each other.
    """

    device: str = "auto"
    threads: int | None = None
    providers: Sequence[str] | None = None
    provider_options: Sequence[Mapping[str, Any]] | None = None
    allow_cpu_nodes: bool = False
    session_options: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_device(self.device)
        if self.threads is not None:
            check_threads(self.threads)
        self._check_providers()
        check_flag("allow_cpu_nodes", self.allow_cpu_nodes)
        if self.allow_cpu_nodes and self.providers is None and self.device in ("auto", "cpu"):
            raise InvalidOptionError(
                f"`allow_cpu_nodes` is for another device than {self.device!r}: name one with "
                "`device` or `providers`"
            )
        if not isinstance(self.session_options, Mapping):
            raise InvalidOptionError(
                f"`session_options` is {quoted(self.session_options)}; it must be a mapping of "
                "names to strings"
            )
        for key, value in self.session_options.items():
            _check_session_option(key, value)

    def _check_providers(self) -> None:
        if self.providers is None:
            if self.provider_options is not None:
                raise InvalidOptionError("`provider_options` needs `providers`: name them too")
            return
        if self.device != "auto":
            raise InvalidOptionError(
                f"`device={self.device}` and `providers` contradict each other: give one of them"
            )
        if not self.providers or not _is_list_of(str, self.providers):
            raise InvalidOptionError(
                f"`providers` is {quoted(self.providers)}; it must be a list of names, "
                "such as 'CPUExecutionProvider'"
            )
        options = self.provider_options
        if options is None:
            return
        if not _is_list_of(Mapping, options):
            raise InvalidOptionError(
                f"`provider_options` is {quoted(options)}; it must be a list with one mapping for "
                "each of `providers`"
            )
        if len(options) != len(self.providers):
            raise InvalidOptionError(
                f"`provider_options` has {len(options)} entries for {len(self.providers)} "
                "`providers`; give one mapping for each"
            )


def _is_list_of(kind: type, values: object) -> bool:
    return isinstance(values, list | tuple) and all(isinstance(value, kind) for value in values)


def check_device(device: object) -> None:
    """Checks the name of a device; only loading a model shows if the device is available.

    Raises:
        InvalidOptionError: The name is not that of a device.
    """
    if not isinstance(device, str) or not _DEVICE.fullmatch(device):
        raise InvalidOptionError(
            f"`device` is {device!r}; it must be one of {', '.join(DEVICES)} (N is the GPU's "
            "number); for other devices name one of ONNX Runtime's execution providers"
        )


def _check_session_option(key: object, value: object) -> None:
    if key in (*SWITCHES, *_SWITCH_ENTRIES):
        if value not in ("0", "1"):
            raise InvalidOptionError(f"`session_options` has {key!r}: {value!r}; give '0' or '1'")
    elif not str(key).startswith(_CONFIG_PREFIXES) or not isinstance(value, str):
        raise InvalidOptionError(
            f"`session_options` has {key!r}: {value!r}; keys are ONNX Runtime's session "
            f'configuration entries ("session.…") or {", ".join(SWITCHES)}, and values are strings'
        )
    else:
        _check_spelling(str(key))


def _check_spelling(key: str) -> None:
    import difflib  # noqa: PLC0415  # rarely needed, and as slow to import as all of this

    meant = difflib.get_close_matches(key, _SWITCH_ENTRIES, n=1, cutoff=_MISSPELLING)
    if meant:
        raise InvalidOptionError(
            f"`session_options` has {key!r}, which ONNX Runtime ignores; {meant[0]!r} is meant"
        )
