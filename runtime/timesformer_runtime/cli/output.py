"""Messages on stderr, exit codes and unwritable outputs, for all commands."""

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

from timesformer_runtime.errors import OutputError, printable, reason_of
from timesformer_runtime.source_names import hide_secrets, shown

_LONGEST_LINE = 12_000  # characters; paths have 4,096 bytes at most
# Errors of a disk or quota without room.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

CHECK_FAILED, BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141

_NAMED_OPTION = re.compile(r"`(\w+)(?:=([\w.-]+))?`")


def echo(line: str, *, err: bool = False) -> None:
    """Prints one line in the terminal's encoding; for ASCII, ``click.echo`` would write UTF-8."""
    # One write: between two of them another thread could print its own line.
    print(f"{line}\n", end="", file=sys.stderr if err else sys.stdout, flush=True)


def say(line: str) -> None:
    """Prints one line on stderr; where stderr is not writable, the command goes on."""
    if sys.stderr is None:
        return
    try:
        echo(safe_to_print(line), err=True)
    except OSError:
        _discard(sys.stderr)


def safe_to_print(line: str) -> str:
    """Makes a line safe to print: escapes control characters, and hides secrets of URLs.

    A very long line, which quotes text from a file or argument, loses its middle.
    """
    line = hide_secrets(line, *_secret_arguments(tuple(sys.argv)))
    if len(line) > _LONGEST_LINE:
        line = f"{line[: _LONGEST_LINE // 2]} [...] {line[-_LONGEST_LINE // 4 :]}"
    return printable(line)


@functools.lru_cache(maxsize=1)
def _secret_arguments(arguments: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(argument for argument in arguments if shown(argument) != argument)


def fail(message: str, code: int, name: str = "timesformer") -> NoReturn:
    """Prints the command's last line on stderr and exits with ``code``."""
    say(f"{name}: {one_line(message)}")
    sys.exit(code)


def name_options(message: str, command: click.Command) -> str:
    """Puts the names of the command line's options into a library's message.

    A library names an option in backticks, such as num_frames or gate=False; the command line says
    ``--num-frames`` or ``--no-gate``.
    """
    options = [option for option in command.params if isinstance(option, click.Option)]
    # An option that may be repeated, such as --dtype, fills an argument of another name, dtypes.
    by_name = {option.opts[0].lstrip("-").replace("-", "_"): option for option in options}
    by_name |= {option.name or "": option for option in options}

    def named(found: re.Match[str]) -> str:
        option = by_name.get(found[1])
        if option is None:
            return found[0]
        takes_value = found[2] is not None and not option.is_flag
        return f"{option.opts[0]} {found[2]}" if takes_value else option.opts[0]

    return _NAMED_OPTION.sub(named, message)


def failure_of(video: str, error: Exception) -> str:
    """Describes why a video failed; names options as the command line does."""
    return reworded(hide_secrets(reason_of(error), video))


def reworded(message: str) -> str:
    """Names options in a library's message as the command that runs now does."""
    return name_options(message, click.get_current_context().command)


def fail_at_once(message: str, code: int) -> NoReturn:
    """Prints the last line on stderr and ends the process without waiting for its threads."""
    say(f"timesformer: {one_line(message)}")
    with contextlib.suppress(OSError):
        if sys.stdout is not None:
            sys.stdout.flush()
    os._exit(code)


def one_line(message: str) -> str:
    """Joins the lines of a message."""
    return re.sub(r"\s+", " ", message).rstrip()


def about(video: str, message: str) -> str:
    """Puts the video's name in front of a message that does not begin with it; joins the lines."""
    video = shown(video)
    own = (video, printable(video), repr(video))  # libraries escape names in their messages
    for name in ("<stdin>", "standard input") if video == "-" else own:
        if name and message.startswith((f"{name} ", f"{name}:")):
            return name + one_line(message.removeprefix(name))
    return f"{video}: {one_line(message)}" if video else one_line(message)


def prepare_output() -> None:
    """Makes stdin, stdout and stderr usable: opens those that are closed, and accepts any text."""
    for descriptor in range(3):  # the next opened file would get the number of a closed one
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for output in (sys.stdout, sys.stderr):
        if hasattr(output, "reconfigure"):  # names may have characters that the encoding lacks
            output.reconfigure(errors="backslashreplace")


def check_output() -> None:
    """Checks, before any work, that standard output is open for the results.

    Raises:
        OutputError: Standard output is closed.
    """
    if sys.stdout is None:  # as after ">&-"
        raise OutputError(
            "standard output is closed, and results would be lost; send it to a file, or leave it "
            "open"
        )


def why_unwritten(error: OSError) -> str:
    """Describes an output that cannot be written: its name, the reason, and the remedy."""
    reason = str(error.strerror or error)
    if error.errno in _FULL:
        reason += "; make room, or write to another disk"
    if error.filename:
        return f"{error.filename}: {reason}"
    return f"standard output{_name_of(sys.stdout)} cannot be written: {reason}"


def discard_output() -> None:
    """Sends the rest of stdout to /dev/null, so that Python's flush at exit does not fail."""
    if sys.stdout is not None:
        _discard(sys.stdout)


def _discard(output: IO[str]) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())


def _name_of(output: IO[str] | None) -> str:
    """Names the file behind an output, in brackets; empty where the system does not tell."""
    try:
        return f" ({Path(f'/proc/self/fd/{output.fileno()}').readlink()})" if output else ""
    except (OSError, ValueError):
        return ""
