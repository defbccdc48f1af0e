"""Measures how much accuracy the int8, fp16 and q4 files lose: run with ``--help`` for options."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import click
import numpy as np
import numpy.typing as npt
import torch
from timesformer_exporter import ExportOptions, export
from timesformer_exporter.options import Dtype, Int8Target
from timesformer_runtime import VideoClassifier

from models.shot_transitions.card import VARIANTS, put_into_card
from models.shot_transitions.checkpoint import load_model
from models.shot_transitions.evaluate import logits_of, pool_for
from models.shot_transitions.options import (
    model_option,
    renders_option,
    threads_option,
    write_card_option,
)

Labels = npt.NDArray[np.int64]

# Points of accuracy (percentage points) that a file may lose against PyTorch in float32.
MOST_LOST = {"fp32": 0.1, "int8": 0.5, "int8_avx2": 0.5, "fp16": 0.1, "q4": 1.0}
LEAST_AGREEMENT = 0.99  # share of the clips that get the label that PyTorch gives them


@dataclass(frozen=True)
class Cost:
    """The labels of one file, compared with PyTorch's.

    Attributes:
        variant: The file's precision, or ``int8_avx2`` for int8 with weights of 7 bits.
        accuracy: Share of the clips that the file names rightly.
        lost: Points of accuracy less than PyTorch's; negative where it has more.
        agreement: Share of the clips that get PyTorch's label, right or wrong.
    """

    variant: str
    accuracy: float
    lost: float
    agreement: float

    @property
    def passed(self) -> bool:
        """True where the file reaches both goals: few points lost, and PyTorch's labels."""
        # Without rounding, a loss of 0.1 points could exceed the limit 0.1 by its last digits.
        within = round(self.lost, 6) <= MOST_LOST[self.variant]
        return within and self.agreement >= LEAST_AGREEMENT


def cost(variant: str, true: Labels, pytorch: Labels, found: Labels) -> Cost:
    """Compares a file's labels with PyTorch's, all int [clips]."""
    right, right_in_pytorch = np.mean(found == true), np.mean(pytorch == true)
    return Cost(
        variant,
        accuracy=float(right),
        lost=100 * float(right_in_pytorch - right),
        agreement=float(np.mean(found == pytorch)),
    )


def table(clips: int, accuracy: float, costs: Sequence[Cost]) -> str:
    """Makes a Markdown table of the costs.

    Args:
        clips: The number of clips that the costs were measured on.
        accuracy: PyTorch's accuracy.
        costs: The costs of each file.
    """
    lines = [
        f"### What reduced precision costs, on the {clips} held-out renders",
        "",
        "| | accuracy | points lost | PyTorch's label | wanted | |",
        "|---|--:|--:|--:|---|---|",
        f"| PyTorch float32 | {accuracy:.2%} | | | | |",
    ]
    for c in costs:
        wanted = f"at most {MOST_LOST[c.variant]:g}, at least {LEAST_AGREEMENT:.0%}"
        verdict = "ok" if c.passed else "**missed**"
        lines.append(
            f"| {c.variant} | {c.accuracy:.2%} | {c.lost:.2f} | {c.agreement:.2%} | {wanted} "
            f"| {verdict} |"
        )
    return "\n".join(lines)


def measure(folder: Path, renders: Path, threads: int) -> tuple[str, tuple[Cost, ...]]:
    """Exports a model in all precisions and runs it on a pool, one clip at a time.

    Args:
        folder: The folder of the model's checkpoint.
        renders: The folder of the pool.
        threads: CPU threads.

    Returns:
        The table, and the costs of each file.
    """
    model = load_model(folder)
    pool = pool_for(model, renders)
    available = pool.available()
    clips, true = pool.clips[available], pool.labels[available].astype(np.int64)
    pytorch = logits_of(model, clips).argmax(1)
    costs = []
    with tempfile.TemporaryDirectory() as scratch:
        exported = Path(scratch) / "exported"
        # Without the gate: this command judges the files itself, and its table shows bad ones, too.
        options = ExportOptions(
            str(folder),
            output=exported,
            dtypes=get_args(Dtype),
            int8_target=get_args(Int8Target),
            gate=False,
        )
        export(options)
        for variant in options.variants:
            # By its path: of the int8 files the runtime would take the one for this processor.
            path = exported / "onnx" / variant.file
            classifier = VideoClassifier.from_pretrained(path, device="cpu", threads=threads)
            found = np.array([classifier.logits(clip).argmax() for clip in clips])
            costs.append(cost(variant.name, true, pytorch, found))
    return table(len(clips), float(np.mean(pytorch == true)), costs), tuple(costs)


@click.command()
@model_option
@renders_option()
@write_card_option
@threads_option
def main(folder: Path, renders: Path, write_card: bool, threads: int) -> None:
    """Prints the accuracy of each variant beside PyTorch's; exits with 1 if one misses.

    An exported file may lose few points of accuracy and must give nearly all clips the label that
    PyTorch gives them. The runtime runs the file, one clip at a time, as for users.
    """
    torch.set_num_threads(threads)
    text, costs = measure(folder, renders, threads)
    click.echo(text)
    if write_card:
        put_into_card(folder, text, VARIANTS)
    missed = [c.variant for c in costs if not c.passed]
    if missed:
        raise click.ClickException(f"{folder.name}: {', '.join(missed)} missed the goals")


if __name__ == "__main__":
    main()
