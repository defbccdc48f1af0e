"""What all commands share: messages on stderr, exit codes, and outputs that cannot be written."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import sys
from pathlib import Path
from typing import IO, NoReturn

import click

from timesformer_runtime.errors import OutputError, printable
from timesformer_runtime.source_names import hide_secrets, shown

_LONGEST = 12_000  # characters of a line; paths have 4,096 bytes at most
# Where else to write: what stands for a full disk.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

CHECK_FAILED, BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141

_NAMED_OPTION = re.compile(r"`(\w+)(?:=([\w.-]+))?`")


def echo(line: str, *, err: bool = False) -> None:
    """Prints one line in the encoding of the terminal, where click prefers UTF-8 to ASCII."""
    print(line, file=sys.stderr if err else sys.stdout, flush=True)


def say(line: str) -> None:
    """Prints one line on stderr; where that cannot be written, results still are."""
    if sys.stderr is None:
        return
    try:
        echo(told(line), err=True)
    except OSError:
        _discard(sys.stderr)


def told(line: str) -> str:
    """A line as it may be printed: others' names in it cannot act, and secrets are left out.

    One that is very long, because somebody's text is quoted in it, is shortened.
    """
    line = hide_secrets(line, *_secret_arguments(tuple(sys.argv)))
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} [...] {line[-_LONGEST // 4 :]}"
    return printable(line)


@functools.lru_cache(maxsize=1)
def _secret_arguments(arguments: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(argument for argument in arguments if shown(argument) != argument)


def fail(message: str, code: int, name: str = "timesformer") -> NoReturn:
    """Prints the command's last line on stderr and ends it."""
    say(f"{name}: {one_line(message)}")
    sys.exit(code)


def name_options(message: str, *commands: click.Command) -> str:
    """A library's message with the names that its options have on the command line.

    The libraries write ```num_frames``` and ```gate=False```, the commands say ``--num-frames``
    and ``--no-gate``.
    """
    options = {
        option.name: option
        for command in commands
        for option in command.params
        if isinstance(option, click.Option)
    }

    def named(found: re.Match[str]) -> str:
        option = options.get(found[1])
        if option is None:
            return found[0]
        takes_value = found[2] is not None and not option.is_flag
        return f"{option.opts[0]} {found[2]}" if takes_value else option.opts[0]

    return _NAMED_OPTION.sub(named, message)


def fail_at_once(message: str, code: int) -> NoReturn:
    """Prints the command's last line on stderr and ends the process, whatever its threads do."""
    say(f"timesformer: {one_line(message)}")
    with contextlib.suppress(OSError):
        if sys.stdout is not None:
            sys.stdout.flush()
    os._exit(code)


def one_line(message: str) -> str:
    """The message without line breaks."""
    return re.sub(r"\s+", " ", message).rstrip()


def about(video: str, message: str) -> str:
    """The message with the name of its video in front, once, and otherwise on one line."""
    video = printable(shown(video))  # as errors write it
    names = ("<stdin>", "standard input") if video == "-" else (video, repr(video))
    for name in names:
        if name and message.startswith((f"{name} ", f"{name}:")):
            return name + one_line(message.removeprefix(name))
    return f"{video}: {one_line(message)}" if video else one_line(message)


def prepare_output() -> None:
    """Makes sure that text can be printed wherever it goes, and files are not taken for outputs."""
    for descriptor in range(3):  # the next file that is opened would become one that is closed
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for output in (sys.stdout, sys.stderr):
        if hasattr(output, "reconfigure"):  # file names may hold what the terminal cannot show
            output.reconfigure(errors="backslashreplace")


def check_output() -> None:
    """Makes sure, before any work, that somebody gets the results.

    Raises:
        OutputError: Standard output is closed.
    """
    if sys.stdout is None:  # as after ">&-"
        raise OutputError(
            "standard output is closed, and results would be lost; send it to a file, or leave it "
            "open"
        )


def why_unwritten(error: OSError) -> str:
    """What to tell where an output cannot be written: which, why, and what to do."""
    reason = str(error.strerror or error)
    if error.errno in _FULL:
        reason += "; make room, or write to another disk"
    if error.filename:
        return f"{error.filename}: {reason}"
    return f"standard output{_name_of(sys.stdout)} cannot be written: {reason}"


def discard_output() -> None:
    """Lets the interpreter's last flush succeed, so that it does not complain."""
    if sys.stdout is not None:
        _discard(sys.stdout)


def _discard(output: IO[str]) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())


def _name_of(output: IO[str] | None) -> str:
    """The file to which it goes, in brackets, where the system tells."""
    try:
        return f" ({Path(f'/proc/self/fd/{output.fileno()}').readlink()})" if output else ""
    except (OSError, ValueError):
        return ""
