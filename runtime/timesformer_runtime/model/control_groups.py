"""Finds the control groups of this process: Linux's limits on processors and memory."""

from collections.abc import Iterator
from pathlib import Path


def control_groups(controller: str, root: Path = Path("/")) -> Iterator[Path]:
    """Gives directories that may limit this process: its groups and all above them.

    Args:
        controller: The resource that the groups limit: ``cpu`` or ``memory``.
        root: Where ``/proc`` and ``/sys`` are mounted.
    """
    mount = root / "sys" / "fs" / "cgroup"
    for line in read(root / "proc" / "self" / "cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        names = controllers.split(",")
        if number == "0":  # version 2
            bases = [mount, mount / "unified"]
        elif controller in names:
            bases = [mount / name for name in (controller, controllers, ",".join(names[::-1]))]
        else:
            continue
        relative = Path(group.lstrip("/"))
        # A container may see its own group as the mount's root, whatever its path says.
        for base in bases:
            yield from (base / part for part in (relative, *relative.parents))


def read(path: Path) -> str:
    """Reads a file of the system; gives an empty text where it does not exist or is hidden."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
