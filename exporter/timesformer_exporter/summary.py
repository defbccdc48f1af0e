"""Prints the result of an export: comparisons with PyTorch, files, verdict and the next step."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text
from timesformer_runtime.errors import printable

if TYPE_CHECKING:  # they need torch
    from timesformer_exporter.export import ExportResult
    from timesformer_exporter.graph.integer_products import IntegerProducts
    from timesformer_exporter.options import ExportOptions


def summary(
    console: Console,
    result: ExportResult,
    options: ExportOptions,
    seconds: float,
    with_option_names: Callable[[str], str],
) -> None:
    """Prints the result of an export.

    Args:
        console: Where to print it.
        result: The result.
        options: The options of the export.
        seconds: The time that the whole command took.
        with_option_names: Puts the command line's names of options into a library's message.
    """

    def line(text: str) -> None:
        console.print(Text(printable(text)), soft_wrap=True)

    for note in result.notes:
        line(f"Note: {with_option_names(note)}")
    console.print(_proof(result))
    if result.proof.variants:
        console.print(_variants(result))
    if result.proof.accuracy is not None:
        line(f"Accuracy: {result.proof.accuracy.sentence}")
    for name, size in result.files.items():
        line(f"{result.folder / name}  {_size(size)}")
    multiply_adds = result.multiply_adds
    line(
        f"{_count(multiply_adds.exported)} multiply-adds a clip, "
        f"{multiply_adds.exported / multiply_adds.original:.0%} of the original's "
        f"{_count(multiply_adds.original)}"
    )
    if result.integer_products is not None:
        line(_integer_products(result.integer_products))
    if not result.proof.gated:
        line("Note: the thresholds of the variants are switched off (--no-gate).")
    if not result.passed:
        return
    worst = result.proof.fidelity.worst
    console.print(
        Text("Passed", style="bold green"),
        f": agrees with PyTorch (largest difference {worst.max_abs:.1e}, "
        f"limit {worst.limit:.1e}), in {seconds:.1f} s.",
        sep="",
        highlight=False,
        soft_wrap=True,
    )
    if result.url is not None:
        line(f"Uploaded to {result.url}")
    extra = " --features features.npz" if options.task == "feature-extraction" else ""
    line(f"Next: timesformer classify {shlex.quote(str(result.folder))} video.mp4{extra}")


def failure(result: ExportResult) -> str:
    """Says in a few words which check failed."""
    worst = result.proof.fidelity.worst
    if not worst.passed:
        reason = worst.problem or f"differs by {worst.max_abs:.1e}, limit {worst.limit:.1e}"
        return f"{worst.output} at batch {worst.batch} {reason}"
    accuracy = result.proof.accuracy
    if accuracy is not None and not accuracy.passed:
        worst_loss = max(accuracy.rejected, key=lambda model: model.loss)
        return (
            f"{worst_loss.name} loses {worst_loss.loss:.2f} points of accuracy, more than the "
            f"{accuracy.limit:g} that --max-accuracy-loss allows: leave out that --dtype, give "
            "(other) --calibration-videos, or allow more"
        )
    variant = next(variant for variant in result.proof.variants if not variant.passed)
    option = f"--dtype {variant.dtype}" if variant.name == variant.dtype else "--int8-target avx2"
    return (
        f"{variant.name}: {'; '.join(variant.missed)}: leave out {option}, give (other) "
        "--calibration-videos, or keep it all the same with --no-gate"
    )


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
            "ok" if c.passed else printable(c.problem or "differs"),
        )
    return table


def _variants(result: ExportResult) -> Table:
    count = result.proof.variants[0].clips
    table = Table(title=f"Variants against PyTorch (float32), {count} clips", title_justify="left")
    for column in ("dtype", "cosine, centred", "max abs", "top-1", "top-5", "score change", ""):
        table.add_column(column, justify="left" if column in ("dtype", "") else "right")
    for v in result.proof.variants:
        table.add_row(
            v.name,
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
