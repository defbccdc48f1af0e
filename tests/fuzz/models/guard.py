"""Tells when Python or a C++ library touches something that is not part of a model."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SECRET = b"\x5e\xc7\xe7\x42" * 16  # sixteen float32 of 115.889 also make a tensor
SECRET_JSON = b'{"secret-canary": "secret-canary"}'
_MARKS = ("secret-canary", SECRET.decode("latin1"))

# Flags of inotify(7).
_ACCESS, _MODIFY, _OPEN, _MOVED_TO, _CREATE, _DELETE = 0x1, 0x2, 0x20, 0x80, 0x100, 0x200
_IS_FOLDER = 0x40000000
_TOUCHES = {
    _ACCESS: "read",
    _MODIFY: "changed",
    _OPEN: "opened",
    _MOVED_TO: "replaced",
    _CREATE: "created",
    _DELETE: "deleted",
}
_EVENT = struct.Struct("iIII")

# Files of the system that libraries may read besides their own files.
_OF_THE_SYSTEM = (
    "/proc/self/cgroup",
    "/proc/self/mountinfo",
    "/proc/self/statm",
    "/proc/self/status",
    "/proc/cpuinfo",
    "/proc/sys/kernel/",
    "/sys/",
    "/dev/null",
    "/dev/urandom",
)
# Maps the names of Python's audit events to the numbers of their arguments that are paths.
_PATHS = {
    "open": (0,),
    "os.chmod": (0,),
    "os.link": (0, 1),
    "os.listdir": (0,),
    "os.mkdir": (0,),
    "os.remove": (0,),
    "os.rename": (0, 1),
    "os.rmdir": (0,),
    "os.scandir": (0,),
    "os.symlink": (1,),
    "os.truncate": (0,),
}
_IN_A_FOLDER = ("os.remove", "os.rmdir")  # their last argument can be an open folder
# Audit events that loading a model must never cause.
_NEVER = (
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.system",
    "pickle.find_class",
    "pty.spawn",
    "subprocess.Popen",
)


class SecretFiles:
    """Files that no model may touch; inotify tells when a process touches one.

    Args:
        folders: The folders into which the files are written.
        names: The names of the files; ``pipe`` becomes a named pipe.
    """

    def __init__(self, folders: Sequence[Path], names: Sequence[str]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._events = self._checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._watched: dict[int, Path] = {}
        self._pipes = []
        for folder in folders:
            folder.mkdir(exist_ok=True)
            for path in (folder / name for name in names):
                if path.name == "pipe":
                    os.mkfifo(path)
                    # A writer holds the pipe open; otherwise nobody could open it to read.
                    self._pipes.append(os.open(path, os.O_RDWR))
                else:
                    path.write_bytes(SECRET_JSON if path.suffix == ".json" else SECRET)
                self._watch(path, _ACCESS | _MODIFY | _OPEN)
            self._watch(folder, _CREATE | _DELETE | _MOVED_TO)

    def touched(self) -> list[str]:
        """Lists what happened to the files since the last call: ``opened <path>``, ..."""
        found = []
        while data := self._read():
            offset = 0
            while offset < len(data):
                watch, mask, _, length = _EVENT.unpack_from(data, offset)
                name = data[offset + _EVENT.size :][:length].rstrip(b"\0")
                offset += _EVENT.size + length
                what = next((word for bit, word in _TOUCHES.items() if mask & bit), None)
                if what is not None and not mask & _IS_FOLDER:
                    found.append(f"{what} {self._watched[watch] / os.fsdecode(name)}")
        return found

    def _watch(self, path: Path, mask: int) -> None:
        watch = self._libc.inotify_add_watch(self._events, os.fsencode(path), mask)
        self._watched[self._checked(watch)] = path

    def _read(self) -> bytes:
        try:
            return os.read(self._events, 1 << 16)
        except BlockingIOError:
            return b""

    @staticmethod
    def _checked(result: int) -> int:
        if result < 0:
            raise OSError(ctypes.get_errno(), "inotify does not work here")
        return result


class PythonWatch:
    """Notes when Python opens files outside the allowed folders, or starts programs.

    Args:
        allowed: Folders that Python may use, besides those of libraries.
    """

    def __init__(self, allowed: Sequence[Path]) -> None:
        code = [*filter(None, sys.path), sys.prefix, sys.base_prefix, str(Path(os.__file__).parent)]
        folders: list[str | Path] = [*allowed, *code]
        self._allowed = (*(_lexical(folder) for folder in folders), *_OF_THE_SYSTEM)
        self._found: list[str] = []
        self.active = False
        sys.addaudithook(self._note)

    def found(self) -> list[str]:
        """Lists the notes since the last call."""
        found, self._found = self._found, []
        return found

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active:
            return
        if event in _NEVER:
            self._found.append(f"{event} {arguments!r:.200}")
        elif event == "socket.connect" and arguments[1][0] not in ("127.0.0.1", "::1"):
            self._found.append(f"{event} {arguments[1]!r}")
        if event in _IN_A_FOLDER and arguments[-1] >= 0:
            return  # shutil.rmtree() removes files in an open folder
        for number in _PATHS.get(event, ()):
            path = arguments[number]
            if isinstance(path, int | None) or _lexical(path).startswith(self._allowed):
                continue
            self._found.append(f"{event} {path!r}")


def _lexical(path: str | bytes | os.PathLike[Any]) -> str:
    """Makes a path absolute, without ``..``, and ends it in a slash; follows no links."""
    return f"{os.path.abspath(os.fsdecode(path))}/"  # noqa: PTH100


def tells_a_secret(text: str) -> bool:
    """True where a text has contents of the secret files in it."""
    return any(mark in text for mark in _MARKS)
