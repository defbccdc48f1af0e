"""What all commands share: messages on stderr, and exit codes."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from typing import NoReturn

import click

from timesformer_runtime.errors import printable
from timesformer_runtime.video.source_names import hide_secrets, shown

CHECK_FAILED, BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141

_NAMED_OPTION = re.compile(r"`(\w+)(?:=([\w.-]+))?`")


def prepare_output() -> None:
    """Makes names that the terminal cannot show, and a closed stdin, stdout or stderr, harmless."""
    for output in (sys.stdout, sys.stderr):
        if hasattr(output, "reconfigure"):
            output.reconfigure(errors="backslashreplace")
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # the next file that is opened must not become the standard output
            os.open(os.devnull, os.O_RDWR)


def say(line: str) -> None:
    """Prints one line on stderr; where that is closed or full, nobody can be told."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            # Not by click, which takes a terminal of ASCII for one of UTF-8.
            print(told(line), file=sys.stderr, flush=True)


def told(line: str) -> str:
    """A line as it may be printed: others' names in it cannot act, and secrets are left out."""
    return printable(hide_secrets(line, *sys.argv[1:]))


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
        sys.stdout.flush()
    os._exit(code)


def one_line(message: str) -> str:
    """The message without line breaks."""
    return re.sub(r"\s+", " ", message).rstrip()


def about(video: str, message: str) -> str:
    """The message with the name of its video in front, once, and otherwise on one line."""
    video = shown(video)
    names = ("<stdin>", "standard input") if video == "-" else (video, repr(video))
    for name in names:
        if name and message.startswith((f"{name} ", f"{name}:")):
            return name + one_line(message.removeprefix(name))
    return f"{video}: {one_line(message)}" if video else one_line(message)


def discard_output() -> None:
    """Lets the interpreter's last flush succeed, so that it does not complain."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
