"""The command ``timesformer``: one file per command.

A command imports NumPy, PyAV and ONNX Runtime only when it runs, so that ``--help`` is immediate.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import Any

import click

from timesformer_runtime.cli.batch import batch
from timesformer_runtime.cli.bench import bench
from timesformer_runtime.cli.classify import classify
from timesformer_runtime.cli.doctor import doctor
from timesformer_runtime.cli.evaluate import evaluate
from timesformer_runtime.cli.explain import explain
from timesformer_runtime.cli.inspect import inspect
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
from timesformer_runtime.cli.serve import serve
from timesformer_runtime.cli.stream import stream
from timesformer_runtime.cli.timeline import timeline
from timesformer_runtime.cli.verify import verify
from timesformer_runtime.errors import TimesformerError, reason_of

__all__ = ["command", "main"]


class _Commands(click.Group):
    """Ends with exit code 141 where standard output is closed; click itself would exit with 1."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _until_the_pipe_is_closed():
            return super().make_context(*args, **kwargs)  # prints --help and --version

    def invoke(self, ctx: click.Context) -> Any:
        with _until_the_pipe_is_closed():
            return super().invoke(ctx)


@contextlib.contextmanager
def _until_the_pipe_is_closed() -> Iterator[None]:
    """Ends the program where the reader of standard output has closed the pipe."""
    try:
        yield
    except BrokenPipeError:
        discard_output()
        sys.exit(BROKEN_PIPE)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=False,  # an error is one line
)
@click.version_option(package_name="timesformer-onnx", message="%(package)s %(version)s")
def command() -> None:
    """Run exported TimeSformers on videos, without PyTorch.

    Exit codes: 0 all done; 1 a check failed (verify, doctor); 2 bad input, or at least one video
    failed; 130 interrupted by Ctrl-C; 141 the reader of standard output closed it.
    """


for _subcommand in (
    classify,
    timeline,
    batch,
    stream,
    serve,
    evaluate,
    explain,
    verify,
    inspect,
    bench,
    doctor,
):
    command.add_command(_subcommand)


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
    except TimesformerError as error:
        fail(name_options(str(error), *command.commands.values()), BAD_INPUT)
    except MemoryError as error:
        fail(reason_of(error), BAD_INPUT)
    except OSError as error:  # of the output: errors of the input are TimesformerErrors
        reason = why_unwritten(error)
        discard_output()
        fail(reason, BAD_INPUT)
