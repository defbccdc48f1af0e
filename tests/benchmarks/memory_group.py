"""Runs a program in a control group of Linux that has no more than a given memory."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
# Names of the files, in version 2 and in version 1: the limit, and the most that was taken.
_FILES = (("memory.max", "memory.peak"), ("memory.limit_in_bytes", "memory.max_usage_in_bytes"))


@dataclasses.dataclass(frozen=True)
class MemoryGroup:
    """A control group with a limit.

    Attributes:
        folder: The group's folder below ``/sys/fs/cgroup``.
        peak_file: The name of its file with the most memory that was taken.
    """

    folder: Path
    peak_file: str

    def inside(self, command: Sequence[str]) -> list[str]:
        """A command that enters the group, and then becomes the given one."""
        enter = 'echo $$ > "$0" && exec "$@"'
        return ["sh", "-c", enter, str(self.folder / "cgroup.procs"), *command]

    def peak_mb(self) -> float:
        """The most memory that the group had, in 10^6 bytes, with the pages of files it read."""
        return int((self.folder / self.peak_file).read_text()) / 1e6


@contextlib.contextmanager
def memory_group(limit_mb: float) -> Iterator[MemoryGroup | None]:
    """Makes a group for the time of a ``with`` block; gives None where none can be made."""
    group = next(filter(None, (_make(parent, limit_mb) for parent in _parents())), None)
    try:
        yield group
    finally:
        if group is not None:
            group.folder.rmdir()


def _parents() -> Iterator[Path]:
    """Gives the folder of this process's group, in which it may be allowed to make others."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            yield _CGROUPS / group.lstrip("/")
        elif "memory" in controllers.split(","):
            yield _CGROUPS / "memory" / group.lstrip("/")


def _make(parent: Path, limit_mb: float) -> MemoryGroup | None:
    folder = parent / f"timesformer-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError:
        return None
    for limit_file, peak_file in _FILES:
        if (folder / limit_file).exists():
            (folder / limit_file).write_text(str(int(limit_mb * 1e6)))
            return MemoryGroup(folder, peak_file)
    folder.rmdir()  # version 2, with the memory controller off
    return None
