"""The command ``timesformer``: one file per command.

Only the command that is run is imported, and it imports NumPy, PyAV and ONNX Runtime only when it
runs, so that ``--help`` is immediate.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import click

from timesformer_runtime.cli.output import (
    BAD_INPUT,
    BROKEN_PIPE,
    INTERRUPTED,
    discard_output,
    fail,
    name_options,
    prepare_output,
    why_unwritten,
)
from timesformer_runtime.errors import TimesformerError, reason_of

__all__ = ["command", "main"]


_NAMES = (
    "batch",
    "bench",
    "classify",
    "doctor",
    "evaluate",
    "explain",
    "inspect",
    "serve",
    "stream",
    "timeline",
    "verify",
)


class _Commands(Mapping[str, click.Command]):
    """The commands by name. Each is imported from its file when it is looked up."""

    def __getitem__(self, name: str) -> click.Command:
        if name not in _NAMES:
            raise KeyError(name)
        command: click.Command = getattr(importlib.import_module(f"{__name__}.{name}"), name)
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(_NAMES)

    def __len__(self) -> int:
        return len(_NAMES)


class _Group(click.Group):
    """Ends with the exit codes of this package where click itself would exit with 1.

    The code is 141 where standard output is closed, and 2 after an error of the library, whose
    message then names the options of the command that ran.
    """

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _until_the_pipe_is_closed():
            return super().make_context(*args, **kwargs)  # prints --help and --version

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _until_the_pipe_is_closed():
                return super().invoke(ctx)
        except TimesformerError as error:
            ran = self.commands[ctx.invoked_subcommand or ""]
            fail(name_options(str(error), ran), BAD_INPUT)


@contextlib.contextmanager
def _until_the_pipe_is_closed() -> Iterator[None]:
    """Ends the program where the reader of standard output has closed the pipe."""
    try:
        yield
    except BrokenPipeError:
        discard_output()
        sys.exit(BROKEN_PIPE)


@click.group(
    cls=_Group,
    commands=_Commands(),
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=False,  # an error is one line
)
@click.version_option(package_name="timesformer-onnx", message="%(package)s %(version)s")
def command() -> None:
    """Run exported TimeSformers on videos, without PyTorch.

    Exit codes: 0 all done; 1 a check failed (verify, doctor); 2 bad input, or at least one video
    failed; 130 interrupted by Ctrl-C; 141 the reader of standard output closed it.
    """


def main() -> None:
    """Runs the command. Each expected failure prints one line on stderr and exits with 2."""
    prepare_output()
    # This hides the log of the library: the commands print these facts themselves.
    logging.getLogger("timesformer_runtime").addHandler(logging.NullHandler())
    try:
        sys.exit(command.main(prog_name="timesformer", standalone_mode=False))
    except click.exceptions.Abort:
        fail("interrupted", INTERRUPTED)
    except click.UsageError as error:
        hint = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        fail(error.format_message() + hint, BAD_INPUT)
    except click.ClickException as error:
        fail(error.format_message(), BAD_INPUT)
    except MemoryError as error:
        fail(reason_of(error), BAD_INPUT)
    except OSError as error:  # of the output: errors of the input are TimesformerErrors
        reason = why_unwritten(error)
        discard_output()
        fail(reason, BAD_INPUT)
