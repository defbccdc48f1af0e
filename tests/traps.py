"""Inputs of a model that crash, hang or disturb the process that reads, as a hostile file can.

A white frame springs such a trap. Reader processes import this file, so it imports little.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from timesformer_runtime.input.model_input import ModelInput

WHITE = 240  # the least mean of a white frame


class Trap(ModelInput):
    """Converts frames as the model's own input does, but calls ``snap`` at a white frame."""

    frames_seen: ClassVar[int] = 0  # of this process
    log: Path | None = None  # gets a line for each frame: the id of the process that converts it

    @classmethod
    def of(cls, model_input: ModelInput, log: Path | None = None) -> Self:
        trap: Any = copy.copy(model_input)
        trap.__class__ = cls
        trap.log = log
        trapped: Self = trap
        return trapped

    def convert(self, frame: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        Trap.frames_seen += 1
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(f"{os.getpid()}\n")
        if frame.mean() > WHITE:
            self.snap()
        return super().convert(frame)

    def snap(self) -> None:
        """Called at a white frame."""


class Crash(Trap):
    def snap(self) -> None:
        ctypes.string_at(0)


class Abort(Trap):
    def snap(self) -> None:
        os.write(2, b"malloc(): corrupted top size\n")
        os.abort()


class Killed(Trap):
    def snap(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Ended(Trap):
    def snap(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()


class Exit(Trap):
    def snap(self) -> None:
        os._exit(3)


class Nonsense(Trap):
    """Writes nonsense to the parent, as a process with damaged memory may do."""

    def snap(self) -> None:
        for link in list(Path("/proc/self/fd").iterdir()):
            with contextlib.suppress(OSError):  # the descriptor of this listing is closed by now
                if str(link.readlink()).startswith("socket:"):
                    os.write(int(link.name), b"\xff" * 100)


class Hang(Trap):
    """Holds the interpreter, so that no thread of the process could end it."""

    def snap(self) -> None:
        re.match("(a+)+$", "a" * 50 + "b")


class Bomb(Trap):
    def snap(self) -> None:
        taken = []
        while True:
            taken.append(bytearray(1 << 24))


class CrashAfterOthers(Trap):
    """Crashes where the process has read a video before, as if that video had damaged memory."""

    def snap(self) -> None:
        if Trap.frames_seen > 1:
            ctypes.string_at(0)


class Modules(Trap):
    """Gives the names of all modules that the process has imported, as a frame."""

    def convert(self, frame: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        return np.frombuffer(" ".join(sys.modules).encode(), np.uint8)


class Unknown(Trap):
    """Raises an error that the parent does not know."""

    def snap(self) -> None:
        class StrangeError(LookupError):
            pass

        raise StrangeError("no such colour")
