"""The command ``timesformer-export``."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn, get_args

import click
from rich.console import Console
from rich.status import Status
from rich.text import Text
from timesformer_runtime.cli.output import (
    BAD_INPUT,
    BROKEN_PIPE,
    CHECK_FAILED,
    INTERRUPTED,
    discard_output,
    fail,
    name_options,
    one_line,
    prepare_output,
    say,
)
from timesformer_runtime.cli.paths import PathType
from timesformer_runtime.errors import TimesformerError, printable, quoted

from timesformer_exporter.options import (
    DEFAULT_OPSET,
    DEFAULT_PORTABLE_OPSET,
    OPSETS,
    WEB_DTYPES,
    Dtype,
    ExportOptions,
    Input,
    Int8Target,
    RolloutHeads,
    Target,
    Task,
    Weights,
)
from timesformer_exporter.summary import failure, summary

if TYPE_CHECKING:  # the import needs torch
    from timesformer_exporter import ExportResult

_NAME = "timesformer-export"
_STARTED = time.perf_counter()  # before torch is imported: the user waits for that, too
_OPTION_OF_PATHS = "--calibration-videos"
_SIZE = re.compile(r"([1-9]\d{0,8})(?:[xX]([1-9]\d{0,8}))?", re.ASCII)


class _ImageSize(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on only
    """``N`` or ``HxW``, in pixels."""

    name = "N|HxW"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | tuple[int, int]:
        found = _SIZE.fullmatch(str(value))
        if found is None:
            self.fail(f"{quoted(value)} is not a size in pixels; give 224 or 224x320", param, ctx)
        height, width = found.groups()
        return int(height) if width is None else (int(height), int(width))


class _Command(click.Command):
    """Takes several paths after one ``--calibration-videos``, as shells expand ``*.mp4``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spread: list[str] = []
        after_option = False
        for argument in args:
            if argument.startswith("-"):
                after_option = argument == _OPTION_OF_PATHS
            elif after_option and spread[-1] != _OPTION_OF_PATHS:
                spread.append(_OPTION_OF_PATHS)
            spread.append(argument)
        return super().parse_args(ctx, spread)

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        try:
            return super().make_context(*args, **options)
        except BrokenPipeError:  # of --help; click would exit with 1, which means a failed check
            discard_output()
            sys.exit(BROKEN_PIPE)


