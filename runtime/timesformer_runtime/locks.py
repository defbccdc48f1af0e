"""Locks of files and folders against other runs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]


def try_lock(descriptor: int) -> bool:
    """Locks an open file or folder until it is closed.

    Returns:
        False if another run has locked it, else True. On a system or a file system without locks,
        always True.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks
    return True


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[bool]:
    """Locks a folder during the block; gives False where another run has locked it.

    Raises:
        OSError: The folder cannot be opened.
    """
    if fcntl is None:  # Windows opens no folders, either
        yield True
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield try_lock(descriptor)
    finally:
        os.close(descriptor)
