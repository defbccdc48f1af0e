"""What every command says on stderr, and its exit codes."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from typing import NoReturn

import click

from timesformer_runtime.source_names import hide_secrets, shown
from timesformer_runtime.terminal import printable

CHECK_FAILED, BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141


def say(line: str) -> None:
    """Prints one line on stderr."""
    click.echo(told(line), err=True)


def told(line: str) -> str:
    """A line as it may be printed: others' names in it cannot act, and secrets are left out."""
    return printable(hide_secrets(line, *sys.argv[1:]))


def fail(message: str, code: int) -> None:
    """Prints the command's last line on stderr and ends it."""
    say(f"timesformer: {one_line(message)}")
    sys.exit(code)


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
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