@click.command(cls=_Command, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--model",
    required=True,
    help="Hub id (facebook/timesformer-base-finetuned-k400), local folder, or checkpoint file "
    "(.safetensors, .bin, .pth, .pyth).",
)
@click.option(
    "--output",
    type=PathType(),
    metavar="DIR",
    help="Folder to write.  [default: ./<model name>-onnx]",
)
@click.option("--revision", help="Branch, tag or commit on the Hub.")
@click.option("--local-files-only", is_flag=True, help="Never use the network.")
@click.option(
    "--labels",
    type=PathType(),
    metavar="FILE",
    help="File with the labels of the classes: one a line, or JSON.",
)
@click.option(
    "--task",
    type=click.Choice(get_args(Task)),
    default="video-classification",
    show_default=True,
    help="Logits, or hidden states and clip features.",
)
@click.option(
    "--input",
    type=click.Choice(get_args(Input)),
    help="pixel_values: float32, preprocessed. frames: uint8 RGB of any size, with resize, crop "
    "and normalisation in the graph.  [default: pixel_values; with --web frames]",
)
@click.option("--num-frames", type=click.IntRange(min=1), help="Frames in a clip.")
@click.option("--image-size", type=_ImageSize(), help="Size of a frame, in pixels.")
@click.option(
    "--attention-heads",
    type=click.IntRange(min=1),
    help="For checkpoints without config.json.  [default: hidden size / 64]",
)
@click.option(
    "--weights",
    type=click.Choice(get_args(Weights)),
    help="For checkpoints that hold both: the raw weights, or their average over training steps.  "
    "[default: those that the trainer saved as the model]",
)
@click.option(
    "--dtype",
    "dtypes",
    type=click.Choice(get_args(Dtype)),
    multiple=True,
    help="Precision of a file to write; give the option once for each file.  [default: fp32; with "
    f"--web {' and '.join(WEB_DTYPES)}]",
)
@click.option(
    "--calibration-videos",
    type=PathType(exists=True),
    multiple=True,
    metavar="PATH...",
    help="Videos, or folders of videos, like those that the model will classify. The export "
    "prepares int8 and q4 for them, and compares the variants with PyTorch on them.",
)
@click.option(
    "--int8-target",
    type=click.Choice(get_args(Int8Target)),
    multiple=True,
    help="vnni: weights of 8 bits, for ARM and for x86 with VNNI or AMX; on other x86 CPUs the "
    "runtime computes more slowly. avx2: weights of 7 bits, right and fast on any CPU, a little "
    "less accurate. Give the option twice for both files: the runtime takes the one for its CPU.  "
    "[default: vnni]",
)
@click.option(
    "--no-gate",
    "gate",
    is_flag=True,
    flag_value=False,
    default=True,
    help="Accept int8, fp16 and q4 however far they are from PyTorch.",
)
@click.option(
    "--evaluate",
    type=PathType(),
    metavar="DATA",
    help="Labelled videos, as for timesformer evaluate: measure the accuracy of PyTorch and of "
    "every file on them.",
)
@click.option(
    "--evaluate-root",
    type=PathType(),
    metavar="DIR",
    help="With --evaluate: folder of the videos of a list.",
)
@click.option(
    "--max-accuracy-loss",
    type=click.FloatRange(0, 100),
    metavar="POINTS",
    help="With --evaluate: reject the export if a file loses more points of accuracy.",
)
@click.option(
    "--target",
    type=click.Choice(get_args(Target)),
    default="onnxruntime",
    show_default=True,
    help="Operators of the graph. onnxruntime: those that are the fastest on ONNX Runtime's CPU "
    "provider. portable: older standard ones, for other execution providers, such as OpenVINO's, "
    "TensorRT's and QNN's.",
)
@click.option(
    "--opset",
    type=click.IntRange(OPSETS[0], OPSETS[-1]),
    help="ONNX operator set; 23 has the Attention operator, the fastest.  [default: "
    f"{DEFAULT_OPSET}; with --target portable {DEFAULT_PORTABLE_OPSET}]",
)
@click.option(
    "--web",
    is_flag=True,
    help="For JavaScript, in browsers and Node: also write web.json, with the labels, the frame "
    "sampling, and which file is for which device.",
)
@click.option("--output-hidden-states", is_flag=True, help="Add the hidden states of all layers.")
@click.option("--output-attentions", is_flag=True, help="Add the attentions of all layers.")
@click.option(
    "--explain",
    is_flag=True,
    help="Add the output attention_rollout, for timesformer explain: how much of each patch "
    "reaches the answer.",
)
@click.option(
    "--rollout-residual",
    type=click.FloatRange(min=0, max=1, max_open=True),
    help="With --explain: the weight of the residual connection beside each attention.  "
    "[default: 0.5]",
)
@click.option(
    "--rollout-heads",
    type=click.Choice(get_args(RolloutHeads)),
    help="With --explain: what makes one attention of those of all heads.  [default: mean]",
)
@click.option(
    "--atol",
    type=click.FloatRange(min=0),
    default=1e-5,
    show_default=True,
    help="Largest difference from PyTorch that passes, added to 1e-4 of the largest value.",
)
@click.option("--force", is_flag=True, help="Replace an earlier export.")
@click.option(
    "--push-to-hub",
    metavar="ID",
    help="Upload the export to this repository on the Hub once it has passed its checks.",
)
@click.option("--private", is_flag=True, help="Make the repository of the upload private if new.")
@click.option(
    "--push-revision", metavar="BRANCH", help="Branch that gets the upload.  [default: main]"
)
@click.version_option(package_name="timesformer-onnx")
def command(**options: Any) -> int:
    """Export a PyTorch TimeSformer to ONNX and check the result against PyTorch.

    Exit codes: 0 the files agree with PyTorch; 1 they do not; 2 bad input; 141 the export is done,
    but nobody read the output to its end.
    """
    unset = {name: options[name] or None for name in ("dtypes", "int8_target")}
    parsed = ExportOptions(**options | unset)
    with _progress() as progress:
        from timesformer_exporter import export  # noqa: PLC0415 (needs torch)

        result = export(parsed, progress.step, progress.line)
    code = 0 if result.passed else CHECK_FAILED
    try:
        _print_summary(result, parsed)
    except BrokenPipeError:
        code = code or BROKEN_PIPE
    except OSError as error:
        code = code or BAD_INPUT
        say(
            f"{_NAME}: the summary cannot be written to standard output "
            f"({error.strerror or error}); the files are whole, in {result.folder}"
        )
    if not result.passed:
        _fail(f"check failed: {failure(result)}; the result is in {result.folder}", code)
    return code


