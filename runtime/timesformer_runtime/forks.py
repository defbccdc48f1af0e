"""Tells objects when a process is forked: the new process inherits them without their threads."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

_methods: weakref.WeakKeyDictionary[Any, Callable[[Any], None]] = weakref.WeakKeyDictionary()


def call_in_forks(thing: T, method: Callable[[T], None]) -> None:
    """Makes each process that is forked later call a method of its copy of an object.

    The call comes before anything else runs in the new process. The method gives up what only the
    parent can use or end. It must not wait for a lock: another thread of the parent may have held
    the lock when the process was forked.

    Args:
        thing: The object, which this module does not keep alive.
        method: A function of its class.
    """
    _methods[thing] = method


def keep_forever(thing: object) -> None:
    """Makes sure that an object's destructor never runs, not even when the interpreter ends.

    The destructor of an object that has threads waits for them: in a forked process for ever.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _call_all() -> None:
    for thing, method in tuple(_methods.items()):
        method(thing)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_call_all)
