"""The command ``timesformer-export``."""

from __future__ import annotations

import importlib.util
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text
from timesformer_runtime.errors import TimesformerError

from timesformer_exporter.errors import ExportError

if TYPE_CHECKING:
    from timesformer_exporter.export import ExportResult
    from timesformer_exporter.integer_products import IntegerProducts
    from timesformer_exporter.options import ExportOptions

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
    help="Videos, or folders of them, like those that the model is for: int8 is prepared for "
    "their range of values, and the variants are compared with PyTorch on them.",
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
    _show(result, parsed)
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


def _show(result: ExportResult, options: ExportOptions) -> None:
    """Prints the proof, the files, the verdict and the next command."""
    console = Console(markup=False)
    for note in result.notes:
        console.print(f"Note: {note}", highlight=False)
    console.print(_proof(result))
    if result.proof.variants:
        console.print(_variants(result))
    for name, size in result.files.items():
        console.print(f"{result.folder / name}  {_size(size)}", highlight=False, soft_wrap=True)
    work = result.multiply_adds
    console.print(
        f"{_count(work.exported)} multiply-adds a clip, "
        f"{work.exported / work.original:.0%} of the original's {_count(work.original)}",
        highlight=False,
    )
    if result.integer_products is not None:
        console.print(_integer_products(result.integer_products), highlight=False, soft_wrap=True)
    worst = result.proof.fidelity.worst
    seconds = time.perf_counter() - _STARTED
    if not result.proof.gated:
        console.print("Note: the thresholds of the variants are switched off (--no-gate).")
    if result.passed:
        console.print(
            Text("Passed", style="bold green"),
            f": agrees with PyTorch (largest difference {worst.max_abs:.1e}, "
            f"limit {worst.limit:.1e}), in {seconds:.1f} s.",
            sep="",
            highlight=False,
            soft_wrap=True,
        )
        extra = " --features features.npz" if options.task == "feature-extraction" else ""
        console.print(
            f"Next: timesformer classify {shlex.quote(str(result.folder))} video.mp4{extra}",
            highlight=False,
            soft_wrap=True,
        )
        return
    click.echo(
        f"timesformer-export: check failed: {_failure(result)}; the result is in {result.folder}",
        err=True,
    )


def _failure(result: ExportResult) -> str:
    """What failed, in a few words."""
    worst = result.proof.fidelity.worst
    if not worst.passed:
        reason = worst.problem or f"differs by {worst.max_abs:.1e}, limit {worst.limit:.1e}"
        return f"{worst.output} at batch {worst.batch} {reason}"
    variant = next(variant for variant in result.proof.variants if not variant.passed)
    return f"{variant.dtype}: {'; '.join(variant.missed)}"


def _proof(result: ExportResult) -> Table:
    table = Table(title="ONNX Runtime against PyTorch (float32)", title_justify="left")
    for column in ("output", "batch", "max abs", "relative", "cosine", "top-1", "top-5", ""):
        table.add_column(column, justify="left" if column in ("output", "") else "right")
    for c in result.proof.fidelity.comparisons:
        table.add_row(
            c.title,
            str(c.batch),
            f"{c.max_abs:.1e}",
            f"{c.relative:.1e}",
            f"{c.cosine:.8f}",
            "-" if c.top1 is None else f"{c.top1:.0%}",
            "-" if c.top5 is None else f"{c.top5:.0%}",
            "ok" if c.passed else (c.problem or "differs"),
        )
    return table


def _variants(result: ExportResult) -> Table:
    count = result.proof.variants[0].clips
    table = Table(title=f"Variants against PyTorch (float32), {count} clips", title_justify="left")
    for column in ("dtype", "cosine, centred", "max abs", "top-1", "top-5", "score change", ""):
        table.add_column(column, justify="left" if column in ("dtype", "") else "right")
    for v in result.proof.variants:
        table.add_row(
            v.dtype,
            f"{v.cosine:.5f}",
            f"{v.max_abs:.1e}",
            "-" if v.top1 is None else f"{v.top1:.0%}",
            "-" if v.top5 is None else f"{v.top5:.0%}",
            "-" if v.score_change is None else f"{v.score_change:.4f}",
            "ok" if v.passed else "differs",
        )
    return table


def _integer_products(products: IntegerProducts) -> str:
    text = f"int8: {products.integer} matrix products in integers as ONNX Runtime runs it"
    floats = ", ".join(products.float_weights)
    return f"{text}, in float as intended: {floats}" if floats else text


def _count(number: int) -> str:
    return f"{number / 1e9:.1f} G" if number >= 1e9 else f"{number / 1e6:.1f} M"


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