def _print_summary(result: ExportResult, options: ExportOptions) -> None:
    """Prints the summary on stdout; raises an OSError where stdout does not take all of it."""
    if sys.stdout is None:  # closed by the shell: >&-
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    # Into memory first: rich ends a process whose output is closed.
    memory = io.TextIOWrapper(io.BytesIO(), sys.stdout.encoding, sys.stdout.errors, newline="")
    console = Console(file=memory, force_terminal=sys.stdout.isatty() or None, markup=False)
    summary(console, result, options, time.perf_counter() - _STARTED, _with_option_names)
    memory.seek(0)
    try:
        sys.stdout.write(memory.read())
        sys.stdout.flush()
    except OSError:
        discard_output()
        raise


def _with_option_names(message: str) -> str:
    """Puts the command line's names of options into a library's message."""
    return name_options(message, command)


class _Progress:
    """Shows progress on stderr: on a terminal the current step, else one line for each step."""

    def __init__(self, console: Console, status: Status | None) -> None:
        self._console = console
        self._status = status

    def step(self, text: str) -> None:
        """Shows the title of the step that begins."""
        if self._status is None:
            say(text)
        else:
            self._status.update(Text(printable(text)))

    def line(self, text: str) -> None:
        """Prints a line that stays on the screen."""
        text = one_line(_with_option_names(text))
        if self._status is None:
            say(text)
        else:
            self._console.print(Text(printable(text)), soft_wrap=True)


@contextlib.contextmanager
def _progress() -> Iterator[_Progress]:
    console = Console(stderr=True, markup=False)
    if not console.is_terminal:
        yield _Progress(console, None)
        return
    with console.status("Starting") as status:
        yield _Progress(console, status)


def main() -> None:
    """Runs the command; each expected failure prints one line on stderr and exits with code 2."""
    prepare_output()
    for name in ("SIGTERM", "SIGHUP"):  # so that a stopped export removes its hidden folder
        stop = getattr(signal, name, None)  # Windows has no SIGHUP
        if stop is not None and signal.getsignal(stop) is not signal.SIG_IGN:  # nohup ignores it
            signal.signal(stop, lambda number, _frame: sys.exit(128 + number))
    try:
        sys.exit(command.main(prog_name=_NAME, standalone_mode=False))
    except click.exceptions.Abort:
        _fail("interrupted", INTERRUPTED)
    except click.ClickException as error:
        _fail(error.format_message(), BAD_INPUT)
    except TimesformerError as error:
        _fail(str(error), BAD_INPUT)
    except OSError as error:  # of stdout, or of a file for which no TimesformerError is raised
        discard_output()
        reason = error.strerror or str(error)
        _fail(f"{error.filename or 'writing the output'}: {reason}", BAD_INPUT)


def _fail(message: str, code: int) -> NoReturn:
    """Prints a library's or click's message as the command's last line, and ends it."""
    fail(_with_option_names(message), code, name=_NAME)
