"""The command ``timesformer-export``."""

from __future__ import annotations

import importlib.util
import signal
import sys
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text
from timesformer_runtime.errors import TimesformerError

from timesformer_exporter.errors import ExportError
from timesformer_exporter.summary import show

_STARTED = time.perf_counter()  # before torch is imported, which is part of the wait
_MANY_PATHS = "--calibration-videos"
_NEEDED = ("torch", "onnx", "onnxscript", "onnxruntime", "safetensors")


class _ImageSize(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on only
    """``N`` or ``HxW``, in pixels."""

    name = "N|HxW"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | tuple[int, int]:
        parts = str(value).lower().split("x")
        if len(parts) > 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
            self.fail(f"{value!r} is not a size in pixels; give 224 or 224x320", param, ctx)
        sizes = [int(part) for part in parts]
        return sizes[0] if len(sizes) == 1 else (sizes[0], sizes[1])


class _Command(click.Command):
    """Takes several paths after one ``--calibration-videos``, as shells expand ``*.mp4``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spread: list[str] = []
        many = False
        for argument in args:
            if argument.startswith("-"):
                many = argument == _MANY_PATHS
            elif many and spread[-1] != _MANY_PATHS:
                spread.append(_MANY_PATHS)
            spread.append(argument)
        return super().parse_args(ctx, spread)


@click.command(cls=_Command, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--model",
    required=True,
    help="Hub id (facebook/timesformer-base-finetuned-k400), local folder, or checkpoint file "
    "(.safetensors, .bin, .pth, .pyth).",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder to write.  [default: ./<model name>-onnx]",
)
@click.option("--revision", help="Branch, tag or commit on the Hub.")
@click.option("--local-files-only", is_flag=True, help="Never use the network.")
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Labels of the classes: one a line, or JSON.",
)
@click.option(
    "--task",
    type=click.Choice(["video-classification", "feature-extraction"]),
    default="video-classification",
    show_default=True,
    help="Logits, or hidden states and clip features.",
)
@click.option(
    "--input",
    type=click.Choice(["pixel_values", "frames"]),
    default="pixel_values",
    show_default=True,
    help="pixel_values: float32, preprocessed. frames: uint8 RGB of any size, with resize, crop "
    "and normalisation in the graph.",
)
@click.option("--num-frames", type=click.IntRange(min=1), help="Frames in a clip.")
@click.option("--image-size", type=_ImageSize(), help="Size of a frame, in pixels.")
@click.option(
    "--attention-heads",
    type=click.IntRange(min=1),
    help="For checkpoints without config.json.  [default: hidden size / 64]",
)
@click.option(
    "--dtype",
    "dtypes",
    type=click.Choice(["fp32", "int8", "fp16", "q4"]),
    multiple=True,
    default=["fp32"],
    show_default=True,
    help="Which files to write; may be given several times.",
)
@click.option(
    "--calibration-videos",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    metavar="PATH...",
    help="Videos, or folders of them, like those that the model is for: int8 and q4 are prepared "
    "for them, and the variants are compared with PyTorch on them.",
)
@click.option(
    "--int8-target",
    type=click.Choice(["vnni", "avx2"]),
    help="vnni: weights of 8 bits, for x86 with VNNI or AMX, and ARM; elsewhere the runtime "
    "switches to slower products. avx2: of 7 bits, right and fast on any CPU, a little less "
    "accurate.  [default: vnni]",
)
@click.option(
    "--no-gate",
    "gate",
    is_flag=True,
    flag_value=False,
    default=True,
    help="Keep int8, fp16 and q4 however far they are from PyTorch.",
)
@click.option(
    "--opset",
    type=click.IntRange(18, 23),
    default=23,
    show_default=True,
    help="ONNX operator set; 23 has the Attention operator, the fastest.",
)
@click.option("--output-hidden-states", is_flag=True, help="Add the hidden states of all layers.")
@click.option("--output-attentions", is_flag=True, help="Add the attentions of all layers.")
@click.option(
    "--atol",
    type=click.FloatRange(min=0),
    default=1e-5,
    show_default=True,
    help="Largest difference from PyTorch that passes, on top of 1e-4 of the largest value.",
)
@click.option("--force", is_flag=True, help="Replace an earlier export.")
@click.version_option(package_name="timesformer-onnx")
def command(**options: Any) -> None:
    """Export a PyTorch TimeSformer to ONNX, and prove that the result is right.

    Exit codes: 0 the file agrees with PyTorch; 1 it does not; 2 bad input.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise click.UsageError(
            f"the exporter needs {', '.join(missing)}; "
            'install it with: pip install "timesformer-onnx[export]"'
        )
    from timesformer_exporter.export import export  # noqa: PLC0415 (needs torch)
    from timesformer_exporter.options import ExportOptions  # noqa: PLC0415

    progress = Console(stderr=True, markup=False)  # names may hold what looks like markup
    parsed = ExportOptions(**options)
    with progress.status("Starting") as status:

        def announce(step: str) -> None:
            if progress.is_terminal:
                status.update(Text(step))
            else:
                progress.print(step, style="dim")

        def tell(line: str) -> None:
            progress.print(Text(" ".join(line.split())), soft_wrap=True)

        result = export(parsed, announce, tell)
    show(result, parsed, time.perf_counter() - _STARTED)
    if not result.passed:
        sys.exit(1)


def main() -> None:
    """Runs the command; every expected failure is one line on stderr and exit code 2."""
    for stop in (signal.SIGTERM, signal.SIGHUP):  # so that a stopped export cleans up, too
        signal.signal(stop, lambda number, _frame: sys.exit(128 + number))
    try:
        command.main(standalone_mode=False)
    except click.exceptions.Abort:
        _fail("interrupted", 130)
    except click.ClickException as error:
        _fail(error.format_message(), 2)
    except (ExportError, TimesformerError) as error:
        _fail(str(error), 2)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        _fail(
            "the model does not fit into this machine's memory; give a smaller --num-frames or "
            "--image-size, or fewer outputs",
            2,
        )
    except OSError as error:
        _fail(f"{error.strerror or error} ({error.filename})" if error.filename else str(error), 2)


def _fail(message: str, code: int) -> None:
    one_line = " ".join(message.split())
    click.echo(f"timesformer-export: {one_line}", err=True)
    sys.exit(code)
