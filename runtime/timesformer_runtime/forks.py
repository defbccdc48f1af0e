"""Tells objects when a process is forked: the new process inherits them without their threads."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable

_methods: set[weakref.WeakMethod[Callable[[], None]]] = set()


def call_in_forks(method: Callable[[], None]) -> None:
    """Makes each process that is forked later call a method of its copy of an object.

    The call comes before anything else runs in the new process. The method gives up what only the
    parent can use or end. It must not wait for a lock: another thread of the parent may have held
    the lock when the process was forked.

    Args:
        method: A bound method. This module does not keep its object alive.
    """
    _methods.add(weakref.WeakMethod(method, _methods.discard))


def keep_forever(thing: object) -> None:
    """Makes sure that an object's destructor never runs, not even when the interpreter ends.

    The destructor of an object that has threads waits for them: in a forked process for ever.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _call_all() -> None:
    for reference in _methods.copy():  # a collected object leaves the set at any moment
        method = reference()
        if method is not None:
            method()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_call_all)
