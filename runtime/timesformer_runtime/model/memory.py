"""Asks the system about memory: of the machine, of its control group, and of this process."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

from timesformer_runtime.model.control_groups import control_groups, read

_UNLIMITED = 1 << 60  # bytes; version 1 writes "no limit" as nearly 2^63


@dataclasses.dataclass(frozen=True)
class Memory:
    """The memory that programs can take, in bytes; None where the system does not tell.

    Attributes:
        total: Memory of the machine.
        available: The memory of the machine that is free, or becomes free without swapping.
        limit: The smallest limit of this process's control groups; None also where there is none.
        left: The free memory of the control group that has the least of it; None without a limit.
    """

    total: int | None
    available: int | None
    limit: int | None
    left: int | None

    @property
    def usable(self) -> int | None:
        """The bytes that this process can still take; None where that is not known."""
        known = [size for size in (self.available, self.left) if size is not None]
        return min(known, default=None)


def machine_memory(root: Path = Path("/")) -> Memory:
    """Reads the memory of the machine and the limits of this process's control groups, on Linux.

    Args:
        root: Where ``/proc`` and ``/sys`` are mounted.
    """
    facts = _kilobytes(root / "proc" / "meminfo")
    groups = list(_limits_and_usage(root))
    return Memory(
        total=facts.get("MemTotal"),
        available=facts.get("MemAvailable"),
        limit=min((limit for limit, _ in groups), default=None),
        left=min((max(limit - used, 0) for limit, used in groups), default=None),
    )


def peak_of_this_process() -> int | None:
    """The most memory that this process has held at once, in bytes; None where it is not known.

    ``getrusage`` alone would not do on Linux: there it counts the parent's memory, too.
    """
    peak = _kilobytes(Path("/proc/self/status")).get("VmHWM")
    if peak is not None or sys.platform in ("linux", "win32"):
        return peak
    import resource  # noqa: PLC0415  # Windows does not have it

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _kilobytes(path: Path) -> dict[str, int]:
    """Reads lines such as ``MemTotal: 16318 kB``; returns bytes."""
    facts = {}
    for line in read(path).splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if len(words) == 2 and words[0].isdigit() and words[1] == "kB":
            facts[name] = int(words[0]) * 1024
    return facts


def _limits_and_usage(root: Path) -> Iterator[tuple[int, int]]:
    """Gives limit and used bytes of this process's groups that have a limit."""
    for directory in control_groups("memory", root):
        for limit_file, usage_file in (
            ("memory.max", "memory.current"),  # version 2
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),  # version 1
        ):
            limit = read(directory / limit_file).strip()
            used = read(directory / usage_file).strip()
            if limit.isdigit() and int(limit) < _UNLIMITED:
                yield int(limit), int(used) if used.isdigit() else 0
