"""What this process is granted of the CPU: how many threads, and which instructions."""

import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path

# The names under /proc/cpuinfo of the integer dot products that make int8 models fast; without
# them, x86 kernels for unsigned activations and signed weights saturate.
_INT8_FEATURES = ("avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")
_OTHER_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimdhp", "bf16", "sve")
_V1_MOUNTS = ("cpu", "cpu,cpuacct", "cpuacct,cpu")


def granted_threads(root: Path = Path("/")) -> int:
    """How many threads can run at once: what affinity and the container's quota allow.

    The smaller of the scheduler's affinity mask and the CPU quota of the control group (version
    1 or 2) and of the groups above it, rounded up; at least 1. ONNX Runtime itself looks at
    neither quota.

    Args:
        root: Where ``/proc`` and ``/sys`` are mounted.
    """
    quota = cpu_quota(root)
    affinity = _affinity()
    return affinity if quota is None else max(1, min(affinity, math.ceil(quota)))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPUs' worth of time that the control groups of this process allow; None without a limit."""
    limits = [limit for directory in _control_groups(root) for limit in _limits(directory)]
    return min(limits, default=None)


def instruction_sets(root: Path = Path("/")) -> tuple[str, ...] | None:
    """Instruction sets that matter for speed, in Linux's spelling; None where unknown."""
    flags = _cpu_flags(root)
    if flags is None:
        return None
    return tuple(name for name in (*_OTHER_FEATURES, *_INT8_FEATURES) if name in flags)


def saturates_int8(root: Path = Path("/")) -> bool:
    """Whether 8-bit products may overflow here, as on x86 without VNNI.

    An x86 processor whose instruction sets are unknown (not Linux) counts as one that does:
    slow is better than wrong.
    """
    if platform.machine().lower() not in {"x86_64", "amd64", "i386", "i686"}:
        return False
    flags = _cpu_flags(root)
    return flags is None or not flags.intersection(_INT8_FEATURES)


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _control_groups(root: Path) -> Iterator[Path]:
    """Directories that may limit the CPU: this process's groups and all above them."""
    mount = root / "sys" / "fs" / "cgroup"
    for line in _read(root / "proc" / "self" / "cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0":
            bases = [mount, mount / "unified"]
        elif "cpu" in controllers.split(","):
            bases = [mount / name for name in _V1_MOUNTS]
        else:
            continue
        relative = Path(group.lstrip("/"))
        # A container may see its own group as the mount's root, whatever its path says.
        for base in bases:
            yield from (base / part for part in (relative, *relative.parents))


def _limits(directory: Path) -> Iterator[float]:
    """The quota of one group in CPUs, in version 2's file and in version 1's."""
    quota, _, period = _read(directory / "cpu.max").strip().partition(" ")
    yield from _ratio(quota, period)
    quota = _read(directory / "cpu.cfs_quota_us").strip()
    yield from _ratio(quota, _read(directory / "cpu.cfs_period_us").strip())


def _ratio(quota: str, period: str) -> Iterator[float]:
    """Nothing for "max", -1 (no limit) and files that are not there."""
    if quota.isdigit() and period.isdigit() and int(quota) > 0 and int(period) > 0:
        yield int(quota) / int(period)


def _cpu_flags(root: Path) -> frozenset[str] | None:
    for line in _read(root / "proc" / "cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in {"flags", "Features"}:  # x86, ARM
            return frozenset(value.split())
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # not Linux, or hidden from this process: then nothing is known
