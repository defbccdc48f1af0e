"""LinesFile: a file of whole lines that a later run continues."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Self

from timesformer_runtime.errors import InvalidOptionError, OutputError, unwritable
from timesformer_runtime.locks import try_lock

LONGEST_LINE = 1 << 26  # bytes; thousands of labels and clips take a few million


class LinesFile:
    """Opens a file of lines for one run at a time, and adds lines to it, each of them whole.

    Args:
        path: The file, which this class makes if there is none. Its folder must exist.

    Attributes:
        path: The file.

    Raises:
        InvalidOptionError: The file is a pipe or device, or another run is writing it.
        OSError: The file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._length = 0
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:  # errno chooses the class of the new error, too
            reason = f"{error.strerror}; give a file in a folder that is there and can be written"
            raise OSError(error.errno, reason, str(path)) from None
        try:
            self._check_kind()
            self._lock()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)

    def read(
        self,
        take: Callable[[bytes, int], None],
        check_cut_off: Callable[[bytes, int], None],
        longest: int = LONGEST_LINE,
    ) -> None:
        """Reads all lines, and then removes a last line that an earlier run did not finish.

        Args:
            take: Called with each whole line and its number, from 1; an error that it raises
                leaves the file as it is.
            check_cut_off: Called with a last line that has no line end, and its number, for an
                error if the line is not the beginning of one that a run writes.
            longest: Bytes of the longest line.

        Raises:
            InvalidOptionError: A line is longer; the file stays as it is.
        """
        length = number = 0
        with os.fdopen(os.dup(self._file), "rb") as file:
            file.seek(0)
            while line := file.readline(longest):
                number += 1
                if not line.endswith(b"\n"):
                    check_cut_off(line, number)
                    self._check_length(line, number, longest)
                    break
                take(line, number)
                length += len(line)
        self._length = length
        if length < os.fstat(self._file).st_size:
            os.ftruncate(self._file, length)

    def clear(self) -> None:
        """Removes all lines."""
        os.ftruncate(self._file, 0)
        self._length = 0

    def append(self, line: bytes) -> None:
        """Adds one whole line.

        Args:
            line: The line, with its line end.

        Raises:
            OutputError: The line cannot be written, or the file is not there any more.
        """
        self.check()
        left = line
        try:
            while left:  # a full disk or a signal can cut a write short
                left = left[os.write(self._file, left) :]
        except OSError as error:
            if len(left) < len(line):
                os.ftruncate(self._file, self._length)
            raise unwritable(
                str(self.path),
                error,
                "close the program that holds the file, and start again: its videos are not done "
                "again",
            ) from error
        self._length += len(line)

    def check(self) -> None:
        """Checks that the path still leads to the file with all lines that were written.

        Raises:
            OutputError: The file was removed, renamed, replaced or cut, or another program
                writes it.
        """
        remedy = "leave it alone while it is written, and start again"
        try:
            there = self.path.stat()
        except OSError as error:
            raise OutputError(
                f"{self.path}: the file into which results were written is not there any more "
                f"({error.strerror}); put it back, or {remedy}"
            ) from error
        written = os.fstat(self._file)
        if not os.path.samestat(there, written):
            raise OutputError(
                f"{self.path}: another file took the place of the one into which results were "
                f"written; put that one back, or {remedy}"
            )
        if written.st_size != self._length:
            raise OutputError(
                f"{self.path}: another program changed the file: it has {written.st_size} bytes, "
                f"not the {self._length} that were written; {remedy}"
            )

    def _check_length(self, line: bytes, number: int, longest: int) -> None:
        """Refuses a line that is too long to be read: whole lines may follow it."""
        if len(line) >= longest:
            raise InvalidOptionError(
                f"{self.path}: line {number} is longer than {longest} bytes, the most that is "
                "read; give another output"
            )

    def _check_kind(self) -> None:
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            raise InvalidOptionError(
                f"{self.path} is not a regular file, so a run that breaks off could not go on; "
                "give the path of one"
            )

    def _lock(self) -> None:
        """Locks the file against a second run, which would cut the lines of the first."""
        if not try_lock(self._file):
            raise InvalidOptionError(
                f"{self.path}: another run is writing it; wait for its end, or give another output"
            )
