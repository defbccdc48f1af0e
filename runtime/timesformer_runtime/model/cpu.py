"""Asks the system how many CPU threads this process may use, and which instructions they have."""

import functools
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from timesformer_runtime.model.control_groups import control_groups, read
from timesformer_runtime.model.device import load_onnxruntime, quiet_options

# The names in /proc/cpuinfo of the integer dot products that make int8 models fast.
_INT8_FEATURES = ("avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")
_OTHER_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimdhp", "bf16", "sve")

# An ONNX model, y = MatMulInteger(a, b) for a uint8 [2, 16] and b int8 [16, 16].
_PRODUCT = bytes.fromhex(
    "08083a5c0a180a01610a0162120179220d4d61744d756c496e74656765721201675a130a0161120e0a0c0802120"
    "80a0208020a0208105a130a0162120e0a0c080312080a0208100a02081062130a0179120e0a0c080612080a0208"
    "020a02081042040a00100a"
)


def granted_threads(root: Path = Path("/")) -> int:
    """Number of threads that can run at once, as affinity and the container's quota allow.

    The result is the smaller of two numbers: the CPUs in the scheduler's affinity mask, and the CPU
    quota of the control group (version 1 or 2) and of the groups above it, rounded up; at least 1.
    ONNX Runtime itself does not look at quotas.

    Args:
        root: Where ``/proc`` and ``/sys`` are mounted.
    """
    quota = cpu_quota(root)
    affinity = _affinity()
    return affinity if quota is None else max(1, min(affinity, math.ceil(quota)))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """The smallest CPU quota of this process's control groups, in CPUs; None without a quota."""
    limits = [limit for directory in control_groups("cpu", root) for limit in _limits(directory)]
    return min(limits, default=None)


def instruction_sets(root: Path = Path("/")) -> tuple[str, ...] | None:
    """Instruction sets that matter for speed, in Linux's spelling; None where unknown."""
    flags = _cpu_flags(root)
    if flags is None:
        return None
    return tuple(name for name in (*_OTHER_FEATURES, *_INT8_FEATURES) if name in flags)


@functools.cache
def saturates_int8() -> bool:
    """Tries out whether ONNX Runtime's 8-bit products overflow here, as on x86 without VNNI.

    A look into ``/proc/cpuinfo`` is not enough: in an emulator or a virtual machine it may name
    another processor than the one that programs run on, and other systems do not have that file.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
    """
    onnxruntime = load_onnxruntime()
    options = quiet_options(onnxruntime)
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(_PRODUCT, options, providers=["CPUExecutionProvider"])
    length, activation, weight = 16, 255, 127
    feeds = {
        "a": np.full((2, length), activation, dtype=np.uint8),
        "b": np.full((length, length), weight, dtype=np.int8),
    }
    (products,) = session.run(None, feeds)
    return bool((products != length * activation * weight).any())


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _limits(directory: Path) -> Iterator[float]:
    """Reads the quota of one group in CPUs, from version 2's file and from version 1's."""
    quota, _, period = read(directory / "cpu.max").strip().partition(" ")
    yield from _ratio(quota, period)
    quota = read(directory / "cpu.cfs_quota_us").strip()
    yield from _ratio(quota, read(directory / "cpu.cfs_period_us").strip())


def _ratio(quota: str, period: str) -> Iterator[float]:
    """Gives the quota in CPUs; nothing for "max", -1 (no limit) and files that do not exist."""
    if quota.isdigit() and period.isdigit() and int(quota) > 0 and int(period) > 0:
        yield int(quota) / int(period)


def _cpu_flags(root: Path) -> frozenset[str] | None:
    for line in read(root / "proc" / "cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in {"flags", "Features"}:  # x86, ARM
            return frozenset(value.split())
    return None
