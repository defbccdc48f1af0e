"""Tells objects when a process is forked: the new process inherits them without their threads."""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Protocol


class Inherited(Protocol):
    """An object that works only in the process that made it."""

    def leave_to_parent(self) -> None:
        """Gives up, in a forked process, what only the parent can use or end."""


_inherited: weakref.WeakSet[Inherited] = weakref.WeakSet()


def tell_of_forks(thing: Inherited) -> None:
    """Makes each process that is forked later call ``leave_to_parent`` of its copy of an object.

    The call comes before anything else runs in the new process. It must not wait for a lock:
    another thread of the parent may have held the lock when the process was forked.
    """
    _inherited.add(thing)


def keep_forever(thing: object) -> None:
    """Makes sure that an object's destructor never runs, not even when the interpreter ends.

    The destructor of an object that has threads waits for them: in a forked process for ever.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _leave_all_to_parent() -> None:
    for thing in tuple(_inherited):
        thing.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all_to_parent)
